"""MLflow: what metrics.jsonl has, samples, advice and the best checkpoint, in a local store or on a server."""

import logging
import mimetypes
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from gan_lab.config import flatten
from gan_lab.console import say
from gan_lab.data.media import Sheet
from gan_lab.data.sample import to_pil
from gan_lab.errors import InputError
from gan_lab.run import write
from gan_lab.training.checkpoint import BEST, LAST
from gan_lab.training.loggers import METRICS_FILE, BestValues, Service, node_names
from gan_lab.training.loggers.files import read_metrics

# limits of the store: characters of a parameter's name and value and of a tag's value; parameters per call
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_TAG = 250, 6000, 5000
_PER_CALL = 100


class MLflow(Service[MLFlowLogger]):
    """An MLflow run for the life of a run folder; a step is an image shown, so that kimg = step / 1000.

    The configuration is an artifact, `config.yaml`, and parameters, which keep the first session's values: MLflow
    cannot change them. `best/<metric>` and `best/<metric>_kimg` are metrics, advice is a tag.

    Args:
        run_dir: the run folder; the id of the run is kept in its `mlflow_id`.
        runs_dir: where the local store is: `.mlflow`, for all runs in it.
        tracking_uri: a server or a store; null for the variable MLFLOW_TRACKING_URI, or else the local store.
        experiment_name: MLflow's experiment.
        group: of a sweep, its name; the tag `sweep`.
        log_model: whether to store the best checkpoint, or else the last one, at the end.

    Raises:
        InputError: when MLflow is not installed.
    """

    title = "MLflow"

    def __init__(
        self,
        *,
        run_dir: str | Path,
        runs_dir: str | Path,
        tracking_uri: str | None = None,
        experiment_name: str = "gan_lab",
        group: str | None = None,
        log_model: bool = False,
    ) -> None:
        super().__init__(run_dir=run_dir)
        if find_spec("mlflow") is None:
            raise InputError("logger=mlflow needs MLflow: pip install 'gan-laboratory[mlflow]'")
        self._folder = Path(runs_dir).absolute() / ".mlflow"
        self._given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._experiment_name = experiment_name
        self._group = group
        self._log_model = log_model
        self._best = BestValues()

    @property
    def version(self) -> str:
        path = self._id_file
        return path.read_text().strip() if path.exists() else ""

    @property
    def uri(self) -> str:
        """Of the store."""
        return self._given or f"sqlite:///{self._folder / 'mlflow.db'}"

    @property
    def _id_file(self) -> Path:
        return self.run_dir / "mlflow_id"

    def started(self, session: MLFlowLogger) -> None:
        """Log the configuration: parameters that the run does not have yet, and a file."""
        from mlflow.entities import Param

        client, run = session.experiment, session.run_id
        known = client.get_run(run).data.params
        found = {
            allowed(name)[:_LONGEST_NAME]: str(value)[:_LONGEST_VALUE]
            for name, value in flatten(self.config).items()
        }
        new = [Param(name, value) for name, value in found.items() if name not in known]
        for start in range(0, len(new), _PER_CALL):
            client.log_batch(run, params=new[start : start + _PER_CALL])
        client.log_text(run, yaml.safe_dump(self.config, sort_keys=False), "config.yaml")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        entry = {**metrics, **self._best.update(metrics)}
        values = {allowed(name): value for name, value in entry.items()}
        self.attempt(lambda session: session.log_metrics(values, images(metrics["kimg"])))

    @rank_zero_only
    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None:
        what = sheet.media_type.partition("/")[0]

        def act(session: MLFlowLogger) -> None:
            client, run = session.experiment, session.run_id
            if what == "text":
                texts = [one.decode(errors="replace") for one in sheet.media]
                table = {"kimg": [kimg] * len(texts), "text": texts}
                with warnings.catch_warnings():  # of pandas, about MLflow's own call
                    warnings.simplefilter("ignore")
                    client.log_table(run, table, f"{name}.json")
                return
            client.log_image(run, to_pil(sheet.image), key=name, step=images(kimg))
            if what == "audio":
                suffix = mimetypes.guess_extension(sheet.media_type) or ".wav"
                with TemporaryDirectory() as folder:
                    for number, clip in enumerate(sheet.media):
                        (Path(folder) / f"{number}{suffix}").write_bytes(clip)
                    client.log_artifacts(run, folder, f"{name}/kimg{kimg:010.3f}")

        self.attempt(act)

    @rank_zero_only
    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        text = "\n".join(advice)[:_LONGEST_TAG]
        self.attempt(lambda session: session.experiment.set_tag(session.run_id, "advice", text))

    @rank_zero_only
    def rewind(self, kimg: float) -> None:
        """Restore the best values at the resumed step; later points stay, since MLflow cannot delete them."""
        path = self.run_dir / METRICS_FILE
        self._best.restart(read_metrics(path) if path.exists() else [], kimg)
        best = {allowed(name): value for name, value in self._best.values.items()}
        if best:
            self.attempt(lambda session: session.log_metrics(best, images(kimg)))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run; it continues under the same id when the folder is trained further."""
        if self.session is not None and status == "success" and self._log_model:
            self.attempt(self._upload)
        self.end(lambda session: session.finalize("success" if status == "success" else "failed"))

    def begin(self) -> MLFlowLogger:
        """Start or resume the run at the store."""
        # no telemetry, and no progress bar over that of the training
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with quiet():
            import mlflow  # noqa: F401  its own log is set up as it is imported

        for name in ("alembic", "mlflow", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        if self._given:
            return self._open(self.version or None)
        self._folder.mkdir(parents=True, exist_ok=True)
        say(f"MLflow's page: mlflow ui --backend-store-uri {self.uri}")
        with FileLock(self._folder / "lock"):  # runs that begin at once would make the store twice
            return self._open(self.version or None)

    def _open(self, run_id: str | None) -> MLFlowLogger:
        from mlflow.exceptions import MlflowException

        tags = node_names(self.config) | ({"sweep": self._group} if self._group else {})
        session = MLFlowLogger(
            experiment_name=self._experiment_name,
            run_name=self.name,
            tracking_uri=self.uri,
            tags=tags,
            artifact_location=(self._folder / "artifacts").as_uri() if not self._given else None,
            run_id=run_id,
        )
        try:
            with quiet():
                found = str(session.run_id)  # the run is made here
        except MlflowException as error:
            if run_id is None or error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return self._open(None)  # the run began at another store
        session.experiment.update_run(found, status="RUNNING")
        write(self._id_file, found)
        return session

    def _upload(self, session: MLFlowLogger) -> None:
        for name in (BEST, LAST):
            path = self.run_dir / "checkpoints" / name
            if path.exists():
                session.experiment.log_artifact(session.run_id, str(path), "checkpoints")
                return


def images(kimg: float) -> int:
    """Return a clock in images."""
    return round(kimg * 1000)


def allowed(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of libraries that a store is made with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
