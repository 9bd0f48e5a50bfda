"""Runs that Optuna suggests: `gan-lab train -m hydra/sweeper=optuna loss=hinge,nonsaturating ...`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    RangeSweep,
)
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from gan_lab.config import build
from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.sweeps import as_override, swept_override
from gan_lab.sweeps.job import Job
from gan_lab.sweeps.outcome import Objective, chosen_objective, open_storage
from gan_lab.sweeps.sweep import Planned, Sweep

# the sweep of a trial: several may share a study
FOLDER = "folder"


@dataclass(frozen=True)
class Dimension:
    """One searched key.

    Attributes:
        key: as an override begins with it, `+` included.
        distribution: of its values; categories are texts, as in an override.
    """

    key: str
    distribution: BaseDistribution

    def override(self, value: float | int | str) -> str:
        """Return the override for a value; floats with six digits."""
        return f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}"

    def examples(self) -> list[float | int | str]:
        """Return one value, or all categories."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return [str(choice) for choice in found.choices]
        assert isinstance(found, FloatDistribution | IntDistribution)
        return [found.low]


class OptunaSweep(Sweep):
    """Tries a sampler's suggestions, in batches, and prunes runs that fall behind.

    All state is in the study, so that the same command resumes: an interrupted trial keeps its number, values and run
    folder. Each trial gets a new sampler with its own seed, so that a resumed search suggests the same values as an
    uninterrupted one.

    Args:
        n_trials: runs in all, over all calls.
        n_jobs: runs at a time.
        study_name: None for the sweep's name.
        storage: None for a journal in the sweep's folder.
        params: further search space, by key, as on the command line.
        sampler: to build; a different `seed` is derived for each trial.
        pruner: to build; None for no pruning.
    """

    then = "the search goes on without them"

    def __init__(
        self,
        *,
        n_trials: int,
        n_jobs: int,
        study_name: str | None,
        storage: str | None,
        params: DictConfig,
        sampler: DictConfig,
        pruner: DictConfig | None,
    ) -> None:
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.study_name = study_name
        self.storage = storage
        self.params = params
        self.sampler = sampler
        self.pruner = pruner
        self._tried: set[int] = set()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the options, and choose the study's storage.

        Raises:
            InputError: as `Sweep.setup`, and for numbers below 1.
        """
        for key in ("n_trials", "n_jobs"):
            if not isinstance(number := getattr(self, key), int) or number < 1:
                raise InputError(f"hydra.sweeper.{key}={number} must be a whole number, at least 1")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.location = self.storage or str(self.folder / "optuna.journal")
        self.study_name = self.study_name or str(config.sweep)

    def sweep(self, arguments: list[str]) -> Any:
        """Continue the search up to `n_trials`.

        Raises:
            InputError: for invalid runs, before the first one; at the end, when one failed.
            SystemExit: when it was stopped.
        """
        optuna.logging.set_verbosity(logging.WARNING)
        given = [f"{key!s}={value}" for key, value in self.params.items()]
        fixed, space = search_space(self.parse([*given, *arguments]))
        fixed.append(swept_override(list(space)))
        objective = self._objective(fixed, space)
        with self.running():
            study = self._open(objective)
            n = len(study.get_trials(deepcopy=False))
            say(
                f"sweep        trial {n} of {self.n_trials} is next, into {self.folder}; "
                f"{objective.mode} of {objective.key}"
            )
            while not self.stopped and (batch := self._batch(study, space)):
                self._try(study, batch, fixed, space, objective)

    def _objective(self, fixed: list[str], space: dict[str, Dimension]) -> Objective:
        """Compose a run for each category, to find errors before the first run."""
        first = {name: dimension.examples()[0] for name, dimension in space.items()}
        probes = [first] + [
            {**first, name: example}
            for name, dimension in space.items()
            for example in dimension.examples()[1:]
        ]
        planned = [self.plan([run_overrides(fixed, space, probe)])[0] for probe in probes]
        found = {chosen_objective(run.config) for run in planned}
        if None in found:
            raise InputError(
                "there are no metrics, so there is no objective; choose metrics= that suit the data, or objective="
            )
        if len(found) > 1:
            keys = ", ".join(sorted(objective.key for objective in found if objective))
            raise InputError(f"the runs would be compared by {keys}; choose one by objective=")
        (objective,) = found
        assert objective is not None
        return objective

    def _open(self, objective: Objective) -> optuna.Study:
        least, most = optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE
        direction = least if objective.mode == "min" else most
        study = optuna.create_study(
            study_name=self.study_name,
            storage=open_storage(self.location),
            direction=direction,
            load_if_exists=True,
        )
        if study.direction is not direction:
            raise InputError(
                f"the study {self.study_name} in {self.location} does not {direction.name.lower()}; choose another "
                "sweep="
            )
        return study

    def _batch(self, study: optuna.Study, space: dict[str, Dimension]) -> list[FrozenTrial]:
        """Return the trials to run next: first interrupted ones, then new ones."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [t for t in running if t.user_attrs.get(FOLDER) == str(self.folder)]
        batch = [t for t in mine if t.number not in self._tried][: self.n_jobs]
        for trial in [t for t in batch if set(t.params) != set(space)]:
            # of another search space, which cannot be continued
            study.tell(trial.number, state=TrialState.FAIL)
            batch.remove(trial)
        while len(batch) < self.n_jobs:
            trials = study.get_trials(deepcopy=False)
            taken = [t for t in trials if t.state is not TrialState.WAITING]
            if len(taken) >= self.n_trials:
                break
            study.sampler = build(self.sampler, **self._seed(len(taken)))
            suggested = study.ask({name: found.distribution for name, found in space.items()})
            suggested.set_user_attr(FOLDER, str(self.folder))
            batch.append(study.get_trials(deepcopy=False)[suggested.number])
        self._tried |= {trial.number for trial in batch}
        return batch

    def _seed(self, number: int) -> dict[str, Any]:
        seed = self.sampler.get("seed")
        if seed is None:
            return {}
        return {"seed": int(np.random.SeedSequence((seed, number)).generate_state(1)[0])}

    def _try(
        self,
        study: optuna.Study,
        batch: list[FrozenTrial],
        fixed: list[str],
        space: dict[str, Dimension],
        objective: Objective,
    ) -> None:
        runs: dict[str, Planned] = {}
        names = {}
        for trial in batch:
            pruning = self._pruning(trial.number, objective)
            (run,) = self.plan([[*run_overrides(fixed, space, trial.params), *pruning]])
            # two trials of the same values are one run
            runs.setdefault(run.job.run, run)
            names[trial.number] = run.job.run
        jobs = {job.run: job for job in self.launch(list(runs.values()))}
        for number, name in names.items():
            report_trial(study, number, jobs[name])

    def _pruning(self, number: int, objective: Objective) -> list[str]:
        """Return the override that enables pruning of a run."""
        if self.pruner is None:
            return []
        node: dict[str, Any] = {
            "_target_": "gan_lab.sweeps.outcome.Pruning",
            "storage": self.location,
            "study": self.study_name,
            "trial": number,
            "objective": objective.key,
            "pruner": OmegaConf.to_container(self.pruner, resolve=True),
        }
        return [f"++callbacks.pruning={as_override(node)}"]


def run_overrides(
    fixed: list[str], space: dict[str, Dimension], values: dict[str, Any]
) -> list[str]:
    """Return the overrides of a run."""
    return [*fixed, *(found.override(values[name]) for name, found in space.items())]


def report_trial(study: optuna.Study, number: int, job: Job) -> None:
    """Report a trial's result to the study; an interrupted one stays running, to be continued."""
    if job.status == "done" and job.value is not None:
        study.tell(number, job.value)
    elif job.status == "pruned":
        study.tell(number, state=TrialState.PRUNED)
    elif job.status in ("done", "failed"):
        study.tell(number, state=TrialState.FAIL)


def search_space(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Dimension]]:
    """Split overrides into fixed and searched ones.

    `a=interval(0,1)` is a number between, `a=tag(log,interval(1e-5,1e-3))` one on a logarithmic scale,
    `a=tag(int,log,interval(1,64))` a whole one, `a=range(1,9,2)` one of 1, 3, 5, 7, and `a=x,y` one of these.

    Raises:
        InputError: for an empty space, and an unknown scale.
    """
    fixed: dict[str, str] = {}
    space: dict[str, Dimension] = {}
    for override in overrides:
        key = override.get_key_element()
        name = key.lstrip("+")
        fixed.pop(name, None)
        space.pop(name, None)
        if override.is_sweep_override():
            space[name] = Dimension(key, distribution(override))
        else:
            fixed[name] = str(override.input_line)
    if not space:
        raise InputError(
            "hydra/sweeper=optuna has nothing to search over; give a key several values, such as "
            "model.generator_optimizer.lr='tag(log,interval(1e-5,1e-3))' or loss=hinge,nonsaturating"
        )
    return list(fixed.values()), space


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution of an override's values.

    Raises:
        InputError: for an invalid interval or range.
    """
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            return interval(value)
        if isinstance(value, RangeSweep):
            return between(value)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise InputError(f"{override.input_line} cannot be searched over: {error}") from error


def interval(value: IntervalSweep) -> BaseDistribution:
    """Return the distribution of an interval; its tags are `log` and `int`.

    Raises:
        ValueError: for one that is empty, or reaches 0 on a logarithmic scale.
    """
    unknown = value.tags - {"log", "int"}
    if unknown:
        raise ValueError(f"the tags log and int are known, {', '.join(sorted(unknown))} is not")
    if value.start is None or value.end is None:
        raise ValueError("it lacks a start or an end")
    log = "log" in value.tags
    if "int" in value.tags or (isinstance(value.start, int) and isinstance(value.end, int)):
        return IntDistribution(int(value.start), int(value.end), log=log)
    return FloatDistribution(value.start, value.end, log=log)


def between(value: RangeSweep) -> BaseDistribution:
    """Return the distribution of a range, exclusive of its end as in Python.

    Raises:
        ValueError: for an empty one.
    """
    numbers = list(value.range())
    if not numbers:
        raise ValueError("it is empty")
    low, high, step = min(numbers), max(numbers), abs(value.step)
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(float(low), float(high), step=float(step))
