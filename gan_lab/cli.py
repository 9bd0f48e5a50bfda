"""The command line: a command's name, then Hydra overrides. Nothing heavy is imported before a command is chosen."""

import os
import re
import sys
from importlib import import_module

COMMANDS = {
    "train": "train a GAN, or go on with one: gan-lab train experiment=quickstart",
    "evaluate": "measure a trained GAN: gan-lab evaluate run=runs/quickstart",
    "generate": "draw images: gan-lab generate run=runs/quickstart num_images=64 seed=0",
    "interpolate": "pictures and videos between points: gan-lab interpolate run=runs/quickstart seeds=0-3",
    "mix": "a sheet of mixed styles: gan-lab mix run=runs/faces rows=0-3 columns=10-14 layers=coarse",
    "project": "pictures into the latent space: gan-lab project run=runs/quickstart images=photo.png",
    "directions": "directions to move along: gan-lab directions run=runs/faces method=ganspace",
    "compare": "runs side by side, one page and a picture: gan-lab compare runs/*",
    "explore": "a page to play with a generator: gan-lab explore run=runs/quickstart",
    "export": "a model to give away: gan-lab export run=runs/quickstart out=quickstart format=onnx",
    "dashboard": "a W&B workspace that compares a project's runs: gan-lab dashboard project=faces",
    "prepare-data": "pack images into one zip: gan-lab prepare-data data=image_folder data.root=photos size=64",
    "import-weights": "published weights as a run: gan-lab import-weights ffhq.pkl name=ffhq",
    "prefetch": "weights for evaluate, while online: gan-lab prefetch features=[inception,clip]",
    "bench": "what a training step costs: gan-lab bench model=stylegan2 data=random data.image_size=64",
}

# the key that a word without "=" gives a value to, or that all such words are a list of
POSITIONAL = {"import-weights": "path"}
LISTED = {"compare": "runs"}
# keys that are true or false, and may be written as flags
SWITCHES = {"evaluate": ("preview", "plots"), "train": ("dry_run",)}


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


def switched(words: list[str], keys: tuple[str, ...]) -> list[str]:
    """Return the words with `key=true` in place of the flag `--key`."""
    flags = {f"--{key.replace('_', '-')}": f"{key}=true" for key in keys}
    return [flags.get(word, word) for word in words]


def named(words: list[str], key: str | None) -> list[str]:
    """Return the overrides with `key=` before words that have none, in quotes, since a path may hold any character."""
    if key is None:
        return words
    return [
        word if "=" in word or word.startswith("-") else f"{key}={path_quoted(word)}"
        for word in words
    ]


def listed(words: list[str], key: str | None) -> list[str]:
    """Return the overrides with all words that are none, or that are paths which are there, as a list `key=`."""
    if key is None:
        return words
    paths: list[str] = []
    rest: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        # a path may hold a "=", and a flag be followed by its value
        is_path = "=" not in word and not before.startswith("-")
        is_path = (is_path and not word.startswith("-")) or os.path.exists(word)
        (paths if is_path else rest).append(word)
    return [*([f"{key}=[{','.join(map(path_quoted, paths))}]"] if paths else []), *rest]


def path_quoted(path: str) -> str:
    """Return a path in Hydra's quotes, as it stands: a folder may be called ${oc.env:TOKEN}."""
    # gan_lab.config.literal, without what it imports
    return quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", path))


def quoted(word: str) -> str:
    """Return a word in Hydra's quotes."""
    # backslashes count only before a quote, the last one included
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", r"\'"), word) + "'"


def main(arguments: list[str] | None = None) -> None:
    """Run a command of the command line; exits with 2 for bad input."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return
    if words[0] in ("-V", "--version"):
        from gan_lab import __version__

        print(f"gan_lab {__version__}")
        return
    name, *overrides = words
    if name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        sys.exit(f"gan-lab: there is no command {name!r}{hint}\n\n{usage()}")
    if name == "train":
        import_module("gan_lab.slurm").hold_warnings()
    try:
        launch = import_module("gan_lab.commands.launch")
        overrides = switched(overrides, SWITCHES.get(name, ()))
        overrides = listed(named(overrides, POSITIONAL.get(name)), LISTED.get(name))
        status = launch.launch(name, overrides)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
