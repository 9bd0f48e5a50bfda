"""Training steps beside the authors' code, one side after the other: seconds of CPU time, and the most memory in use.

python tests/bench_peers.py WHAT CLONE [threads] [steps] [rounds]

    gat         CLONE of https://github.com/hse1032/GAT
    stylegan2   CLONE of https://github.com/NVlabs/stylegan2-ada-pytorch, whose reference path runs on a CPU
    r3gan       CLONE of https://github.com/brownvc/R3GAN, likewise

Each side is a process of its own, so that memory is its own, and in every round all take their turn. Of several steps
of a process the first is left out. `TORCHDYNAMO_DISABLE=1` is set: without a compiler the rotary positions of GAT's
authors would not run.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from lightning import Trainer
from packaging.version import parse
from torch import nn
from torch.utils.data import DataLoader

from gan_lab.bench.steps import Meter, Phases, Repeated, times_per_step
from gan_lab.data.sample import Batch
from gan_lab.distributed.processes import resident_peak
from gan_lab.training.building import build_model, quiet
from tests.gpu.work import composed
from tests.helpers.samples import images_of

THEIRS = "theirs"
Costs = dict[str, dict[str, float]]  # phase -> "s" and "cpu_s"
Parts = dict[str, Callable[[], None]]  # phase -> what is done there


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A training step that both sides take.

    Attributes:
        shape: of an image.
        classes: of the data.
        batch: images of a step.
        overrides: of ours.
        sides: further overrides of ours, by the name of a side.
        theirs: `batch -> (networks, phases)`, imported from the clone.
    """

    shape: tuple[int, int, int]
    classes: int = 0
    batch: int = 8
    overrides: tuple[str, ...]
    sides: dict[str, tuple[str, ...]]
    theirs: Callable[[Batch], tuple[Sequence[nn.Module], Parts]]


def average_into(average: nn.Module, network: nn.Module, share: float) -> None:
    """Move an average towards a network by a share of the way."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), network.parameters(), strict=True):
            kept.lerp_(new, share)


def optimized(
    network: nn.Module, optimizer: torch.optim.Optimizer, gradients: Callable[[], Any]
) -> Callable[[], None]:
    """Return a step of a network's optimizer on the gradients that a function accumulates."""

    def step() -> None:
        network.requires_grad_(True)
        gradients()
        network.requires_grad_(False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gat(batch: Batch) -> tuple[Sequence[nn.Module], Parts]:
    """Return GAT-S/2 of its authors, in the order of their train.py."""
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

    class Wrapped(SimpleNamespace):
        def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
            return self.module(*inputs, **kwargs)

    pair = Wrapped(module=g), Wrapped(module=d)

    def gradients(of: Callable[..., Any], network: nn.Module) -> Callable[[], None]:
        def accumulate() -> None:
            total, *_ = of(*pair, None, batch.real, None, 0, {"y": batch.labels})
            total.mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)

        return accumulate

    g.requires_grad_(False)
    parts = {
        "discriminator": optimized(d, optimizers[1], gradients(loss.step_disc, d)),
        "generator": optimized(g, optimizers[0], gradients(loss.step_gen, g)),
        "rest": lambda: average_into(average, g, 0.001),
    }
    return (g, d), parts


def stylegan2(batch: Batch) -> tuple[Sequence[nn.Module], Parts]:
    """Return NVIDIA's StyleGAN2 and the phases of its loss; the replacement of NaN in gradients is left out."""
    from training.loss import StyleGAN2Loss  # type: ignore[import-not-found]
    from training.networks import Discriminator, Generator  # type: ignore[import-not-found]

    sizes = {"c_dim": 0, "img_resolution": 64, "img_channels": 3}
    g = Generator(z_dim=512, w_dim=512, synthesis_kwargs={"channel_max": 128}, **sizes)
    d = Discriminator(channel_max=128, **sizes)
    loss = StyleGAN2Loss(torch.device("cpu"), g.mapping, g.synthesis, d)
    average = deepcopy(g).requires_grad_(False)
    optimizers = [
        torch.optim.Adam(n.parameters(), lr=2e-3, betas=(0.0, 0.99), eps=1e-8) for n in (g, d)
    ]
    none = torch.zeros(len(batch), 0)

    def gradients(phase: str, gain: int) -> Callable[[], None]:
        return lambda: loss.accumulate_gradients(
            phase, batch.real, none, torch.randn(len(batch), 512), none, True, gain
        )

    for network in (g, d):
        network.requires_grad_(False)
    parts = {
        "discriminator": optimized(d, optimizers[1], gradients("Dmain", 1)),
        "r1": optimized(d, optimizers[1], gradients("Dreg", 16)),
        "generator": optimized(g, optimizers[0], gradients("Gmain", 1)),
        "path_length": optimized(g, optimizers[0], gradients("Greg", 4)),
        "rest": lambda: average_into(average, g, 0.001),
    }
    return (g, d), parts


def r3gan(batch: Batch) -> tuple[Sequence[nn.Module], Parts]:
    """Return R3GAN of its authors at the sizes of their CIFAR-10 run without classes, in float32; no flat gradients."""
    from training.loss import R3GANLoss
    from training.networks import Discriminator, Generator

    sizes = {
        "WidthPerStage": [768] * 4,
        "CardinalityPerStage": [96] * 4,
        "BlocksPerStage": [2] * 4,
        "ExpansionFactor": 2,
        "FP16Stages": [],
        "c_dim": 0,
        "img_resolution": 32,
    }
    g, d = Generator(NoiseDimension=64, **sizes), Discriminator(**sizes)
    loss = R3GANLoss(g, d)
    average = deepcopy(g).requires_grad_(False)
    optimizers = [
        torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.0, 0.9), eps=1e-8) for n in (g, d)
    ]

    def gradients(phase: str) -> Callable[[], None]:
        return lambda: loss.accumulate_gradients(
            phase, batch.real, None, torch.randn(len(batch), 64), 0.05, 1
        )

    for network in (g, d):
        network.requires_grad_(False)
    parts = {
        "discriminator": optimized(d, optimizers[1], gradients("D")),
        "generator": optimized(g, optimizers[0], gradients("G")),
        "rest": lambda: average_into(average, g, 0.001),
    }
    return (g, d), parts


PEERS = {
    "gat": Peer(
        shape=(4, 32, 32),
        classes=1000,
        overrides=("model=gat", "augment.diffaugment.policy=[color,translation,cutout,flip]"),
        sides={
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
            "elementwise in D, micro-batches of 2": (
                "model.discriminator.recompute=elementwise",
                "micro_batch_size=2",
            ),
            "micro-batches of 4": ("micro_batch_size=4",),
            "micro-batches of 2": ("micro_batch_size=2",),
            "one image at a time": ("micro_batch_size=1",),
            "as it is": (),
        },
        theirs=gat,
    ),
    "stylegan2": Peer(
        shape=(3, 64, 64),
        overrides=(
            "model=stylegan2",
            "model.generator.channel_max=128",
            "model.discriminator.channel_max=128",
        ),
        sides={"ours": ()},
        theirs=stylegan2,
    ),
    "r3gan": Peer(
        shape=(3, 32, 32), batch=2, overrides=("model=r3gan",), sides={"ours": ()}, theirs=r3gan
    ),
}


def our_steps(
    peer: Peer, overrides: Sequence[str], batch: Batch, count: int
) -> tuple[list[int], list[Costs]]:
    """Return numbers of parameters of G and D, and the costs of so many steps of ours, each with all penalties."""
    quiet()
    channels, *size = peer.shape
    config = composed(*peer.overrides, f"batch_size={peer.batch}", *overrides)
    module = build_model(config, images_of(size, channels=channels, classes=peer.classes))
    phases, take = Phases(module, Meter(torch.device("cpu"))), module.training_step
    costs: list[Costs] = []

    def training_step(batch: Any, batch_idx: int) -> None:
        for player in module.players.values():
            player.steps_taken = 0  # lazy penalties are due
        phases.start_step()
        take(batch, batch_idx)
        found = phases.end_step()
        costs.append({n: {"s": c.seconds, "cpu_s": c.cpu_seconds} for n, c in found.items()})

    module.training_step = training_step  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(Repeated(batch, count), batch_size=None))
    # for `main`, which does not build the model
    for step in costs:
        for name, cost in step.items():
            cost["times"] = times_per_step(name, module)
    return [size_of(network) for network in (module.generator, module.discriminator)], costs


def size_of(network: nn.Module) -> int:
    """Return a network's number of parameters."""
    return sum(p.numel() for p in network.parameters())


def their_steps(peer: Peer, clone: str, batch: Batch, count: int) -> tuple[list[int], list[Costs]]:
    """Return the same of the authors' code."""
    # R3GAN asks setuptools for a parser of versions, which newer ones no longer bring
    sys.modules.setdefault("pkg_resources", SimpleNamespace(parse_version=parse))  # type: ignore[arg-type]
    # their packages are called as those of the tests beside this file, which would come first
    sys.path[:] = [clone, *(p for p in sys.path if Path(p).resolve() != Path(__file__).parent)]
    networks, parts = peer.theirs(batch)
    costs: list[Costs] = []
    for _ in range(count):
        costs.append({})
        for name, do in parts.items():
            begin, cpu = time.perf_counter(), time.process_time()
            do()
            end, cpu_end = time.perf_counter(), time.process_time()
            costs[-1][name] = {"s": end - begin, "cpu_s": cpu_end - cpu}
    return [size_of(network) for network in networks], costs


def measure(peer: Peer, side: str, clone: str, count: int) -> dict[str, Any]:
    """Return what a step of a side costs: of several the medians without the first."""
    torch.manual_seed(0)
    batch = Batch(torch.randn(peer.batch, *peer.shape), torch.arange(peer.batch))
    if side == THEIRS:
        parameters, costs = their_steps(peer, clone, batch, count)
    else:
        parameters, costs = our_steps(peer, peer.sides[side], batch, count)
    peak = resident_peak()
    return {
        "side": side,
        "parameters": parameters,
        "gib": peak / 2**30,
        "phases": medians(costs[1:] or costs),
    }


def medians(costs: Sequence[Costs]) -> Costs:
    """Return the medians of every phase's costs."""
    return {
        name: {key: median(c[name][key] for c in costs) for key in cost}
        for name, cost in costs[0].items()
    }


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the medians of the rounds, the whole step, and theirs over ours; both must have equal parameters."""
    phases = {side: medians([made["phases"] for made in rounds]) for side, rounds in found.items()}
    times = {name: c["times"] for p in phases.values() for name, c in p.items() if "times" in c}
    for costs in phases.values():
        whole = {
            key: sum(c[key] * times[name] for name, c in costs.items()) for key in ("s", "cpu_s")
        }
        costs["whole step"] = whole
    for side, costs in phases.items():
        gib = median(made["gib"] for made in found[side])
        print(f"{side}: {gib:.2f} GiB, parameters of G and D {found[side][0]['parameters']}")
        for name, cost in costs.items():
            ratio = phases[THEIRS][name]["cpu_s"] / cost["cpu_s"]
            each = [f"{m['phases'][name]['cpu_s']:.3f}" for m in found[side] if name in m["phases"]]
            print(
                f"    {name:14} {cost['cpu_s']:.3f} CPU s, {cost['s']:.3f} s, theirs / this {ratio:.2f}",
                *each,
            )


def main(
    what: str, clone: str, threads: str = "1", count: str = "1", rounds: str = "1", side: str = ""
) -> None:
    """Measure all sides in turn, each in a process; or one side in this process."""
    peer = PEERS[what]
    if side:
        torch.set_num_threads(int(threads))
        print(json.dumps(measure(peer, side, clone, int(count))), flush=True)
        return
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": threads}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*peer.sides, THEIRS)}
    print(f"load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}")
    for _ in range(int(rounds)):
        for name in found:
            command = [sys.executable, __file__, what, clone, threads, count, rounds, name]
            made = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            found[name].append(json.loads(made.stdout.splitlines()[-1]))
    report(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
