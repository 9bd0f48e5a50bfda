"""Training steps beside the authors' code, one side after the other: seconds of CPU time, and the most memory in use.

python tests/bench_peers.py gat CLONE [threads] [steps]    CLONE: of https://github.com/hse1032/GAT

Each side is a process of its own, so that memory is its own. `TORCHDYNAMO_DISABLE=1` is set: without a compiler the
authors' rotary positions would not run.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from gan_lab.bench.steps import Repeated, resident_peak
from gan_lab.data.sample import Batch
from gan_lab.training.building import build_model, quiet
from tests.gpu.work import composed
from tests.helpers.samples import images_of

BATCH = 8
GAT = (
    "model=gat",
    f"batch_size={BATCH}",
    "augment.diffaugment.policy=[color,translation,cutout,flip]",
)
# overrides of ours
SIDES: dict[str, tuple[str, ...]] = {
    "elementwise, micro-batches of 4": (
        "model.generator.recompute=elementwise",
        "micro_batch_size=4",
    ),
    "elementwise, one image at a time": (
        "model.generator.recompute=elementwise",
        "micro_batch_size=1",
    ),
    "elementwise, micro-batches of 2": (
        "model.generator.recompute=elementwise",
        "micro_batch_size=2",
    ),
    "micro-batches of 4": ("micro_batch_size=4",),
    "micro-batches of 2": ("micro_batch_size=2",),
    "one image at a time": ("micro_batch_size=1",),
    "as it is": (),
    "theirs": (),
}


def ours(words: tuple[str, ...]) -> Callable[[int], None]:
    """Return a function that takes steps of GAT-S/2 on latents."""
    quiet()
    config = composed(*GAT, *words)
    module = build_model(config, images_of(32, channels=4, classes=1000))
    batch = Batch(torch.randn(BATCH, 4, 32, 32), torch.arange(BATCH))

    def steps(count: int) -> None:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(Repeated(batch, count), batch_size=None))

    return steps


def theirs(clone: str) -> Callable[[int], None]:
    """Return the same of the authors' code, in the order of its train.py."""
    # their `models` is no package with an __init__, and that of the tests beside this file would come first
    sys.path[:] = [clone, *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent)]
    from losses.Rp_loss import RpGANLoss  # type: ignore[import-not-found]
    from models.discriminator import GATD_models  # type: ignore[import-not-found]
    from models.generator import GAT_models  # type: ignore[import-not-found]

    arguments: dict[str, Any] = {"input_size": 32, "num_classes": 1000, "z_dims": [0]}
    arguments |= {"fused_attn": True, "qk_norm": True}
    g, d = (models["GAT-S/2"](**arguments) for models in (GAT_models, GATD_models))
    average = GAT_models["GAT-S/2"](**arguments).requires_grad_(False)
    loss = RpGANLoss(r1_every=1, r2_every=1, approximate=True)
    optimizers = [
        torch.optim.AdamW(n.parameters(), lr=4e-4, betas=(0.0, 0.99), weight_decay=0.0)
        for n in (g, d)
    ]
    images, labels = torch.randn(BATCH, 4, 32, 32), torch.arange(BATCH)

    class Wrapped(SimpleNamespace):
        def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
            return self.module(*inputs, **kwargs)

    generator, discriminator = Wrapped(module=g), Wrapped(module=d)

    def step() -> None:
        kwargs = {"y": labels}
        d.requires_grad_(True)
        total, *_ = loss.step_disc(generator, discriminator, None, images, None, 0, kwargs)
        total.mean().backward()
        torch.nn.utils.clip_grad_norm_(d.parameters(), 1.0)
        optimizers[1].step()
        optimizers[1].zero_grad(set_to_none=True)
        d.requires_grad_(False)
        g.requires_grad_(True)
        total, *_ = loss.step_gen(generator, discriminator, None, images, None, 0, kwargs)
        total.mean().backward()
        torch.nn.utils.clip_grad_norm_(g.parameters(), 1.0)
        optimizers[0].step()
        optimizers[0].zero_grad(set_to_none=True)
        with torch.no_grad():
            for kept, new in zip(average.parameters(), g.parameters(), strict=True):
                kept.mul_(0.999).add_(new.data, alpha=0.001)
        g.requires_grad_(False)

    def steps(count: int) -> None:
        for _ in range(count):
            step()

    return steps


def measure(side: str, clone: str, threads: int, count: int) -> None:
    """Print what a step of a side costs, the first one included."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    steps = theirs(clone) if side == "theirs" else ours(SIDES[side])
    begin, cpu = time.perf_counter(), time.process_time()
    steps(count)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    peak = max(resident_peak(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    found = {"side": side, "s": seconds / count, "cpu_s": cpu / count, "gib": peak / 2**30}
    print(json.dumps(found), flush=True)


def main(what: str, clone: str, threads: str = "1", count: str = "1", side: str = "") -> None:
    """Measure all sides in turn, each in a process; or one side in this process."""
    assert what == "gat"
    if side:
        measure(side, clone, int(threads), int(count))
        return
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": threads}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    for name in SIDES:
        command = [sys.executable, __file__, what, clone, threads, count, name]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
