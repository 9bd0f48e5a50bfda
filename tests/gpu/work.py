"""The items of `make gpu`: each prints a line of JSON for each thing that it has measured.

python -m tests.gpu.work ITEM OUT SECONDS [toy]
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning import Callback
from omegaconf import DictConfig
from torch import distributed
from torch.utils.data import DataLoader

from gan_lab.bench.steps import MemoryPeak, Repeated, Stopwatch, matmul_peak
from gan_lab.commands.launch import add_plus, launch
from gan_lab.config import conf_dir, register_resolvers
from gan_lab.data.sample import Batch
from gan_lab.distributed.ranks import DelayedAllReduce, average_in_place
from gan_lab.training.building import (
    bare_trainer,
    build_data,
    build_model,
    compiled,
    quiet,
    sample_spec,
)
from gan_lab.training.module import AdversarialModule

Result = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
WARMUP_STEPS = 3  # the first takes all lazy penalties
SHARE = 0.9  # of an item's time; what has not begun by then is left out
TRAIN_SECONDS = 60


@dataclass(frozen=True)
class Case:
    """A training step to measure.

    Attributes:
        what: in words.
        overrides: of `gan-lab train`.
        toy: further ones for a CPU, in a test.
        precisions: of the trainer.
        channels_last: whether networks and images lie so in memory.
        note: to be shown with the result.
    """

    what: str
    overrides: tuple[str, ...]
    toy: tuple[str, ...]
    precisions: tuple[str, ...] = ("bf16-mixed", "32-true")
    channels_last: bool = False
    note: str = ""


STYLEGAN2 = (
    "model=stylegan2",
    "data=random",
    "data.image_size=256",
    "batch_size=16",
    # of NVIDIA's configuration paper256
    "model.generator.channel_base=16384",
    "model.discriminator.channel_base=16384",
)
STYLE_TOY = (
    "data.image_size=8",
    "batch_size=4",
    "model.generator.z_dim=8",
    "model.generator.w_dim=8",
    "model.generator.channel_base=64",
    "model.generator.channel_max=8",
    "model.discriminator.channel_base=64",
    "model.discriminator.channel_max=8",
)
R3GAN = (
    "model=r3gan",
    "data=random",
    "data.image_size=256",
    "batch_size=32",
    "model.generator.widths=[768,768,768,768,384,192,96]",
    "model.generator.cardinalities=[96,96,96,96,48,24,12]",
)
R3GAN_TOY = (
    "data.image_size=8",
    "batch_size=4",
    "model.generator.widths=[8,8]",
    "model.generator.cardinalities=[2,2]",
    "model.generator.z_dim=8",
    "model.discriminator.label_dim=8",
)
# latents of 256x256 images, as the published networks see them
GAT = (
    "model=gat",
    "data=random",
    "data.image_size=32",
    "data.channels=4",
    "data.num_classes=1000",
    "batch_size=64",
    "model.generator.size=B",
    "augment=[]",
)
GAT_TOY = (
    "data.image_size=8",
    "data.num_classes=3",
    "batch_size=4",
    "model.generator.z_dim=8",
    "model.generator.depth=4",
    "model.generator.width=16",
    "model.generator.heads=2",
    "model.discriminator.label_dim=8",
)
BIGGAN = (
    "model=biggan",
    "data=random",
    "data.image_size=128",
    "data.num_classes=1000",
    "batch_size=32",
)
BIGGAN_TOY = (
    "data.image_size=32",
    "data.num_classes=3",
    "batch_size=4",
    "model.generator.width=2",
    "model.discriminator.width=2",
)
STYLEGAN3 = ("model=stylegan3", "data=random", "data.image_size=256", "batch_size=16")
STYLEGAN3_TOY = (
    *STYLE_TOY,
    "data.image_size=16",
    "model.generator.num_layers=4",
    "model.generator.margin=2",
)

STEPS = (
    Case(
        "StyleGAN2 256",
        STYLEGAN2,
        STYLE_TOY,
        note="NVIDIA: 80 img/s on one A100 (StyleGAN2-ADA, batch 16)",
    ),
    Case("R3GAN FFHQ-256", R3GAN, R3GAN_TOY),
    Case("GAT-B/2, latents 4x32x32", GAT, GAT_TOY),
    Case("BigGAN 128", BIGGAN, BIGGAN_TOY),
    Case("StyleGAN3-T 256", STYLEGAN3, STYLEGAN3_TOY),
)

EXACT = ("regularizer=[r1,r2]", "regularizer.r1.weight=0.1", "regularizer.r2.weight=0.1")
APPROXIMATE = (
    "regularizer=[approximate_r1,approximate_r2]",
    "regularizer.approximate_r1.precise=false",
    "regularizer.approximate_r2.precise=false",
)
BF16 = ("bf16-mixed",)


def penalty_cases(toy: bool) -> list[Case]:
    """Return what item `penalties` measures, most telling first."""
    # traces as inductor does, and needs no compiler
    backend = "compile=aot_eager" if toy else "compile=true"
    cases = []
    for name, overrides, small in (("GAT-B/2", GAT, GAT_TOY), ("R3GAN FFHQ-256", R3GAN, R3GAN_TOY)):
        for kind, penalties in (("exact", EXACT), ("approximate", APPROXIMATE)):
            cases.append(Case(f"{name}, {kind} penalties", (*overrides, *penalties), small, BF16))
        compiled_words = (*overrides, *APPROXIMATE, backend)
        cases.append(Case(f"{name}, approximate penalties, compiled", compiled_words, small, BF16))
    last = Case("StyleGAN2 256, channels last", STYLEGAN2, STYLE_TOY, BF16, channels_last=True)
    return [*cases[:3], last, *cases[3:]]


class Rate(Callback):
    """Measures rounds of steps after the first ones; a round has every lazy penalty.

    Attributes:
        steps: measured.
        seconds: that they took.
        warmup_seconds: of those before, compilation included.
        peak_gib: of memory.
        kind: of that memory.

    Args:
        seconds: to measure for.
    """

    steps = 0
    seconds = 0.0
    warmup_seconds = 0.0
    peak_gib = 0.0
    kind = ""

    def __init__(self, seconds: float) -> None:
        self.wanted = seconds
        self._clock: Stopwatch | None = None
        self._memory: MemoryPeak | None = None
        self._began = time.perf_counter()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Any, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start, count or stop."""
        if batch_idx + 1 == WARMUP_STEPS:
            self._memory, self._clock = MemoryPeak(module.device), Stopwatch(module.device)
            self._clock.start()
            self.warmup_seconds = time.perf_counter() - self._began
        elif batch_idx >= WARMUP_STEPS and self._clock and self._memory:
            taken = batch_idx + 1 - WARMUP_STEPS
            if taken % period(module) == 0:
                self.steps, self.seconds = taken, self._clock.stop()
                self.peak_gib, self.kind = self._memory.gib(), self._memory.kind
                trainer.should_stop = self.seconds >= self.wanted


def period(module: AdversarialModule) -> int:
    """Return a number of steps in which each lazy penalty comes an integer number of times."""
    intervals = [
        int(regularizer.interval)
        for player in module.players.values()
        for regularizer in player.regularizers.values()
    ]
    return math.lcm(1, *intervals)


def composed(*options: str) -> DictConfig:
    """Compose the configuration of `gan-lab train`."""
    register_resolvers()
    GlobalHydra.instance().clear()
    fixed = ("name=gpu", "metrics=none", "total_kimg=1000000")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=add_plus([*fixed, *options]))


def measured(case: Case, precision: str, *, toy: bool, seconds: float) -> Result:
    """Measure training steps of a case."""
    overrides = [*case.overrides, *(case.toy if toy else ())]
    overrides += [f"trainer={'cpu' if toy else 'gpu'}", f"trainer.precision={precision}"]
    config = composed(*overrides)
    data = build_data(config)
    module = build_model(config, sample_spec(config, data))
    rate = Rate(seconds)
    trainer = bare_trainer(config, callbacks=[rate])
    device = trainer.strategy.root_device
    compiled(config, module, device)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0).to(device)
    if case.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        real = batch.real.contiguous(memory_format=torch.channels_last)
        batch = Batch(real, batch.labels)
    trainer.fit(module, train_dataloaders=DataLoader(Repeated(batch, 10**6), batch_size=None))
    step = rate.seconds / rate.steps
    return {
        "what": case.what,
        "precision": precision,
        "batch": int(config.batch_size),
        "s_per_step": step,
        "img_per_s": config.batch_size * config.d_steps / step,
        "peak_gib": rate.peak_gib,
        "peak_of": rate.kind,
        "steps": rate.steps,
        "warmup_s": rate.warmup_seconds,
        "note": case.note,
    }


def say(result: Result) -> None:
    """Print a result."""
    print(json.dumps(result), flush=True)


def attempt(what: Result, measure: Callable[[], Result]) -> None:
    """Print what a measurement found, or why it failed: the next one may not."""
    try:
        say(measure())
    except Exception as error:  # of whatever kind: it is the result
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        say({**what, "error": f"{type(error).__name__}: {reason.strip()[:200]}"})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_all(cases: Sequence[Case], *, toy: bool, end: float) -> None:
    """Measure cases until the time is over."""
    for case in cases:
        for precision in case.precisions:
            if time.monotonic() > end:
                say({"what": case.what, "precision": precision, "note": "no time was left"})
                continue
            seconds = 0.0 if toy else 4.0
            attempt(
                {"what": case.what, "precision": precision},
                lambda case=case, precision=precision, seconds=seconds: measured(  # type: ignore[misc]
                    case, precision, toy=toy, seconds=seconds
                ),
            )


def machine_item(out: Path, end: float, toy: bool) -> None:
    """What the machine is, and what its matrix products reach."""
    device = torch.device("cpu" if toy else "cuda")
    name = "CPU" if toy else torch.cuda.get_device_name()
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    memory = 0.0 if toy else torch.cuda.get_device_properties(0).total_memory / 2**30
    say({"what": name, "peak_gib": memory, "note": f"{versions}; memory of the card"})
    for dtype in (torch.bfloat16, torch.float32):

        def peak(dtype: torch.dtype = dtype) -> Result:
            flops, _ = matmul_peak(device, dtype, seconds=0.1 if toy else 1.0)
            name = str(dtype).removeprefix("torch.")
            return {
                "what": "matrix product",
                "precision": name,
                "note": f"{flops / 1e12:.4g} TFLOP/s",
            }

        attempt({"what": "matrix product"}, peak)


def tests_item(out: Path, end: float, toy: bool) -> None:
    """The tests that are marked `gpu`; as a toy the same ones on the CPU."""
    files = ["tests/gpu/test_devices.py"]
    if not toy:
        marked = re.compile(r"mark\.gpu\b")
        files = [
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / "tests").rglob("test_*.py"))
            if marked.search(path.read_text(encoding="utf-8"))
        ]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m"]
    command += ["not gpu" if toy else "gpu", *files]
    log = out / "pytest.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = str(process.wait(timeout=max(1.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            process.kill()
            status = "out of time"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for line in lines:
        if line.startswith(("FAILED", "ERROR")):
            say({"what": line.split(" - ")[0], "error": line.partition(" - ")[2][:200]})
    passed = sum(" PASSED" in line for line in lines)
    summary = lines[-1].strip("= ") if lines else "it said nothing"
    kind = "note" if status == "0" else "error"
    say({"what": "pytest -m gpu", kind: f"{passed} passed; status {status}; {summary[:200]}"})


def steps_item(out: Path, end: float, toy: bool) -> None:
    """Steps of each model."""
    measure_all(STEPS, toy=toy, end=end)


def penalties_item(out: Path, end: float, toy: bool) -> None:
    """Exact and approximate penalties, compiled code, and another layout in memory."""
    measure_all(penalty_cases(toy), toy=toy, end=end)


def nccl_item(out: Path, end: float, toy: bool) -> None:
    """A process group of one rank: sums of gradients, and the numbers that go from CPU to CPU."""
    backend, device = ("gloo", "cpu") if toy else ("nccl", "cuda")
    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(str(Path(folder) / "store"), 1)
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        try:
            attempt({"what": backend}, lambda: summed(backend, device, 10**4 if toy else 10**8))
        finally:
            distributed.destroy_process_group()


def summed(backend: str, device: str, count: int) -> Result:
    """Average tensors over one rank, which changes nothing, and time it."""
    tensors = [
        torch.randn(count // 10, device=device, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
        for _ in range(10)
    ]
    before = [tensor.clone() for tensor in tensors]
    average_in_place(tensors)
    clock = Stopwatch(torch.device(device))
    clock.start()
    average_in_place(tensors)
    seconds = clock.stop()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    group = distributed.new_group(backend="gloo")
    distributed.all_reduce(torch.ones(1), group=group)
    gathered: list[Any] = [None]
    distributed.all_gather_object(gathered, {"kimg": 1})
    assert gathered == [{"kimg": 1}] and DelayedAllReduce()(3) == 3
    gib = sum(tensor.nbytes for tensor in tensors) / 2**30
    return {"what": f"{backend}, one rank, {gib:.3g} GiB of gradients", "s_per_step": seconds}


def train_item(out: Path, end: float, toy: bool) -> None:
    """A minute of `gan-lab train`, stopped as a terminal stops it, with a grid."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["model=stylegan2", "data=digits", "data.image_size=64", "batch_size=32"]
        overrides += ["model.generator.channel_base=8192", "model.discriminator.channel_base=8192"]
        overrides += ["regularizer.r1.weight=1", "trainer=gpu", "trainer.precision=bf16-mixed"]
        overrides += ["total_kimg=100000", "callbacks.samples.every_kimg=2"]
        seconds = min(TRAIN_SECONDS, max(10.0, end - time.monotonic() - 15))
        if toy:
            overrides += [
                *STYLE_TOY,
                "trainer=cpu",
                "trainer.precision=32-true",
                "total_kimg=0.008",
            ]
            overrides += ["callbacks.samples.every_kimg=0.004", "callbacks.samples.rows=1"]
        overrides += ["metrics=none", "name=gpu", f"runs_dir={folder}"]
        stop = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
        if not toy:
            stop.start()
        begin = time.perf_counter()
        try:
            status: object = launch("train", overrides)
        except SystemExit as stopped:
            status = stopped.code
        stop.cancel()
        taken = time.perf_counter() - begin
        grids = sorted((Path(folder) / "gpu" / "samples").glob("*.png"))
        lines = (Path(folder) / "gpu" / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        if grids:
            shutil.copy(grids[-1], out / "grid.png")
        rates = [v for k, v in last.items() if k.startswith("time/") and "img" in k]
        say(
            {
                "what": "StyleGAN2 64, gan-lab train on digits",
                "precision": "32-true" if toy else "bf16-mixed",
                "batch": 4 if toy else 32,
                **({"img_per_s": rates[0]} if rates else {}),
                "note": f"status {status}, {last.get('kimg', 0):.4g} kimg in {taken:.0f} s, {len(grids)} grids",
                **({} if status in (0, 130) and grids else {"error": f"status {status}"}),
            }
        )


WORK = {
    "machine": machine_item,
    "tests": tests_item,
    "steps": steps_item,
    "penalties": penalties_item,
    "nccl": nccl_item,
    "train": train_item,
}


def main(item: str, out: str, seconds: str, toy: str = "") -> None:
    """Run an item."""
    quiet()
    # the time that imports took counts
    spent = time.time() - float(os.environ.get("GPU_ITEM_BEGAN", time.time()))
    WORK[item](Path(out), time.monotonic() + SHARE * float(seconds) - spent, bool(toy))


if __name__ == "__main__":
    main(*sys.argv[1:])
