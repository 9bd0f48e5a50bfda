"""Values as Hydra's command line writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString


def as_override(value: Any) -> str:
    """Return what stands behind an override's `=` to mean a value made of containers, numbers and texts."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(v)}" for key, v in value.items()) + "}"
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    if isinstance(value, Sequence):
        return "[" + ",".join(as_override(v) for v in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
