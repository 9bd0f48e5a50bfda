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
    """What Optuna suggests: `gan_lab.sweeps.optuna`."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        study_name: str | None,
        storage: str | None,
        params: DictConfig,
        sampler: DictConfig,
        pruner: DictConfig | None,
    ) -> None:
        self._settings = {
            "n_trials": n_trials,
            "n_jobs": n_jobs,
            "study_name": study_name,
            "storage": storage,
            "params": params,
            "sampler": sampler,
            "pruner": pruner,
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from gan_lab.sweeps.bayes import OptunaSweep

        self._sweep = OptunaSweep(
            context=hydra_context, task=task_function, config=config, **self._settings
        )

    def sweep(self, arguments: list[str]) -> Any:
        return self._sweep.run(arguments)
