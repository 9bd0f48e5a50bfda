"""100 SIGKILLs at random moments over five models, one of them in two processes.

    python -m tests.campaign.kills [kills of each model] [model ...]

Each run is killed again and again and started again by the same command; what it ends with must be, bit by bit, what
an uninterrupted one ends with: weights, optimizers, clock, callbacks, log. Prints counts. Takes an hour for 20 of each.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.commands.conftest import ELSE, entries, in_a_child
from tests.helpers.checkpoints import assert_same, final
from tests.helpers.small import BIGAN, STYLEGANS

COMMON = tuple(word for word in ELSE if not word.startswith("model"))
SMALL = ("model.generator.width=4", "model.discriminator.width=4")
MODELS = {
    "gan": ("model=gan", *SMALL),
    "dcgan in two processes": ("model=dcgan", *SMALL, "trainer=cpu", "trainer.devices=2"),
    "bigan": BIGAN,
    "stylegan2": ("model=stylegan2", *STYLEGANS["stylegan2"]),
    "sngan": ("model=sngan", *SMALL),
}
PARTS = ("state_dict", "optimizer_states", "clock", "callbacks")
PATIENCE_S = 600.0


def finish(words: list[str]) -> float:
    """Train to the end and return how long it took."""
    began = time.monotonic()
    child = in_a_child(words)
    child.join(PATIENCE_S)
    if child.exitcode != 0:
        child.kill()
        raise AssertionError(f"it ends with {child.exitcode}")
    return time.monotonic() - began


def attack(root: Path, name: str, words: tuple[str, ...], kills: int, draw: random.Random) -> int:
    """Kill a model's run so often, and compare; return how often it was killed."""
    given = [*COMMON, *words, "data.image_size=8", "total_kimg=1.2", f"runs_dir={root}"]
    took = finish([*given, "name=straight"])
    last = root / "killed" / "checkpoints" / "last.ckpt"
    done = 0
    for _ in range(kills):
        seen = last.stat().st_mtime_ns if last.exists() else 0
        child = in_a_child([*given, "name=killed"])
        deadline = time.monotonic() + PATIENCE_S
        if done % 2:  # every other one after it has got further, or all would fall into the start
            while child.is_alive() and time.monotonic() < deadline:
                if last.exists() and last.stat().st_mtime_ns != seen:
                    break
                time.sleep(0.002)
        time.sleep(draw.uniform(0, took / 10))
        if not child.is_alive():
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        done += 1
    finish([*given, "name=killed"])
    ours, theirs = final(root / "killed"), final(root / "straight")
    for part in PARTS:
        assert_same(ours[part], theirs[part], part)
    assert entries(root / "killed") == entries(root / "straight"), "the log differs"
    print(f"{name}: {done} kills, the same", flush=True)
    return done


def main(kills: int, names: list[str]) -> int:
    """Attack models; return the exit status."""
    total, different = 0, 0
    for name, words in MODELS.items():
        if names and name.split()[0] not in names:
            continue
        with TemporaryDirectory() as folder:
            try:
                total += attack(Path(folder), name, words, kills, random.Random(name))
            except AssertionError as error:
                different += 1
                print(f"{name}: {str(error)[:500]}", flush=True)
    print(f"{total} kills that ended the same, {different} models that did not")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2:]))
