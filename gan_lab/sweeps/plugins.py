"""Hydra's sweepers and launchers of gan_lab, by the names that `conf/hydra` has.

They are registered whenever a command starts, so nothing heavy may stand here: what they do lies in other modules.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


def register() -> None:
    """Tell Hydra of them. It takes plugins by names of one package alone, which these have no need to lie in."""
    known = Plugins.instance().class_name_to_class
    for plugin in (Grid, Optuna, Slurm):
        known[f"hydra_plugins.gan_lab.{plugin.__name__}"] = plugin


class Grid(Sweeper):
    """Every combination of the values: `gan_lab.sweeps.grid`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from gan_lab.sweeps.grid import GridSweep

        self._sweep = GridSweep(context=hydra_context, task=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        return self._sweep.run(arguments)


class Optuna(Sweeper):
    """What Optuna suggests: `gan_lab.sweeps.trials`."""

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

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from gan_lab.sweeps.trials import OptunaSweep, Settings

        settings = Settings(
            n_trials=self.n_trials,
            n_jobs=self.n_jobs,
            study_name=self.study_name,
            storage=self.storage,
            params=self.params,
            sampler=self.sampler,
            pruner=self.pruner,
        )
        self._sweep = OptunaSweep(
            context=hydra_context, task=task_function, config=config, settings=settings
        )

    def sweep(self, arguments: list[str]) -> Any:
        return self._sweep.run(arguments)


class Slurm(Launcher):
    """The runs of a sweep as jobs of SLURM: `gan_lab.sweeps.cluster`.

    Args:
        options: of `conf/hydra/launcher/slurm.yaml`, which submitit takes.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from gan_lab.distributed.slurm import check_cluster

        check_cluster()
        from gan_lab.sweeps.cluster import ClusterSweep

        self._sweep = ClusterSweep(**self.options)
        self._sweep.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        return self._sweep.launch(job_overrides, initial_job_idx)
