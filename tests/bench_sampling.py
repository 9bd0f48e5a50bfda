"""What `gan.sample(1)` takes beside the generator's own forward pass of one image, in CPU time and memory.

python tests/bench_sampling.py [repeats]
"""

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.models import dcgan, stylegan2
from gan_lab.sampling.gan import Gan

MODELS: dict[str, Callable[[int], GeneratorNetwork]] = {
    "stylegan2": lambda size: stylegan2.Generator(
        image_size=size, channels=3, channel_base=4096, channel_max=128
    ),
    "dcgan": lambda size: dcgan.Generator(image_size=size, channels=3, width=64),
}


def seconds(function: Callable[[], object]) -> float:
    """Return the CPU time of a call, which other processes of the machine do not count in."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most that torch has allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    assert found.profiler is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@torch.no_grad()
def main(repeats: int) -> None:
    torch.set_num_threads(1)
    print(
        f"{'':10}{'size':>5}{'forward':>10}{'sample(1)':>10}{'ratio':>7}{'memory':>10}{'ratio':>7}"
    )
    for name, make in MODELS.items():
        for size in (64, 128, 256):
            torch.manual_seed(0)
            gan = Gan(make(size).eval())
            z = torch.randn(1, gan.z_dim)
            functions = (lambda: gan.generator(z), lambda: gan.sample(1))  # noqa: B023
            for function in functions:
                function()
            pairs = [[seconds(function) for function in functions] for _ in range(repeats)]
            ratio = median(ours / own for own, ours in pairs)
            own, ours = (median(column) * 1000 for column in zip(*pairs, strict=True))
            least, most = (peak_bytes(function) for function in functions)
            print(
                f"{name:10}{size:5}{own:8.2f}ms{ours:8.2f}ms{ratio:7.2f}{most / 2**20:7.1f}MiB{most / least:7.2f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
