"""A Space of the Hugging Face hub: the explore page of one exported model, as a container."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gan_lab.run import write
from gan_lab.version import __version__
from gan_lab.weights.export import licence_fields
from gan_lab.weights.exported import CARD, DESCRIPTION, GRID, WEIGHTS

PORT = 7860
CPUS = 2  # of the hub's free machine, where torch would count those of its host
MODEL = "model"
# what a Space holds; other files in the folder, such as a wheel of gan_lab, are kept
FILES = ("README.md", "Dockerfile", "requirements.txt", MODEL)
# of the exported model
TAKEN = (DESCRIPTION, CARD, GRID, WEIGHTS["generator"], WEIGHTS["representation"])

REQUIREMENTS = f"gan-laboratory[explore]=={__version__}\n"

# the hub shows a Space in a frame of its own page, and runs it as the user 1000
DOCKERFILE = f"""\
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY --chown=user . .
# a wheel that lies here is taken in place of the package index's
RUN pip install --no-cache-dir -f . -r requirements.txt
USER user
EXPOSE {PORT}
CMD ["gan-lab", "explore", "run={MODEL}", "host=0.0.0.0", "port={PORT}", "threads={CPUS}", \
"frame_ancestors=[https://huggingface.co]"]
"""

README = """\
# {name}

An explore page of one generator, of gan_lab: seeds, truncation, mixing, directions. {model}

The same on any machine: `docker build -t explore . && docker run -p {port}:{port} explore`, or without a container
`pip install -r requirements.txt && gan-lab explore run={folder}`.

A wheel of gan-laboratory {version} that lies in this folder is installed in place of the package index's.
"""


def is_space(folder: Path) -> bool:
    """Whether a folder holds a Space that `fill_space` wrote."""
    return (folder / "Dockerfile").is_file() and (folder / MODEL / DESCRIPTION).is_file()


def fill_space(
    folder: Path, model: Path, description: Mapping[str, Any], *, repository: str | None
) -> None:
    """Write the files of a Space.

    Args:
        folder: where to.
        model: the exported model, of which a copy is taken.
        description: its `model.json`.
        repository: "user/name" of the model on the hub, or None.
    """
    (folder / MODEL).mkdir()
    for name in TAKEN:
        if (model / name).is_file():
            shutil.copy2(model / name, folder / MODEL / name)
    write(folder / "Dockerfile", DOCKERFILE)
    write(folder / "requirements.txt", REQUIREMENTS)
    fields = {
        "title": description["name"],
        "sdk": "docker",
        "app_port": PORT,
        **licence_fields(description),
        **({"models": [repository]} if repository else {}),
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    text = README.format(
        name=description["name"],
        model=f"The model: [{repository}](https://huggingface.co/{repository})."
        if repository
        else f"The model lies in `{MODEL}`, with its card.",
        port=PORT,
        folder=MODEL,
        version=__version__,
    )
    write(folder / "README.md", f"---\n{front}---\n\n{text}")


def space_files(folder: Path) -> Sequence[str]:
    """Return the files of a Space, and the wheels in it, which its container installs."""
    inside = [f"{MODEL}/{path.name}" for path in sorted((folder / MODEL).iterdir())]
    wheels = sorted(path.name for path in folder.glob("*.whl"))
    return [*(name for name in FILES if name != MODEL), *inside, *wheels]
