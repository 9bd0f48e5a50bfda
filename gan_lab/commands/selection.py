"""Seeds and classes as they stand on a command line."""

import re
from collections.abc import Sequence

from omegaconf import ListConfig

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.sampling import Gan
from gan_lab.seeding import check_seed

_MOST_NAMED = 20  # classes in a message
_LONGEST_TEXT = 40  # of seeds in the name of a folder


def parse_seeds(given: object, key: str = "seeds") -> list[int]:
    """Return seeds of a number, a range with its end such as 0-63, or a list of these.

    Args:
        given: 5, "0-63", "0,5,7-9" or [0, 5, "7-9"].
        key: what it is called, for messages.

    Raises:
        InputError: for anything else.
    """
    parts = list(given) if isinstance(given, list | tuple | ListConfig) else str(given).split(",")
    seeds: list[int] = []
    for part in parts:
        text = str(part).strip()
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if isinstance(part, bool) or found is None:
            raise InputError(
                f"{key}={given}: {text!r} is no seed; give numbers and ranges, such as 5, 0-63 or [0,5,7-9]"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise InputError(f"{key}={given}: the range {text} ends before it begins")
        check_seed(last)
        seeds += range(first, last + 1)
    if not seeds:
        raise InputError(f"{key}={given}: give at least one seed")
    return seeds


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds as part of a name, runs of them as ranges: 0-3+7."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    text = "+".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return text if len(text) <= _LONGEST_TEXT else f"{seeds[0]}to{seeds[-1]}of{len(seeds)}"


def parse_classes(given: object, gan: Gan, key: str = "classes") -> list[int] | None:
    """Return classes of a name, a number, a list of these, or "all"; None for None.

    What is the name of one class and the number of another means the name, and a line says so.

    Args:
        given: 3, "cat", [3, "cat"], "all" or None.
        gan: the generator, with the names of its classes.
        key: what it is called, for messages.

    Raises:
        InputError: for a model without classes, and for classes that there are not.
    """
    if given is None:
        return None
    if not gan.num_classes:
        raise InputError(f"{key}={given}: the model has no classes; leave {key}= out")
    if given == "all":
        return list(range(gan.num_classes))
    parts = list(given) if isinstance(given, list | tuple | ListConfig) else [given]
    if not parts:
        raise InputError(f"{key}={given}: give at least one class; {named_classes(gan)}")
    return [_class_of(part, gan, key) for part in parts]


def _class_of(part: object, gan: Gan, key: str) -> int:
    found = [i for i, name in enumerate(gan.class_names) if name == str(part)]
    if isinstance(part, int) and not isinstance(part, bool) and not found:
        if not 0 <= part < gan.num_classes:
            raise InputError(f"{key}: class {part} is out of range; {named_classes(gan)}")
        return part
    if len(found) != 1:
        what = "is the name of several classes" if found else "is no class"
        raise InputError(f"{key}: {str(part)!r} {what}; {named_classes(gan)}")
    if isinstance(part, int) and part != found[0] and 0 <= part < gan.num_classes:
        say(
            f"{key}={part}: the class named {part}, which is number {found[0]}, and not number {part}, which is named "
            f"{gan.class_names[part]}"
        )
    return found[0]


def named_classes(gan: Gan) -> str:
    """Return which classes there are, for messages."""
    last = gan.num_classes - 1
    numbers = f"there are {gan.num_classes}, 0 to {last}"
    if not gan.class_names or gan.class_names == [str(i) for i in range(gan.num_classes)]:
        return numbers
    names = ", ".join(f"{i} {name}" for i, name in enumerate(gan.class_names[:_MOST_NAMED]))
    more = ", ..." if gan.num_classes > _MOST_NAMED else ""
    return f"{numbers}: {names}{more}"


def slug(name: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:_LONGEST_TEXT]


def class_suffix(label: int, gan: Gan) -> str:
    """Return the end of a file's name: _class3, or _class3_cat where classes have names other than their numbers."""
    name = slug(gan.class_names[label]) if label < len(gan.class_names) else ""
    return f"_class{label}" + (f"_{name}" if name and name != str(label) else "")
