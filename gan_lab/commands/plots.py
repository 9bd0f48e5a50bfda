"""What evaluate draws with plots=true."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.figures import Figure
from gan_lab.metrics.plots import draw_classes, draw_components, draw_truncation

_SHARES = ("precision", "recall", "coverage")


def check_curve(places: Sequence[float], *, plots: bool, is_run: bool) -> None:
    """Refuse a curve that cannot be drawn.

    Raises:
        InputError: with the remedy.
    """
    if not places:
        return
    if not (plots and is_run):
        raise InputError(
            f"curve={list(places)} draws figures over truncation; set plots=true, and run= of a generator"
        )
    if len(set(places)) < 2:
        raise InputError(f"curve={list(places)}: give two values of truncation or more")


def save_plots(
    figures: list[Figure], real: FeatureSet | None, fake: FeatureSet, folder: Path, *, title: str
) -> Iterator[Path]:
    """Draw features and classes, as far as the protocol has them, and yield the files."""
    shared = [] if real is None else [o for o in fake.features if o in real.features]
    outputs = [output for output in shared if fake.features[output].shape[1] > 1]
    if real is not None and "features" in outputs:
        path = folder / "features.png"
        draw_components(real.features["features"], fake.features["features"], path, title=title)
        yield path
    else:
        say(
            "no plot of features: the figures of this protocol need statistics only; protocol=all10k keeps features"
        )
    for figure in figures:
        if "classes" in figure.detail:
            path = folder / f"{figure.key}.png"
            draw_classes(figure.detail["classes"], path, title=figure.key)
            yield path


def save_curve(
    found: Mapping[float, Mapping[str, float]], best: str | None, folder: Path, *, title: str
) -> Path:
    """Draw figures over truncation.

    Args:
        found: truncation -> key -> value, in order.
        best: key of the distance that is drawn; None draws none.
        folder: of the file.
        title: above the drawing.

    Raises:
        InputError: when there is nothing to draw.
    """
    keys = next(iter(found.values())).keys()
    over = {key: [values[key] for values in found.values()] for key in keys}
    distances = {key: values for key, values in over.items() if key == best}
    shares = {key: values for key, values in over.items() if key.split("_")[0] in _SHARES}
    if not distances and not shares:
        raise InputError(
            "curve= draws the protocol's best figure, precision, recall and coverage, and it has none of them"
        )
    path = folder / "truncation.png"
    draw_truncation(list(found), distances, shares, path, title=title)
    return path
