"""A run that dies before, during or after any call that changes files, and the content of its folder."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.metrics.base import NoMetrics
from tests.commands.conftest import ELSE, entries

FORK = multiprocessing.get_context("fork")
# four steps; entries, evaluations and checkpoints after the second and the last one, which is the best
WORDS = (
    *ELSE,
    "total_kimg=0.064",
    "data.flip=true",
    *(
        f"callbacks.{name}.every_kimg=0.032"
        for name in ("training_log", "evaluation", "checkpointing")
    ),
    "callbacks.samples.every_kimg=0.064",
    "callbacks.samples.rows=2",
)
# (what is called, of which file): what a run does to its folder, in this order
Trace = list[tuple[str, str]]
Wrap = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]


class Countdown(NoMetrics):
    """A metric that falls to 0 at the end of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.best = "left"

    def prepare(self, data: Any) -> None:
        self.module = data.trainer.lightning_module

    def compute(self, fakes: object) -> dict[str, float]:
        return {"left": float(self.module.total_images - self.module.images_seen)}


def train(root: Path, wrap: Wrap | None = None) -> int:
    """Train in this process, with every call that changes files passed to `wrap`; return the status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gan_lab.metrics.base.NoMetrics", Countdown)
        for name in ("os.replace", "os.link", "os.fsync", "torch.save"):
            module, function = sys.modules[name.split(".")[0]], name.split(".")[1]
            inner = getattr(module, function)
            if wrap is not None:
                patch.setattr(name, lambda *a, n=function, f=inner: wrap(n, f, a))
        return launch("train", [*WORDS, f"runs_dir={root}", "name=run"])


def of_file(name: str, arguments: tuple[Any, ...]) -> str:
    """Return the name of a call's file, without the parts that depend on the process."""
    subject = arguments[0] if name == "fsync" else arguments[1]
    if name == "fsync":
        path = Path(os.readlink(f"/proc/self/fd/{subject}"))
    else:
        path = Path(getattr(subject, "name", subject))
    temporary = re.fullmatch(r"\.(.*)\.[\w-]+\.\d+\.part", path.name)
    return temporary[1] if temporary else path.name


def killed(root: Path, number: int, when: str) -> None:
    """Train, and die at the call of this number: before it, in the middle (of a save) or after it."""
    calls = 0

    def wrap(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 != number:
            return call(*arguments)
        if when != "before":
            call(*arguments)
        if when == "middle":
            arguments[1].truncate(arguments[1].tell() // 2)
        os._exit(9)

    train(root, wrap)


def run_and_exit(work: Callable[..., int | None], *arguments: object) -> None:
    sys.exit(work(*arguments))


def in_a_child(work: Callable[..., int | None], *arguments: object) -> int | None:
    child = FORK.Process(target=run_and_exit, args=(work, *arguments))
    child.start()
    child.join(300)
    return child.exitcode


def traced(root: Path) -> tuple[Path, Trace]:
    """Train without interruption, in this process, and return the run folder and all calls that changed files."""
    trace: Trace = []

    def wrap(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        trace.append((name, of_file(name, arguments)))
        return call(*arguments)

    assert train(root, wrap) == 0
    return root / "run", trace


def content(run: Path) -> dict[str, Any]:
    """Return all that a run folder holds but the time."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".ckpt":
            state = torch.load(path, weights_only=True)
            state.pop("seconds")
            found[name] = flat(state)
        elif path.suffix in (".png", ".yaml"):
            found[name] = path.read_bytes().replace(os.fsencode(run.parent), b"")
        elif path.is_file() and path.name != "metrics.jsonl":
            found[name] = "a file"
    return found | {"metrics.jsonl": entries(run)}


def flat(value: Any) -> Any:
    """Return a state with lists for tensors, in which NaN and signs of zero count as they are."""
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [flat(part) for part in value]
    if isinstance(value, torch.Tensor):
        return (
            str(value.dtype),
            list(value.shape),
            value.contiguous().view(-1).view(torch.uint8).tolist(),
        )
    return value


def check_kill(root: Path, straight: Path, number: int, when: str) -> None:
    assert in_a_child(killed, root, number, when) == 9
    assert in_a_child(train, root) == 0
    ours, theirs = content(root / "run"), content(straight)
    assert ours.keys() == theirs.keys(), "nothing is missing and nothing left over"
    for name, value in theirs.items():
        assert ours[name] == value, name
