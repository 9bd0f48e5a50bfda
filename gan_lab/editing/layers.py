"""Which of a generator's styles are meant: by name, by number, by range."""

from collections.abc import Sequence

from gan_lab.errors import InputError
from gan_lab.styles import StyleGenerator

Layers = str | int | range | Sequence[str | int]


def pick_layers(generator: StyleGenerator, layers: Layers) -> list[int]:
    """Return the indices of styles, in order.

    Args:
        generator: with styles.
        layers: "coarse", "middle", "fine", "all", an index, a range such as "0-3" (with its last), several of these in
            a list or with commas between them, or a `range`. An empty list means none.

    Raises:
        InputError: for what there is not, or a name of which images of this size have no layer.
    """
    if isinstance(layers, str):
        parts: Sequence[str | int] = layers.replace(" ", "").split(",")
    else:
        parts = [layers] if isinstance(layers, int) else list(layers)
    found = [_indices(generator, part) for part in parts]
    empty = [str(part) for part, indices in zip(parts, found, strict=True) if not indices]
    chosen = sorted({index for indices in found for index in indices})
    if empty and not chosen:
        raise InputError(
            f"layers={','.join(empty)}: images of this size have no such layers; {described(generator)}"
        )
    return chosen


def _indices(generator: StyleGenerator, part: str | int) -> Sequence[int]:
    levels = generator.levels() | {"all": range(generator.num_styles)}
    if isinstance(part, str) and part in levels:
        return levels[part]
    first, dash, last = str(part).partition("-")
    numbers = [first, last] if dash else [first]
    if isinstance(part, bool) or not all(number.isdecimal() for number in numbers):
        raise InputError(f"layers={part}: {described(generator)}")
    start, stop = int(first), int(numbers[-1])
    if start > stop or stop >= generator.num_styles:
        raise InputError(f"layers={part} is out of range: {described(generator)}")
    return range(start, stop + 1)


def described(generator: StyleGenerator) -> str:
    """Return which layers there are, for messages."""
    levels = ", ".join(
        f"{name} ({span.start}-{span.stop - 1})"
        for name, span in generator.levels().items()
        if len(span)
    )
    return (
        f"choose from {levels}, all, or numbers from 0 to {generator.num_styles - 1}, such as 0-3"
    )
