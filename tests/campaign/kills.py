"""100 SIGKILLs at random moments over five models, one of them in two processes.

    python -m tests.campaign.kills [kills of each model] [model ...]

Each run is killed again and again and started again by the same command; what it ends with must be, bit by bit, what
an uninterrupted one ends with: weights, optimizers, clock, callbacks, log. Prints counts. Every attempt is forked from
this process, which has trained already and so has everything imported. Takes about 10 minutes for 20 of each.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from gan_lab.commands.launch import launch
from tests.commands.conftest import ELSE, entries, in_a_child
from tests.helpers.checkpoints import assert_same, final
from tests.helpers.small import BIGAN, STYLEGANS

COMMON = tuple(word for word in ELSE if not word.startswith("model"))
SMALL = ("model.generator.width=4", "model.discriminator.width=4")
MODELS = {
    "gan": ("model=gan", *SMALL),
    "dcgan in two processes": (
        "model=dcgan",
        *SMALL,
        "trainer=cpu",
        "trainer.devices=2",
        "total_kimg=0.4",
    ),
    "bigan": BIGAN,
    "stylegan2": ("model=stylegan2", *STYLEGANS["stylegan2"]),
    "sngan": ("model=sngan", *SMALL),
}
PARTS = ("state_dict", "optimizer_states", "clock", "callbacks")
PATIENCE_S = 3000.0


def finish(overrides: list[str]) -> float:
    """Train to the end and return how long it took."""
    began = time.monotonic()
    child = in_a_child(overrides)
    child.join(PATIENCE_S)
    if child.exitcode != 0:
        child.kill()
        raise AssertionError(f"it ends with {child.exitcode}")
    return time.monotonic() - began


def killed(given: list[str], root: Path, kills: int, took: float, draw: random.Random) -> int:
    """Kill one run up to a number of times, until it is trained, and compare; return the number of kills."""
    last = root / "killed" / "checkpoints" / "last.ckpt"
    done = 0
    while done < kills:
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
    return done


def attack(
    root: Path, overrides: tuple[str, ...], kills: int, draw: random.Random
) -> tuple[int, int]:
    """Kill runs of a model a number of times, and compare; return the numbers of kills and of runs."""
    given = [*COMMON, "data.image_size=8", "total_kimg=1.2", *overrides, f"runs_dir={root}"]
    took, done, runs = finish([*given, "name=straight"]), 0, 0
    while done < kills:
        done += killed(given, root, kills - done, took, draw)
        shutil.rmtree(root / "killed")
        runs += 1
    return done, runs


def main(kills: int, names: list[str]) -> int:
    """Attack models; return the exit status."""
    total, different = 0, 0
    with TemporaryDirectory() as folder:
        assert launch("train", [*ELSE, "total_kimg=0.1", f"runs_dir={folder}", "name=warm"]) == 0
    for name, overrides in MODELS.items():
        if names and name.split()[0] not in names:
            continue
        with TemporaryDirectory() as folder:
            try:
                done, runs = attack(Path(folder), overrides, kills, random.Random(name))
            except AssertionError as error:
                different += 1
                print(f"{name}: {str(error)[:500]}", flush=True)
            else:
                total += done
                print(f"{name}: {done} kills of {runs} runs, the same", flush=True)
    print(f"{total} kills that ended the same, {different} models that did not")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, sys.argv[2:]))
