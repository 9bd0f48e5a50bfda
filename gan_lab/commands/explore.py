"""gan-lab explore: a local page to explore trained generators."""

import logging
import socket
from pathlib import Path

import torch
from omegaconf import DictConfig

from gan_lab.commands.options import open_gan
from gan_lab.console import say, warn
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")


def run(config: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: for a run that cannot be loaded, a port in use, or missing packages.
    """
    try:
        import uvicorn

        from gan_lab.explore.app import build_app
        from gan_lab.explore.studio import Studio
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed; gan-lab explore needs pip install 'gan-laboratory[explore]'"
        ) from error
    listening = listen(config.host, config.port)
    if config.threads:
        torch.set_num_threads(config.threads)
    runs = [config.run] if config.other is None else [config.run, config.other]
    studios = [
        Studio(opened(config, one), name=name) for one, name in zip(runs, names(runs), strict=True)
    ]
    app = build_app(
        studios,
        hosts=["*"] if config.host in EVERYWHERE else [*LOOPBACK, config.host],
        frame_ancestors=config.frame_ancestors,
    )
    if config.host not in LOOPBACK:
        warn(f"host={config.host}: everyone who can reach this machine can use the page")
    port = listening.getsockname()[1]
    host = "127.0.0.1" if config.host in EVERYWHERE else config.host
    say(f"open http://{f'[{host}]' if ':' in host else host}:{port}/ - Ctrl-C ends it")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listening])


def opened(config: DictConfig, run: str) -> Gan:
    """Load a run's generator."""
    own = config.copy()
    own.run = run
    return open_gan(own)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, before anything is loaded.

    Raises:
        InputError: when the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        raise InputError(
            f"host={host} port={port} cannot be used ({error.strerror or error}); another program may be "
            "there: choose another port=, or port=0 for any that is free"
        ) from error
    return found


def names(runs: list[str]) -> list[str]:
    """Return short names of runs, longer where short ones are the same."""
    paths = [Path(run) for run in runs]
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
