"""31 corruptions of a run folder, and 50 hostile configurations of one, opened by every command.

    python -m tests.campaign.folders [corruptions | configs] [command ...]

After each, `train` (which goes on), `generate`, `export`, `evaluate` and `compare` must end with 0, or with 2 and one
line; nothing outside of the folder may change. Prints what does not, and counts. Takes about 20 minutes.
"""

import io
import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from gan_lab.commands.launch import launch
from tests.commands.conftest import ELSE

Change = Callable[[Path], object]
SECRET = "hunter2-of-the-environment"


def flip(path: Path, bits: int, seed: int) -> None:
    data = bytearray(path.read_bytes())
    draw = random.Random(seed)
    for _ in range(bits):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def line(path: Path, number: int, content: bytes) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number] = content
    path.write_bytes(b"\n".join(lines))


def replaced(path: Path, make: Change) -> None:
    path.unlink()
    make(path)


LAST, CONFIG, LOG = "checkpoints/last.ckpt", "config.yaml", "metrics.jsonl"
FILES = (LAST, CONFIG, LOG)
CORRUPTIONS: dict[str, Change] = {
    **{f"{n} bits of {f}": lambda r, n=n, f=f: flip(r / f, n, n) for n in (1, 5, 20) for f in FILES},
    **{f"{f} cut at {s}": lambda r, f=f, s=s: cut(r / f, s) for s in (0.0, 0.5) for f in FILES},
    "no last": lambda r: (r / LAST).unlink(),
    "no configuration": lambda r: (r / "config.yaml").unlink(),
    "no log": lambda r: (r / "metrics.jsonl").unlink(),
    "no checkpoints": lambda r: shutil.rmtree(r / "checkpoints"),
    "last is a folder": lambda r: replaced(r / LAST, Path.mkdir),
    "last is a pipe": lambda r: replaced(r / LAST, os.mkfifo),
    "configuration is a pipe": lambda r: replaced(r / "config.yaml", os.mkfifo),
    "a binary configuration": lambda r: (r / "config.yaml").write_bytes(os.urandom(2000)),
    "a deep configuration": lambda r: (r / "config.yaml").write_text("a: " + "[" * 50_000),
    "a bad line in the log": lambda r: line(r / "metrics.jsonl", 1, b"{"),
    "a line that is not text": lambda r: line(r / "metrics.jsonl", 1, b"\xff\xfe"),
    "a line that is a list": lambda r: line(r / "metrics.jsonl", 0, b"[1]"),
    "a deep line": lambda r: line(r / "metrics.jsonl", 0, b"[" * 50_000),
    "results that are none": lambda r: (r / "evaluation.json").write_text('[{"metrics": [{}]}]'),
    "results cut short": lambda r: (r / "evaluation.json").write_text("[{"),
    "another format": lambda r: line(r / CONFIG, 0, b"format: 1"),
}  # fmt: skip

WITNESS = "WITNESS"
NODES = (
    "!!python/object/apply:os.system ['touch WITNESS']",
    "!!python/object/new:pathlib.Path ['WITNESS']",
    "!!python/name:os.system ''",
    "{_target_: os.system, command: 'touch WITNESS'}",
    "{_target_: builtins.open, file: WITNESS, mode: w}",
    "{_target_: gan_lab.data.packing.RestartableZip, out: WITNESS, plan: p}",
    "{_target_: gan_lab.training.loggers.files.JsonLogger, run_dir: WITNESS}",
    "{_target_: gan_lab.run.write, path: WITNESS, content: x}",
    "{_target_: pathlib.Path, _args_: [WITNESS]}",
    "{_target_: subprocess.Popen, args: [touch, WITNESS]}",
)
PLACES = (
    "model.generator",
    "model.discriminator",
    "model.generator.width",
    "data",
    "sample.kind",
)


def hostile(run: Path, place: str, node: str, witness: Path) -> None:
    """Put a node into a run's configuration."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    *parents, last = place.split(".")
    inner = config
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = "PLANTED"
    config["note"] = "${oc.env:GAN_LAB_SECRET}"
    text = yaml.safe_dump(config, sort_keys=False).replace(
        "PLANTED", node.replace(WITNESS, str(witness)), 1
    )
    (run / "config.yaml").write_text(text)


def overrides(root: Path) -> list[str]:
    """The command that made the run."""
    return [*ELSE, "total_kimg=0.3", f"runs_dir={root}", "name=run"]


def commands(root: Path) -> dict[str, list[str]]:
    """Every command that opens a run."""
    run = root / "run"
    return {
        "generate": [f"run={run}", "num_images=1", f"out={root}/images"],
        "export": [f"run={run}", f"out={root}/model"],
        "evaluate": [f"run={run}", "protocol=digits", "protocol.num_fake=80", f"out={root}/e.json"],
        "compare": [f"runs=[{run}]", f"out={root}/compare.html"],
        "train": overrides(root),
    }


def run_command(command: str, given: list[str]) -> tuple[str, str]:
    """Return the exit status and output of a command."""
    said, out = io.StringIO(), io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(out):
            status = launch(command, given)
    except SystemExit as end:
        status = int(end.code or 0)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "traceback", traceback.format_exc()[-800:]
    err = said.getvalue().strip()
    if SECRET in err + out.getvalue():
        return "tells a secret", err
    if (
        status == 2
        and len([one for one in err.splitlines() if one.startswith("gan-lab: error")]) == 1
    ):
        return "rejected", err
    return ("works" if status == 0 else "another end"), err


def attack(
    whole: Path, changes: dict[str, Change], witness: Path, counts: Counter[str], by: list[str]
) -> None:
    """Change a copy of a run in each way, and open it by every command; or by some."""
    for name, change in changes.items():
        for command in by or commands(whole):
            with TemporaryDirectory() as folder:
                root = Path(folder)
                shutil.copytree(whole / "run", root / "run")
                change(root / "run")
                end, said = run_command(command, commands(root)[command])
                if witness.exists():
                    end = "acts"
                    witness.unlink()
            counts[end] += 1
            if end not in ("works", "rejected"):
                print(f"{name}: {command}: {end}: {said}", flush=True)


def main(which: list[str]) -> int:
    """Try all; return the exit status."""
    os.environ["GAN_LAB_SECRET"] = SECRET
    wrong = 0
    with TemporaryDirectory() as folder:
        whole, witness = Path(folder) / "whole", Path(folder) / "witness"
        assert launch("train", [*overrides(whole), "total_kimg=0.2"]) == 0
        (whole / "run" / "evaluation.json").write_text(json.dumps([]))
        configs = {
            f"{node} as {place}": lambda run, node=node, place=place: hostile(
                run, place, node, witness
            )
            for node in NODES
            for place in PLACES
        }
        by = [one for one in which if one in commands(whole)]
        for name, changes in (("corruptions", CORRUPTIONS), ("configs", configs)):
            if which and name not in which:
                continue
            counts: Counter[str] = Counter()
            with suppress(KeyboardInterrupt):
                attack(whole, changes, witness, counts, by)
            print(f"{len(changes)} {name}, {counts.total()} commands: {dict(counts)}", flush=True)
            wrong += sum(n for end, n in counts.items() if end not in ("works", "rejected"))
    return int(wrong > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # counts what was done
    sys.exit(main(sys.argv[1:]))
