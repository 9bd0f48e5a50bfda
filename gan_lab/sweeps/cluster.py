"""hydra/launcher=slurm: the runs of a sweep as a SLURM job array, by submitit."""

import time
from collections import Counter
from collections.abc import Sequence
from subprocess import SubprocessError
from typing import Any

import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import (  # type: ignore[import-untyped]
    BaseQueueConf,
)
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (  # type: ignore[import-untyped]
    SlurmLauncher,
)
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError

from gan_lab.config import register_resolvers
from gan_lab.console import say, warn
from gan_lab.distributed import slurm
from gan_lab.errors import InputError
from gan_lab.sweeps.job import STOP_FILE, SweepFile, sweep_folder, without_sweep_keys

# seconds between polls of SLURM: at first, and at most
SOONEST_S, LATEST_S = 1.0, 15.0


class ClusterSweep(SlurmLauncher):  # type: ignore[misc]
    """Hydra's submitit launcher, except that a failing job also fails in SLURM, and the others continue.

    A run's status is read from `sweep.json`, which the jobs write, and from squeue: submitit uses sacct, which needs
    accounting.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check everything possible before submitting.

        Raises:
            InputError: for an unknown number of devices.
        """
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        devices = config.trainer.devices
        if not isinstance(devices, int) or devices < 1:
            raise InputError(
                f"trainer.devices={devices} is not known before a job runs; with hydra/launcher=slurm give the number "
                "of processes on a node, trainer.devices=4"
            )
        if self.params["gpus_per_node"] is None:
            self.params["gpus_per_node"] = 0 if config.trainer.accelerator == "cpu" else devices
        self.folder = sweep_folder(config)

    def __call__(self, *args: Any) -> JobReturn:
        """Entry point of a SLURM job's process: train the run; raise if it failed."""
        slurm.block_signals()
        register_resolvers()
        returned = super().__call__(*args)
        # re-raises the task's error, which would otherwise count as success
        _ = returned.return_value
        return returned

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit runs, wait for them, and return their values, None for failed ones.

        Raises:
            InputError: when SLURM rejects them, or already has runs of this sweep.
        """
        self._check_resources(job_overrides)
        self._check_queue()
        jobs = self._submit(job_overrides, initial_job_idx)
        self._wait(jobs)
        return [
            self._returned(overrides, job)
            for overrides, job in zip(job_overrides, jobs, strict=True)
        ]

    def _check_resources(self, batch: Sequence[Sequence[str]]) -> None:
        assert self.hydra_context is not None and self.config is not None
        here = self.config.trainer
        for overrides in batch:
            other = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            for key in ("devices", "num_nodes", "accelerator"):
                if other.trainer[key] != here[key]:
                    raise InputError(
                        f"trainer.{key} is {here[key]} and {other.trainer[key]}, but the jobs of an array have equal "
                        "resources; make it the same for all runs, or a sweep of each"
                    )

    def _check_queue(self) -> None:
        try:
            mine = slurm.ask("squeue", "--me", "--noheader", "--format=%i %k")
        except (OSError, SubprocessError) as error:
            raise InputError(f"SLURM does not answer: {slurm.reason(error)}") from error
        there = [line.split()[0] for line in mine.splitlines() if line.endswith(self._mark)]
        if there:
            raise InputError(
                f"SLURM already has runs of {self.folder} (job {', '.join(there)}); wait for them, or end them by "
                f"scancel {' '.join(there)}, after which they are saved"
            )

    @property
    def _mark(self) -> str:
        return f"gan_lab:{self.folder.resolve()}"

    def _submit(self, batch: Sequence[Sequence[str]], first: int) -> list[submitit.Job]:
        plain = {*OmegaConf.structured(BaseQueueConf)} - {"submitit_folder"}
        options = {"comment": self._mark, **self.params}
        folder = options.pop("submitit_folder")
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=0)
        executor.update_parameters(
            **{
                name if name in plain else f"slurm_{name}": value
                for name, value in options.items()
                if value not in (None, 0)
            }
        )
        calls = [
            (list(overrides), "hydra.sweep.dir", first + i, "", Singleton.get_state())
            for i, overrides in enumerate(batch)
        ]
        try:
            jobs = executor.map_array(self, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise InputError(
                f"sbatch: {str(error).strip()}. See hydra.launcher.partition=, account=, gpus_per_node= and so on"
            ) from error
        say(
            f"SLURM        {len(jobs)} jobs from {jobs[0].job_id}, output in {folder.removesuffix('/%j')}"
        )
        return jobs

    def _wait(self, jobs: Sequence[submitit.Job]) -> None:
        """Wait until all jobs are done; when the sweep stops, make them save and end."""
        array = jobs[0].job_id.partition("_")[0]
        said, cancelled, pause = "", False, SOONEST_S
        while True:
            try:
                states = slurm.states(array)
            except (OSError, SubprocessError) as error:
                # a controller may be unreachable for a while
                warn(f"{slurm.reason(error)}; asking again")
                time.sleep(LATEST_S)
                continue
            there = [states[job.job_id] for job in jobs if job.job_id in states]
            counts = Counter(state.lower() for state in there if state not in slurm.ENDED)
            now = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
            if now not in ("", said):
                said = now
                say(f"SLURM        {now}")
            if not now:
                return
            if (self.folder / STOP_FILE).exists() and not cancelled:
                slurm.ask("scancel", array)
                cancelled, pause = True, SOONEST_S
            time.sleep(pause)
            pause = min(LATEST_S, 1.2 * pause)

    def _returned(self, overrides: Sequence[str], job: submitit.Job) -> JobReturn:
        """Return a run's value, and record how it ended if it could not do so itself."""
        record = SweepFile(self.folder)
        known = next(
            j for j in record.jobs().values() if j.overrides == without_sweep_keys(list(overrides))
        )
        if known.status in ("waiting", "running"):
            state = slurm.states(job.job_id).get(job.job_id, "unknown")
            stopped = (self.folder / STOP_FILE).exists()
            error = (
                None if stopped else f"job {job.job_id} ended as {state}: see {job.paths.stdout}"
            )
            known = record.change(known.run, status="stopped" if stopped else "killed", error=error)
        returned = JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
        returned.return_value = known.value
        return returned
