"""In which settings runs differ."""

from collections.abc import Sequence
from typing import Any

from gan_lab.comparing.reading import Run
from gan_lab.config import derived, flatten

# these repeat what stands elsewhere, or only say how an object is made
_REPEATED = tuple(
    f"model.{key}"
    for key in (
        *("loss", "regularizers", "augmentations"),
        *("batch_size", "d_steps", "micro_batch_size", "seed"),
    )
)
_MECHANICS = ("_partial_",)
# what is asked first comes first: the choices and the plain keys, then the parts
_FIRST = (
    *("model", "data", "loss", "regularizer", "augment", "conditioning", "seed", "total_kimg"),
    *("batch_size", "d_steps", "micro_batch_size", "init_from"),
)
ABSENT = "–"


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, a text for each run) of every setting that is not the same for all runs with a configuration.

    A key that a run does not have, because its model or loss has no such setting, is shown as a dash; a class is shown
    by its name, as are the things in a list.
    """
    settings = [settings_of(run) for run in runs]
    known = [own for own in settings if own is not None]
    rows = []
    for key in sorted({key for own in known for key in own}, key=place):
        if len({own.get(key, ABSENT) for own in known}) > 1:
            rows.append((key, ["?" if own is None else own.get(key, ABSENT) for own in settings]))
    return rows


def settings_of(run: Run) -> dict[str, str] | None:
    """Return the settings of a run that may tell it from another, as texts by key; None where it has none."""
    if run.config is None:
        return None
    flat = flatten(run.config)
    found = {}
    for key, value in flat.items():
        leaf = key.split(".")[-1]
        repeated = any(key == start or key.startswith(f"{start}.") for start in _REPEATED)
        # an empty group would stand beside the keys of the runs that have something in it
        if repeated or derived(key) or leaf in _MECHANICS or value == {}:
            continue
        found[key.removesuffix("._target_")] = as_text(value, is_class=leaf == "_target_")
    return found


def as_text(value: Any, *, is_class: bool = False) -> str:
    """Return a value as it would be set on the command line; a class by its last name."""
    if is_class:
        return str(value).rpartition(".")[2]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(as_text(one) for one in value)}]"
    return str(value)


def place(key: str) -> tuple[int, int, str]:
    """Order keys: choices first, and short ones before the settings of parts."""
    group = key.split(".")[0]
    # of `model` alone, which is the class, not of all that is below it
    known = _FIRST.index(group) if group in _FIRST and key.count(".") < 2 else len(_FIRST)
    return known, key.count("."), key
