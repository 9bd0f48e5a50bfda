"""Where Hydra looks for launchers: it imports this at every start of any program, so nothing heavy may stand here."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


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
        from gan_lab.slurm import check_cluster

        check_cluster()
        from gan_lab.sweeps.cluster import ClusterSweep

        self._sweep = ClusterSweep(**self.options)
        self._sweep.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        return self._sweep.launch(job_overrides, initial_job_idx)
