"""gan-lab prefetch: weights of feature networks, downloaded and checked."""

from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.metrics.features import Extractor, WeightsUnavailable


def run(config: DictConfig) -> None:
    """Download the weights of each network, and print their paths.

    Raises:
        InputError: naming the weights that are missing or damaged, their address, and where to put them.
    """
    names = chosen()
    if not names:
        raise InputError(
            "features= is empty; choose one or more, such as features=[inception,clip]"
        )
    extractors = [build_one(config, name, alone=len(names) == 1) for name in names]
    missing = []
    for extractor in extractors:
        try:
            path = extractor.prefetch()
        except WeightsUnavailable as error:
            missing.append(str(error))
            print_extractor(extractor, "missing")
        except InputError as error:
            missing.append(str(error))
            print_extractor(extractor, "damaged")
        else:
            print_extractor(extractor, path or "needs no file")
    if missing:
        raise InputError("\n".join(missing))


def chosen() -> list[str]:
    """Return the requested options of the group `features`."""
    # of a list Hydra keeps only what was typed
    given = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    values = [override.value() for override in given if override.key_or_group == "features"]
    last = values[-1] if values else "inception"
    return [str(name) for name in last] if isinstance(last, list) else [str(last)]


def print_extractor(extractor: Extractor, state: str) -> None:
    """Print the state of an extractor."""
    say(f"{extractor.name:32}{state}")


def build_one(config: DictConfig, name: str, *, alone: bool) -> Extractor:
    """Build an extractor; of several, each as its own file describes it."""
    node: Any = config.features
    if not alone:
        # of a list, Hydra merges the files
        node = compose("prefetch", overrides=[f"features={name}"]).features
    extractor: Extractor = build(node, Extractor)
    return extractor
