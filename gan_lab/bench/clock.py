"""Time and memory of this process and of the device that it uses."""

import resource
import sys
import time
from pathlib import Path

import torch

GIB = 2**30


def synchronize(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Stopwatch:
    """Seconds, with the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = 0.0

    def start(self) -> None:
        """Begin."""
        synchronize(self.device)
        self.begin = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since `start`."""
        synchronize(self.device)
        return time.perf_counter() - self.begin


class MemoryPeak:
    """The most memory in use since this was made.

    On a GPU, what torch has allocated. On a CPU, the process's resident set, Python and libraries included; where the
    system cannot forget an earlier peak (it can on Linux), that since the process began.

    Attributes:
        kind: which of the three it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.kind = "allocated on the device"
        elif forget_resident_peak():
            self.kind = "resident"
        else:
            self.kind = "resident, since the process began"

    def gib(self) -> float:
        """Return the peak in GiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / GIB
        return resident_peak() / GIB


def forget_resident_peak() -> bool:
    """Begin the peak of the resident set anew, where the system lets a process do so; return whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    except OSError:
        return False
    return True


def resident_peak() -> int:
    """Return the peak of the resident set in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
