"""`make gpu`: what this machine's GPU does with the checkout, item by item, within a few minutes and without a network.

python -m tests.gpu [--wheels FOLDER] [--out FOLDER] [--minutes 8] [--items steps,nccl] [--toy]

Each item is a process of its own (`tests.gpu.work`), so that one that fails or hangs costs no other. After each result
gpu.json and gpu.md in `--out` are whole. Nothing but Python's own library is needed here: what is missing is named, and
items that do without it run.
"""

import argparse
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Result = dict[str, Any]

# import name -> package, of what some item needs
NEEDED = {
    "torch": "torch",
    "lightning": "lightning",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "hydra": "hydra-core",
    "omegaconf": "omegaconf",
    "antlr4": "antlr4-python3-runtime",
    "torch_fidelity": "torch-fidelity",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "annotated_types": "annotated-types",
    "typing_inspection": "typing-inspection",
    "filelock": "filelock",
    "yaml": "pyyaml",
    "rich": "rich",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "safetensors": "safetensors",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
}


@dataclass(frozen=True)
class Item:
    """One item of the list.

    Attributes:
        name: as `tests.gpu.work` knows it.
        limit_s: it is ended after so long.
        reserve_s: what is kept back for it by those before it.
    """

    name: str
    limit_s: float
    reserve_s: float


ITEMS = (
    Item("machine", 40, 20),
    Item("tests", 90, 20),
    Item("steps", 170, 100),
    Item("penalties", 170, 80),
    Item("nccl", 40, 20),
    Item("train", 110, 90),
)

COLUMNS = ("item", "what", "precision", "batch", "s_per_step", "img_per_s", "peak_gib", "note")


def main(arguments: Sequence[str]) -> int:
    """Run the list; return 0, or 1 when an item failed."""
    options = parse(arguments)
    began = time.monotonic()
    deadline = began + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = options.items.split(",") if options.items else [item.name for item in ITEMS]
    with tempfile.TemporaryDirectory() as folder:
        if options.wheels:
            unpack(options.wheels, Path(folder))
            sys.path.insert(0, folder)
        missing = [package for name, package in NEEDED.items() if find_spec(name) is None]
        if missing:
            print(f"missing: {', '.join(missing)}; bring them as wheels: WHEELS=folder", flush=True)
        report: Result = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "toy": options.toy,
            "missing": missing,
            "items": {},
            "results": [],
        }
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [folder, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "PYTHONUNBUFFERED": "1",
        }
        items = [item for item in ITEMS if item.name in wanted]
        for index, item in enumerate(items):
            kept = sum(later.reserve_s for later in items[index + 1 :])
            left = deadline - time.monotonic()
            seconds = max(min(item.limit_s, left - kept), min(item.reserve_s, left))
            if options.toy:
                seconds = left
            state = "no time was left"
            begin = time.monotonic()
            if seconds > 1:
                for result in results_of(item, seconds, environment, options):
                    if isinstance(result, str):
                        state = result
                    else:
                        report["results"].append({"item": item.name, **result})
                        save(report, options.out)
            report["items"][item.name] = {"state": state, "seconds": time.monotonic() - begin}
            report["seconds"] = time.monotonic() - began
            save(report, options.out)
            print(f"{item.name}: {state}, {time.monotonic() - begin:.0f} s", flush=True)
    print((options.out / "gpu.md").read_text(), flush=True)
    well = all(entry["state"] == "done" for entry in report["items"].values())
    return 0 if well and not any("error" in result for result in report["results"]) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder of wheels of what is missing here")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--items", help=f"some of {','.join(item.name for item in ITEMS)}")
    parser.add_argument("--toy", action="store_true", help="small sizes, on the CPU")
    return parser.parse_args(arguments)


def unpack(wheels: Path, folder: Path) -> None:
    """Unpack wheels into one folder, as pip would."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"{wheels} holds no wheels (*.whl)")
    for wheel in found:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def results_of(
    item: Item, seconds: float, environment: dict[str, str], options: argparse.Namespace
) -> Iterator[Result | str]:
    """Run an item; yield its results, then how it ended as text."""
    command = [sys.executable, "-m", "tests.gpu.work", item.name, str(options.out)]
    command += [f"{seconds:.0f}", *(["toy"] if options.toy else [])]
    log = options.out / f"{item.name}.log"
    end = time.monotonic() + seconds
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "GPU_ITEM_BEGAN": str(time.time())},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=pass_on, args=(process, lines), daemon=True).start()
        late = False
        while True:
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                late = True
                break
            if line is None:
                break
            if line.startswith("{"):
                result = json.loads(line)
                print(
                    f"  {item.name}: {' '.join(f'{k}={shown(v)}' for k, v in result.items())}",
                    flush=True,
                )
                yield result
        if late:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    if late:
        yield f"ended after {seconds:.0f} s"
    elif status:
        yield f"failed: {last_line(log)}"
    else:
        yield "done"


def pass_on(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    """Put a process's lines into a queue, and None behind them."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def last_line(log: Path) -> str:
    """Return the last output of a process."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def save(report: Result, out: Path) -> None:
    """Write the report as JSON and as a table, atomically."""
    for name, text in (("gpu.json", json.dumps(report, indent=1)), ("gpu.md", table(report))):
        temporary = out / f"{name}.part"
        temporary.write_text(text)
        temporary.replace(out / name)


def table(report: Result) -> str:
    """Return the results as a table in Markdown."""
    lines = [f"{report['started']}, Python {report['python']}", ""]
    if report["missing"]:
        lines = [*lines, f"missing: {', '.join(report['missing'])}", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for result in report["results"]:
        cells = [shown(result.get(column, "")) for column in COLUMNS[:-1]]
        note = result.get("error") or result.get("note", "")
        lines.append(f"| {' | '.join([*cells, shown(note)])} |")
    for name, entry in report["items"].items():
        if entry["state"] != "done":
            lines.append(f"\n{name}: {entry['state']}")
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """Return a number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
