"""The Hugging Face hub, https://huggingface.co: exported models to and from it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_lab.console import say
from gan_lab.errors import InputError, counted, first_line, import_extra

PREFIX = "hf://"

# the files that loading needs, without programs and images
NEEDED = ("model.json", "*.safetensors")


def library() -> Any:
    """Import huggingface_hub.

    Raises:
        InputError: when it is not installed.
    """
    return import_extra("huggingface_hub", extra="hub", what="the Hugging Face hub")


def download(source: str) -> Path:
    """Return the local folder of a model on the hub, downloaded to the hub's cache if needed.

    Args:
        source: "hf://user/name" or "hf://user/name@revision".

    Raises:
        InputError: when there is no such model, or no network and no copy in the cache.
    """
    name, _, revision = source.removeprefix(PREFIX).partition("@")
    check_name(name, source)
    hf = library()
    try:
        folder = hf.snapshot_download(
            repo_id=name, revision=revision or None, allow_patterns=list(NEEDED)
        )
    # errors of the connection have many types
    except Exception as error:
        raise InputError(
            f"{source} could not be downloaded ({type(error).__name__}: {first_line(error)}); check the name, the "
            "network and, for a private model, HF_TOKEN"
        ) from error
    return Path(folder)


def check_push(name: str) -> None:
    """Check a model's name and that there is a token, before anything is computed.

    Raises:
        InputError: for an invalid name, or without a token.
    """
    check_name(name, f"push={name}")
    if library().get_token() is None:
        raise InputError(
            f"push={name} needs a Hugging Face token with write access: set HF_TOKEN, or log in with hf auth "
            "login (tokens: https://huggingface.co/settings/tokens)"
        )


def push(
    folder: Path, name: str, *, files: Sequence[str], private: bool, space: bool = False
) -> str:
    """Upload an exported model or a Space, as one commit; the repository is created if needed.

    Args:
        folder: the exported model, or the Space's folder.
        name: "user/name".
        files: names of the files to upload.
        private: whether a new repository is private; an existing one is not changed.
        space: whether it is a Space, a container.

    Returns:
        The commit's URL.

    Raises:
        InputError: when the hub rejects it or cannot be reached.
    """
    hf = library()
    api = hf.HfApi()
    say(f"uploading {counted(len(files), 'file')} to {name}")
    try:
        kind = "space" if space else "model"
        sdk = {"space_sdk": "docker"} if space else {}
        api.create_repo(repo_id=name, repo_type=kind, private=private, exist_ok=True, **sdk)
        commit = api.upload_folder(
            repo_id=name,
            repo_type=kind,
            folder_path=str(folder),
            allow_patterns=list(files),
            commit_message="Upload with gan_lab",
        )
    except Exception as error:  # as in `download`
        raise InputError(
            f"push={name} failed ({type(error).__name__}: {first_line(error)}); {folder} is complete: "
            f"gan-lab export run={folder} push={name} tries again"
        ) from error
    return str(commit.commit_url)


def check_name(name: str, given: str) -> None:
    """Check that a name is user/name.

    Raises:
        InputError: with what was given.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
        raise InputError(f"{given} is not a model of the Hugging Face hub: give user/name")
