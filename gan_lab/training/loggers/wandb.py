"""Weights & Biases: what metrics.jsonl has, and the grids, for as long as it can be reached."""

import mimetypes
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from lightning.pytorch.utilities import rank_zero_only

from gan_lab.console import warn
from gan_lab.data.media import Sheet
from gan_lab.data.sample import to_pil
from gan_lab.errors import first_line
from gan_lab.run import write
from gan_lab.training.checkpoint import BEST, LAST
from gan_lab.training.loggers import (
    METRICS_FILE,
    BestValues,
    Service,
    node_names,
)
from gan_lab.training.loggers.files import read_metrics

if TYPE_CHECKING:
    import wandb

# seconds that W&B may take to begin, and to send the rest at the end; WANDB_INIT_TIMEOUT and the like overrule them.
# It would wait for ever at the end, and a job on a cluster with it.
_PATIENCE = {"init_timeout": 60.0, "finish_timeout": 600.0}


class Wandb(Service["wandb.Run"]):
    """A W&B run for the life of a run folder: kimg is the axis of everything, the configuration a tree.

    The best value of each metric of `metrics/` is in the summary, as `best/<metric>` and `best/<metric>_kimg`, and so
    is `advice`. Where W&B cannot be reached, the run is written to the run folder, offline; where it fails later,
    training goes on.

    Args:
        run_dir: the run folder; the run's id is kept in its `wandb_id`.
        project: W&B project.
        entity: W&B user or team, null for the default one.
        offline: null means offline exactly when no key is set, or as the variable WANDB_MODE says.
        tags: of the run; null for the names of its model, data and loss.
        group: of the run; of a sweep, its name.
        log_model: whether to upload the best checkpoint, or else the last one, at the end.
    """

    title = "W&B"

    def __init__(
        self,
        *,
        run_dir: str | Path,
        project: str = "gan_lab",
        entity: str | None = None,
        offline: bool | None = None,
        tags: list[str] | None = None,
        group: str | None = None,
        log_model: bool = False,
    ) -> None:
        super().__init__(run_dir=run_dir)
        self._project = project
        self._entity = entity
        self._mode = None if offline is None else "offline" if offline else "online"
        if offline is None and "WANDB_MODE" not in os.environ:
            self._mode = "online" if has_wandb_key() else "offline"
        self._tags = tags
        self._group = group
        self._log_model = log_model
        self._best = BestValues()

    @property
    def version(self) -> str:
        return run_id(self.run_dir)

    def started(self, session: "wandb.Run") -> None:
        """Nothing to do: the run begins with the configuration, as the tree that it is."""

    def send_later(self) -> str:
        if self.session is None:
            return ""
        return f"; to send later what W&B had: wandb sync {Path(self.session.dir).parent}"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        def act(run: "wandb.Run") -> None:
            run.log(dict(metrics))
            better = self._best.update(metrics)
            if better:
                run.summary.update(better)

        self.attempt(act)

    @rank_zero_only
    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None:
        def act(run: "wandb.Run") -> None:
            import wandb

            what = sheet.media_type.partition("/")[0]
            if what == "text":
                texts = [[one.decode(errors="replace")] for one in sheet.media]
                run.log({name: wandb.Table(columns=["text"], data=texts), "kimg": kimg})
                return
            entry: dict[str, Any] = {name: wandb.Image(to_pil(sheet.image)), "kimg": kimg}
            with TemporaryDirectory() as folder:
                if what == "audio":
                    suffix = mimetypes.guess_extension(sheet.media_type) or ".wav"
                    paths = [Path(folder) / f"{i}{suffix}" for i in range(len(sheet.media))]
                    for path, clip in zip(paths, sheet.media, strict=True):
                        path.write_bytes(clip)
                    entry[f"{name}_clips"] = [wandb.Audio(str(path)) for path in paths]
                run.log(entry)

        self.attempt(act)

    @rank_zero_only
    def rewind(self, kimg: float) -> None:
        """Restore the best values at the resumed step; later rows stay, since W&B cannot delete them."""
        path = self.run_dir / METRICS_FILE
        self._best.restart(read_metrics(path) if path.exists() else [], kimg)
        best = self._best.values
        if best:
            self.attempt(lambda run: run.summary.update(best))

    @rank_zero_only
    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        self.attempt(lambda run: run.summary.update({"advice": "\n".join(advice)}))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run, so that a next one in this process is not written into it."""
        if self.session is not None and status == "success" and self._log_model:
            self.attempt(self._upload)
        self.end(lambda run: run.finish(exit_code=0 if status == "success" else 1))

    def begin(self) -> "wandb.Run":
        import wandb

        known = wandb.Settings.model_fields  # an older version has fewer
        patience = {
            name: seconds
            for name, seconds in _PATIENCE.items()
            if name in known and f"WANDB_{name.upper()}" not in os.environ
        }
        if "finish_timeout_raises" in known:
            patience["finish_timeout_raises"] = True
        try:
            run = self._init(self._mode, patience)
        except wandb.Error as error:
            if self._mode == "offline":
                raise
            warn(
                f"W&B cannot be reached ({first_line(error)}); this session is written offline, "
                f"send it later: wandb sync {self.run_dir}/wandb/offline-run-*"
            )
            # what has begun of the run in W&B's own process holds its id
            wandb.teardown()
            run = self._init("offline", patience)
        run.define_metric("kimg")
        run.define_metric("*", step_metric="kimg")
        return run

    def _init(self, mode: Any, settings: dict[str, Any]) -> "wandb.Run":
        import wandb

        return wandb.init(
            project=self._project,
            entity=self._entity,
            name=self.name,
            dir=str(self.run_dir),
            id=run_id(self.run_dir),
            resume="allow",
            group=self._group,
            tags=self._tags if self._tags is not None else list(node_names(self.config).values()),
            config=self.config,
            mode=mode,
            # not a run that is still open in this process
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )

    def _upload(self, run: "wandb.Run") -> None:
        import wandb

        for name in (BEST, LAST):
            path = self.run_dir / "checkpoints" / name
            if path.exists():
                model = wandb.Artifact(
                    f"gan-{run.id}", type="model", metadata=dict(self._best.values)
                )
                model.add_file(str(path))
                config = self.run_dir / "config.yaml"
                if config.exists():
                    model.add_file(str(config))
                run.log_artifact(model, aliases=[path.stem])
                return


def has_wandb_key() -> bool:
    """Whether W&B would find a key: in the environment, or for its server in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    server = urlparse(os.environ.get("WANDB_BASE_URL", "")).hostname or "api.wandb.ai"
    return netrc.exists() and server in netrc.read_text()


def run_id(run_dir: Path) -> str:
    """Return the W&B id of a run folder, made once; a W&B sweep's agent brings one for each run."""
    path = run_dir / "wandb_id"
    if not path.exists():
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        write(path, given or secrets.token_hex(4))
    return path.read_text().strip()
