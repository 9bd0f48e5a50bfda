"""gan-lab dashboard: a W&B workspace that compares the runs of a project."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any

import wandb
from omegaconf import DictConfig

from gan_lab.console import say
from gan_lab.errors import InputError, first_line
from gan_lab.metrics.base import direction
from gan_lab.training.loggers.wandb import has_wandb_key

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

# of a project, whose metrics are fetched
_MOST_RUNS = 100
_LOSSES = ("loss/d", "loss/g")
_HEALTH = (
    *("health/diversity", "logits/real", "logits/fake"),
    *("grad_norm/d", "grad_norm/g", "speed/img_per_s"),
)
# title of a section, what its curves are over
_AXES = (("kimg", "kimg"), ("wall time", "time/total_s"))


def run(config: DictConfig) -> None:
    """Create the workspace and print its address.

    Raises:
        InputError: without the package, a key or any metric, and when W&B fails or cannot be reached.
    """
    if find_spec("wandb_workspaces") is None:
        raise InputError(
            "dashboard needs wandb-workspaces; pip install 'gan-laboratory[dashboard]'. gan-lab compare runs/* does "
            "without it"
        )
    if not has_wandb_key():
        raise InputError(
            "dashboard needs a W&B key: run wandb login, or set WANDB_API_KEY. "
            "gan-lab compare runs/* shows the same without an account"
        )
    try:
        api = wandb.Api()
        entity = config.entity or api.default_entity
        if entity is None:
            raise InputError(
                "the account of this key has no default entity; name a user or team, entity="
            )
        metrics = list(config.metric_keys or project_metrics(api, entity, config.project))
        made = workspace(
            entity=entity,
            project=config.project,
            name=config.name,
            metrics=check_metrics(metrics, f"{entity}/{config.project}"),
            sweep=config.sweep,
        )
        made.save()
    except (wandb.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"W&B did not make the workspace {config.entity or ''}/{config.project} ({first_line(error)}); check "
            "entity=, project= and the key, or try again later"
        ) from error
    say(f"made {made.url}")


def project_metrics(api: Any, entity: str, project: str) -> list[str]:
    """Return the metrics that the latest runs of a project have, without `metrics/`, distances first."""
    runs = islice(api.runs(f"{entity}/{project}"), _MOST_RUNS)
    keys = {key for one in runs for key in dict(one.summary) if key.startswith("metrics/")}
    known = sorted(key.removeprefix("metrics/") for key in keys if direction(key))
    return sorted(known, key=lambda key: direction(key) != "min")


def check_metrics(metrics: Sequence[str], project: str) -> list[str]:
    """Check that there are metrics to show.

    Raises:
        InputError: when there are no metrics.
    """
    if not metrics:
        raise InputError(
            f"the runs of {project} have no metrics yet; train with logger=wandb and metrics, send offline runs with "
            "wandb sync, or name them: metric_keys=[fid50k_full]"
        )
    return [key.removeprefix("metrics/") for key in metrics]


def workspace(
    *, entity: str, project: str, name: str, metrics: Sequence[str], sweep: str | None
) -> "Workspace":
    """Return the workspace, not yet saved.

    Args:
        entity: W&B user or team; `project` of it.
        project: whose runs are compared.
        name: of the workspace.
        metrics: without `metrics/`, the one that runs are ordered by first.
        sweep: show its runs alone.
    """
    import wandb_workspaces.workspaces as ws

    first = metrics[0]
    columns = [f"summary:best/{key}{suffix}" for key in metrics for suffix in ("", "_kimg")]
    order = ws.Ordering(ws.Summary(f"best/{first}"), ascending=direction(first) != "max")
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=list(sections(metrics)),
        settings=ws.WorkspaceSettings(x_axis="kimg", max_runs=50),
        runset_settings=ws.RunsetSettings(
            order=[order],
            filters=ws.And(ws.Metric("Group") == sweep) if sweep else "",
            pinned_columns=["run:displayName", *columns, "summary:kimg", "summary:time/total_s"],
        ),
    )


def sections(metrics: Sequence[str]) -> Iterator[Any]:
    """Yield the sections: best metrics, curves over kimg and over wall time, grids, health."""
    ws = import_module("wandb_workspaces.workspaces")
    wr = import_module("wandb_workspaces.reports.v2")
    best = [wr.BarPlot(title=f"best {key}", metrics=[f"best/{key}"]) for key in metrics]
    table = wr.RunComparer(diff_only="split")
    yield ws.Section(name="Best metrics", panels=[*best, table], is_open=True, pinned=True)
    for title, axis in _AXES:
        curves = [*(f"metrics/{key}" for key in metrics), *_LOSSES]
        panels = [line(wr, key, axis) for key in curves]
        yield ws.Section(name=f"Over {title}", panels=panels, is_open=True)
    grids = wr.MediaBrowser(title="samples", media_keys=["samples"], num_columns=4)
    yield ws.Section(name="Grids", panels=[grids], is_open=True)
    yield ws.Section(name="Health", panels=[line(wr, key, "kimg") for key in _HEALTH])


def line(wr: Any, key: str, axis: str) -> Any:
    """Return a panel of curves; distances, which fall by orders of magnitude, on a log scale."""
    is_distance = direction(key) == "min" and key.startswith("metrics/")
    return wr.LinePlot(
        title=key.removeprefix("metrics/"), x=axis, y=[key], log_y=is_distance, title_x=axis
    )
