"""A search space, as the command line writes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gan_lab.errors import InputError


@dataclass(frozen=True)
class Dimension:
    """One key that is searched over.

    Attributes:
        key: as an override begins with it, `+` included.
        distribution: of its values; the categories are texts, as they stand in an override.
    """

    key: str
    distribution: BaseDistribution

    def override(self, value: float | int | str) -> str:
        """Return the override that sets a value; of a number with a fraction, six digits."""
        return f"{self.key}={value:.6g}" if isinstance(value, float) else f"{self.key}={value}"

    def examples(self) -> list[float | int | str]:
        """Return one value, or of categories each."""
        found = self.distribution
        if isinstance(found, CategoricalDistribution):
            return [str(choice) for choice in found.choices]
        assert isinstance(found, FloatDistribution | IntDistribution)
        return [found.low]


def search_space(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Dimension]]:
    """Split overrides into those of every run and those that are searched over.

    `a=interval(0,1)` is a number between, `a=tag(log,interval(1e-5,1e-3))` one on a logarithmic scale,
    `a=tag(int,log,interval(1,64))` a whole one, `a=range(1,9,2)` one of 1, 3, 5, 7, and `a=x,y` one of these.

    Raises:
        InputError: for a space of nothing, and for a scale that does not exist.
    """
    fixed: dict[str, str] = {}
    space: dict[str, Dimension] = {}
    for override in overrides:
        key = override.get_key_element()
        name = key.lstrip("+")
        fixed.pop(name, None)
        space.pop(name, None)
        if override.is_sweep_override():
            space[name] = Dimension(key, distribution(override))
        else:
            fixed[name] = str(override.input_line)
    if not space:
        raise InputError(
            "hydra/sweeper=optuna has nothing to search over; give a key several values, such as "
            "model.generator_optimizer.lr='tag(log,interval(1e-5,1e-3))' or loss=hinge,nonsaturating"
        )
    return list(fixed.values()), space


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution of an override's values.

    Raises:
        InputError: for an interval or a range that Optuna cannot draw from.
    """
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            return interval(value)
        if isinstance(value, RangeSweep):
            return between(value)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise InputError(f"{override.input_line} cannot be searched over: {error}") from error


def interval(value: IntervalSweep) -> BaseDistribution:
    """Return the distribution of an interval; its tags are `log` and `int`.

    Raises:
        ValueError: for one that is empty, or reaches 0 on a logarithmic scale.
    """
    unknown = value.tags - {"log", "int"}
    if unknown:
        raise ValueError(f"the tags log and int are known, {', '.join(sorted(unknown))} is not")
    if value.start is None or value.end is None:
        raise ValueError("it has no ends")
    log = "log" in value.tags
    if "int" in value.tags or (isinstance(value.start, int) and isinstance(value.end, int)):
        return IntDistribution(int(value.start), int(value.end), log=log)
    return FloatDistribution(value.start, value.end, log=log)


def between(value: RangeSweep) -> BaseDistribution:
    """Return the distribution of a range, which ends before its end, as Python's do.

    Raises:
        ValueError: for one of nothing.
    """
    numbers = list(value.range())
    if not numbers:
        raise ValueError("it is empty")
    low, high, step = min(numbers), max(numbers), abs(value.step)
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(low), int(high), step=int(step))
    return FloatDistribution(float(low), float(high), step=float(step))
