"""What Optuna suggests: `gan-lab train -m hydra/sweeper=optuna loss=hinge,nonsaturating ...`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build
from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.sweeps.command import swept_override
from gan_lab.sweeps.outcome import Objective, chosen_objective
from gan_lab.sweeps.record import Job
from gan_lab.sweeps.study import check_installed, open_storage
from gan_lab.sweeps.sweep import Planned, Sweep
from gan_lab.sweeps.text import as_override

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from gan_lab.sweeps.space import Dimension

# whose trial it is: several sweeps may share a study
FOLDER = "folder"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `hydra/sweeper=optuna` takes.

    Attributes:
        n_trials: runs in all, over all calls.
        n_jobs: runs at a time.
        study_name: None for the sweep's name.
        storage: None for a journal in the sweep's folder.
        params: more of the search space, by key, as the command line writes it.
        sampler: to build; its `seed`, where it has one, makes another one for each trial.
        pruner: to build; None lets every run go on to its end.
    """

    n_trials: int
    n_jobs: int
    study_name: str | None
    storage: str | None
    params: DictConfig
    sampler: DictConfig
    pruner: DictConfig | None


class OptunaSweep(Sweep):
    """Tries what a sampler suggests, in batches, and has hopeless runs end early.

    All is kept in the study, so that the same command goes on: a trial that was cut off keeps its number, its values
    and its run folder. The sampler is made anew for each trial, with a seed of its own, so that a search that was
    stopped suggests what an uninterrupted one would.

    Args:
        settings: of the search.
    """

    def __init__(
        self,
        *,
        context: HydraContext,
        task: TaskFunction,
        config: DictConfig,
        settings: Settings,
    ) -> None:
        check_installed()
        for key in ("n_trials", "n_jobs"):
            if not isinstance(number := getattr(settings, key), int) or number < 1:
                raise InputError(f"hydra.sweeper.{key}={number} must be a whole number, at least 1")
        super().__init__(context=context, task=task, config=config)
        self.settings = settings
        self.storage = settings.storage or str(self.folder / "optuna.journal")
        self.study_name = settings.study_name or str(config.sweep)
        self.then = "the search goes on without them"
        self._tried: set[int] = set()

    def run(self, words: Sequence[str]) -> None:
        """Go on with the search until there are as many trials as were asked for.

        Raises:
            InputError: for what cannot be run, before the first run; at the end, when one failed.
            SystemExit: when it was asked to stop.
        """
        import optuna

        from gan_lab.sweeps.space import search_space

        optuna.logging.set_verbosity(logging.WARNING)
        given = [f"{key!s}={value}" for key, value in self.settings.params.items()]
        fixed, space = search_space(self.parse([*given, *words]))
        fixed.append(swept_override(list(space)))
        objective = self._objective(fixed, space)
        with self.running():
            study = self._open(objective)
            n = len(study.get_trials(deepcopy=False))
            say(
                f"sweep        trial {n} of {self.settings.n_trials} is next, into {self.folder}; "
                f"{objective.mode} of {objective.key}"
            )
            while not self.stopped and (batch := self._batch(study, space)):
                self._try(study, batch, fixed, space, objective)

    def _objective(self, fixed: list[str], space: "dict[str, Dimension]") -> Objective:
        """Compose a run for each category, so that slips show before the first run."""
        first = {name: dimension.examples()[0] for name, dimension in space.items()}
        probes = [first] + [
            {**first, name: example}
            for name, dimension in space.items()
            for example in dimension.examples()[1:]
        ]
        planned = [self.plan([words_of(fixed, space, probe)])[0] for probe in probes]
        found = {chosen_objective(run.config) for run in planned}
        if None in found:
            raise InputError(
                "there is nothing to search by: nothing is measured; choose metrics= that suit the data, or objective="
            )
        if len(found) > 1:
            keys = ", ".join(sorted(objective.key for objective in found if objective))
            raise InputError(f"the runs would be compared by {keys}; choose one by objective=")
        (objective,) = found
        assert objective is not None
        return objective

    def _open(self, objective: Objective) -> "Study":
        import optuna
        from optuna.study import StudyDirection

        least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        direction = least if objective.mode == "min" else most
        study = optuna.create_study(
            study_name=self.study_name,
            storage=open_storage(self.storage),
            direction=direction,
            load_if_exists=True,
        )
        if study.direction is not direction:
            raise InputError(
                f"the study {self.study_name} in {self.storage} does not {direction.name.lower()}; choose another "
                "sweep="
            )
        return study

    def _batch(self, study: "Study", space: "dict[str, Dimension]") -> "list[FrozenTrial]":
        """Return the trials to run next: first those that were cut off, then new ones."""
        from optuna.trial import TrialState

        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [t for t in running if t.user_attrs.get(FOLDER) == str(self.folder)]
        batch = [t for t in mine if t.number not in self._tried][: self.settings.n_jobs]
        for trial in [t for t in batch if set(t.params) != set(space)]:
            # of another search space, which cannot be gone on with
            study.tell(trial.number, state=TrialState.FAIL)
            batch.remove(trial)
        while len(batch) < self.settings.n_jobs:
            trials = study.get_trials(deepcopy=False)
            taken = [t for t in trials if t.state is not TrialState.WAITING]
            if len(taken) >= self.settings.n_trials:
                break
            study.sampler = build(self.settings.sampler, **self._seed(len(taken)))
            asked = study.ask({name: found.distribution for name, found in space.items()})
            asked.set_user_attr(FOLDER, str(self.folder))
            batch.append(study.get_trials(deepcopy=False)[asked.number])
        self._tried |= {trial.number for trial in batch}
        return batch

    def _seed(self, number: int) -> dict[str, Any]:
        seed = self.settings.sampler.get("seed")
        if seed is None:
            return {}
        return {"seed": int(np.random.SeedSequence((seed, number)).generate_state(1)[0])}

    def _try(
        self,
        study: "Study",
        batch: "list[FrozenTrial]",
        fixed: list[str],
        space: "dict[str, Dimension]",
        objective: Objective,
    ) -> None:
        runs: dict[str, Planned] = {}
        names = {}
        for trial in batch:
            pruning = self._pruning(trial.number, objective)
            (run,) = self.plan([[*words_of(fixed, space, trial.params), *pruning]])
            # two trials of the same values are one run
            runs.setdefault(run.job.run, run)
            names[trial.number] = run.job.run
        jobs = {job.run: job for job in self.launch(list(runs.values()))}
        for number, name in names.items():
            tell(study, number, jobs[name])

    def _pruning(self, number: int, objective: Objective) -> list[str]:
        """Return the override that has a run ask whether it is worth going on with."""
        if self.settings.pruner is None:
            return []
        node: dict[str, Any] = {
            "_target_": "gan_lab.sweeps.pruning.Pruning",
            "storage": self.storage,
            "study": self.study_name,
            "trial": number,
            "objective": objective.key,
            "pruner": OmegaConf.to_container(self.settings.pruner, resolve=True),
        }
        return [f"++callbacks.pruning={as_override(node)}"]


def words_of(fixed: list[str], space: "dict[str, Dimension]", values: dict[str, Any]) -> list[str]:
    """Return the overrides of a run."""
    return [*fixed, *(found.override(values[name]) for name, found in space.items())]


def tell(study: "Study", number: int, job: Job) -> None:
    """Tell a study what came out of a trial; one that was cut off stays as it is, to be gone on with."""
    from optuna.trial import TrialState

    if job.status == "done" and job.value is not None:
        study.tell(number, job.value)
    elif job.status == "pruned":
        study.tell(number, state=TrialState.PRUNED)
    elif job.status in ("done", "failed"):
        study.tell(number, state=TrialState.FAIL)
