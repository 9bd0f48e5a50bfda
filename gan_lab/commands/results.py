"""Results as JSON: what was measured, how, and in which circumstances."""

import json
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import gan_lab
from gan_lab.config import conf_dir
from gan_lab.errors import InputError
from gan_lab.run import write_json

PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "pillow", "scikit-learn")
# what makes two results answers to the same question
IDENTITY = ("protocol", "num_fake", "num_real", "fake", "real", "settings")


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return the time, the versions of all that computes, and the device."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": f"{device.type}: {on}",
        "versions": {
            "gan_lab": gan_lab.__version__,
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := package_version(name))},
        },
        "git_revision": git_revision(),
    }


def package_version(name: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Return the commit of gan_lab's checkout, with "+" where it has changed since; None where there is none."""
    root = conf_dir().parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(
            root, "status", "--porcelain", "--untracked-files=no", "--", "gan_lab", "conf"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changed else commit


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def add_result(result: dict[str, Any], path: Path) -> None:
    """Add a result to a JSON list, in place of an earlier one of the same images by the same protocol.

    Raises:
        InputError: when the file holds something else.
    """
    results = read_results(path)
    plain = json.loads(json.dumps(result))
    kept = [other for other in results if not same_question(other, plain)]
    write_json(path, [*kept, plain])


def same_question(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results measure the same images in the same way."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results of a JSON file, none where there is no file.

    Raises:
        InputError: when the file holds something else.
    """
    if not path.exists():
        return []
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); move it away, or set out=") from error
    if isinstance(results, dict) and "figures" in results:  # of an earlier version: a single one
        return [results]
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise InputError(f"{path} holds no results; move it away, or set out=")
    return results
