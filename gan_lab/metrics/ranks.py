"""The processes that share an evaluation."""

from dataclasses import dataclass
from typing import Any

from torch import distributed


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is, and how many there are.

    All of them have to come to the same calls of `send` in the same order.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Those of torch's process group; one where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def send(self, value: Any, *, source: int = 0) -> Any:
        """Return what process `source` calls this with; the others' value is ignored."""
        if self.size == 1:
            return value
        parcel = [value]
        distributed.broadcast_object_list(parcel, src=source)
        return parcel[0]
