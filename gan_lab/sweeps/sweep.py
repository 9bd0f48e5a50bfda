"""Sweeps as Hydra sweepers: find the remaining runs, launch them, report; the grid sweep."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import FolderName, as_allowed, check_keys, run_name
from gan_lab.console import say
from gan_lab.distributed import slurm
from gan_lab.distributed.processes import started_by_others
from gan_lab.errors import InputError, counted
from gan_lab.run import locked
from gan_lab.sweeps.job import (
    FINAL,
    KEYS,
    STOP_FILE,
    WRONG,
    Job,
    SweepFile,
    stop_on_signal,
    stopped_by,
    sweep_folder,
    table,
    without_sweep_keys,
)
from gan_lab.sweeps.outcome import chosen_objective
from gan_lab.training.checkpoint import LAST
from gan_lab.training.checks import TrainKeys


class Planned(NamedTuple):
    """A run of the sweep: its state, its overrides, and its configuration."""

    job: Job
    overrides: list[str]
    config: DictConfig


class Sweep(Sweeper):
    """Base class of sweeps."""

    then = "the same command tries them again"

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the config and make the launcher.

        Args:
            hydra_context: Hydra's.
            task_function: called by the launcher for each run.
            config: of the command, without a single run's overrides.

        Raises:
            InputError: under torchrun or srun, and for a bad sweep name.
        """
        if started_by_others():
            raise InputError(
                "a sweep starts the processes of its runs by itself: leave torchrun or srun out, and set "
                "trainer.devices="
            )
        as_allowed(config.sweep, FolderName, "sweep", None, "")
        self.context = hydra_context
        self.common = config
        self.folder = sweep_folder(config)
        self.record = SweepFile(self.folder)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self._launch = launcher.launch
        self._launched: list[str] = []

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides of the command line."""
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        return parser.parse_overrides(list(overrides))

    def plan(self, batch: Sequence[Sequence[str]]) -> list[Planned]:
        """Compose every run, to find errors before the first is trained.

        Raises:
            InputError: for invalid runs, and runs that would share a folder.
        """
        planned = [self._compose(overrides) for overrides in batch]
        for config in (run.config for run in planned):
            check_keys(config, TrainKeys, {})
            if config.dry_run:
                raise InputError(
                    "dry_run=true says what one run costs; leave -m out and give one value for each key"
                )
            if config.objective is not None or config.objective_mode is not None:
                chosen_objective(config)
        self._check_settings(planned)
        twice = [run for run, n in Counter(p.job.run for p in planned).items() if n > 1]
        if twice:
            raise InputError(
                f"{counted(len(planned), 'run')}, of which several would be called {twice[0]}; leave name= out, or "
                "make it different for each"
            )
        return planned

    def rest(self, planned: Sequence[Planned]) -> list[Planned]:
        """Return the runs that are not done."""
        known = self.record.jobs()
        return [run for run in planned if not is_done(known.get(run.job.run), run.config)]

    def launch(self, planned: Sequence[Planned]) -> list[Job]:
        """Launch runs that are not done, and return the jobs."""
        rest = self.rest(planned)
        self.record.put([run.job for run in rest])
        if rest:
            first = len(self._launched)
            self._launched += [run.job.run for run in rest]
            overrides = [run.overrides for run in rest]
            for returned in self._launch(overrides, initial_job_idx=first):
                # failing runs raise nothing: an error here is a defect
                _ = returned.return_value
        known = self.record.jobs()
        return [known[run.job.run] for run in planned]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lock the sweep's folder; at the end print the table and exit with the runs' status.

        Raises:
            InputError: when a run failed, or another process runs this sweep.
            SystemExit: when the sweep was stopped.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stop = self.folder / STOP_FILE
        with locked(self.folder):
            stop.unlink(missing_ok=True)
            try:
                with stop_on_signal(stop):
                    yield
            finally:
                slurm.block_signals()
                self._clear_up()
                say(table(self.record.jobs().values()))
                say(f"sweep        {self.record.path}")
            if self.stopped:
                self._leave(stopped_by(stop))
        jobs = self.record.jobs()
        undone = (*WRONG, "stopped")
        wrong = [run for run in self._launched if jobs[run].status in undone]
        if wrong:
            raise InputError(
                f"{len(wrong)} of {counted(len(jobs), 'run')} failed ({', '.join(wrong[:5])}); {self.record.path} says "
                f"why, and {self.then}"
            )

    @property
    def stopped(self) -> bool:
        """Whether the sweep was stopped."""
        return (self.folder / STOP_FILE).exists()

    def _leave(self, number: int) -> None:
        most = OmegaConf.select(self.common, "callbacks.checkpointing.max_requeues", default=0)
        again = slurm.in_job() and slurm.requeue(number, max_requeues=most) is None
        then = f"job {slurm.job()} starts again" if again else "the same command goes on"
        say(f"stopped; {then}")
        raise SystemExit(slurm.REQUEUED if again else 128 + number)

    def _check_settings(self, planned: Sequence[Planned]) -> None:
        """Check that a run is continued with the same overrides."""
        known = self.record.jobs()
        for job in (run.job for run in planned if run.job.run in known):
            before, now = (set(naming_overrides(j.overrides)) for j in (known[job.run], job))
            if before != now:
                old, new = (", ".join(sorted(s)) for s in (before - now, now - before))
                raise InputError(
                    f"{self.folder} has a run {job.run} with {old or 'defaults'}, and now it would be with "
                    f"{new or 'defaults'}; choose another sweep="
                )

    def _compose(self, overrides: Sequence[str]) -> Planned:
        config = self.context.config_loader.load_sweep_config(self.common, list(overrides))
        # runs are named in Hydra's own config
        before = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            added = [word for word in overrides if word.startswith("++")]
            if any(not word.startswith("++callbacks.pruning") for word in added):
                # keys that no file lists are checked by constructors, which take seconds to import
                import_module(KEYS).check("train", config)
            config.name = config.name
        finally:
            HydraConfig.instance().cfg = before
        return Planned(
            Job(run=config.name, overrides=without_sweep_keys(overrides)), list(overrides), config
        )

    def _clear_up(self) -> None:
        """Reset runs that a killed sweep left as running."""
        for job in self.record.jobs().values():
            if job.status == "running":
                status = "stopped" if self.stopped else "killed"
                self.record.change(
                    job.run, status=status, error="its process ended without a report"
                )


def naming_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that are part of a run's name."""
    return [word for word in overrides if run_name([word]) != "default"]


def is_done(known: Job | None, config: DictConfig) -> bool:
    """Whether a run is finished."""
    if known is None or known.status not in FINAL:
        return False
    # a pruned run is finished, whatever its length
    enough = known.status == "pruned" or (known.total_kimg or 0) >= config.total_kimg
    return enough and (Path(config.run_dir) / "checkpoints" / LAST).exists()


class GridSweep(Sweep):
    """Tries every combination of the values that the command line lists."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run the remaining runs.

        Raises:
            InputError: for invalid runs, before the first one; at the end, when one failed.
            SystemExit: when it was stopped.
        """
        planned = self.plan(combinations(self.parse(arguments)))
        done = len(planned) - len(self.rest(planned))
        say(f"sweep        {counted(len(planned), 'run')}, {done} of them done, into {self.folder}")
        with self.running():
            self.launch(planned)


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each run, the last key varying fastest.

    Raises:
        InputError: for values that cannot be listed.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise InputError(
                f"{override.input_line} has no finite list of values; list them, or choose "
                "hydra/sweeper=optuna"
            )
    return [list(chosen) for chosen in product(*values.values())]
