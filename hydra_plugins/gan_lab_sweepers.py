"""Where Hydra looks for sweepers: it imports this at every start of any program, so nothing heavy may stand here."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


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
