"""The command line: a command's name, then Hydra overrides. Nothing heavy is imported before a command is chosen."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

from gan_lab.errors import imported, interrupted
from gan_lab.version import __version__

COMMANDS = {
    "train": "train a GAN, or resume: gan-lab train experiment=quickstart",
    "evaluate": "compute the metrics of a trained GAN: gan-lab evaluate run=runs/quickstart",
    "ema": "metrics with averages of other lengths: gan-lab ema run=runs/photos lengths=[0.02,0.05,0.1]",
    "generate": "draw images: gan-lab generate run=runs/quickstart num_images=64 seed=0",
    "interpolate": "images and videos between points: gan-lab interpolate run=runs/quickstart seeds=0-3",
    "mix": "a sheet of mixed styles: gan-lab mix run=runs/faces rows=0-3 columns=10-14 layers=coarse",
    "project": "images into the latent space: gan-lab project run=runs/quickstart images=photo.png",
    "directions": "directions to move along: gan-lab directions run=runs/faces method=ganspace",
    "compare": "runs side by side, one page and an image: gan-lab compare runs/*",
    "explore": "a page to play with a generator: gan-lab explore run=runs/quickstart",
    "export": "a model to give away: gan-lab export run=runs/quickstart out=quickstart format=onnx",
    "dashboard": "a W&B workspace that compares a project's runs: gan-lab dashboard project=faces",
    "prepare-data": "pack images into one zip: gan-lab prepare-data data=image_folder data.root=photos size=64",
    "import-weights": "published weights as a run: gan-lab import-weights ffhq.pkl name=ffhq",
    "prefetch": "weights for evaluate, while online: gan-lab prefetch features=[inception,clip]",
    "bench": "what a training step costs: gan-lab bench model=stylegan2 data=random data.image_size=64",
}


def usage() -> str:
    """Return the help text."""
    lines = [f"  {name:16}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: gan-lab COMMAND [key=value ...]",
            "",
            *lines,
            "",
            "gan-lab COMMAND --help lists the keys and config groups of a command; --version prints the version.",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a command of the command line; exits with 2 for bad input."""
    args = sys.argv[1:] if arguments is None else arguments
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if args[0] in ("-V", "--version"):
        print(f"gan_lab {__version__}")
        return
    name, *overrides = args
    if name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"gan-lab: there is no command {name!r}{hint}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        if name == "train":
            import_module("gan_lab.distributed.slurm").block_signals()
        status = import_module("gan_lab.commands.launch").launch(name, overrides)
    except KeyboardInterrupt:
        status = 130
    except Exception:
        # interrupted code may raise anything
        if not interrupted.is_set():
            raise
        status = 130
    finally:
        signal.signal(signal.SIGINT, before)
    sys.exit(status)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Record Ctrl-C and raise KeyboardInterrupt; during imports, when nothing is done yet, exit at once."""
    interrupted.set()
    if not imported.is_set():
        os._exit(130)
    raise KeyboardInterrupt
