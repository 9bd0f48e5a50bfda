"""A run over two hosts of which one is cut off: both end, and the resumed run equals an uninterrupted one.

The hosts are two network namespaces of this machine with a cable between them, and the processes what torchrun starts.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from tests.commands.conftest import entries
from tests.helpers.checkpoints import assert_same, final

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PATIENCE = 20  # seconds
RUN = (
    *("model=gan", "model.generator.width=8", "model.discriminator.width=4", "batch_size=16"),
    *("regularizer=[gradient_penalty]", "metrics=none", "data.image_size=8", "trainer=cpu"),
    *("~callbacks.samples", "~callbacks.evaluation", "trainer.num_nodes=2", "threads=1"),
    *("callbacks.checkpointing.every_kimg=0.08", f"rank_timeout={PATIENCE / 60}"),
)
WHOLE = "total_kimg=0.64"


def ip(*overrides: str) -> None:
    subprocess.run(["ip", *overrides], check=True, capture_output=True, text=True)


class Hosts:
    """Two hosts, 10.77.0.1 and 10.77.0.2.

    Args:
        names: of their namespaces.
    """

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        for name in names:
            ip("netns", "add", name)
        one, other = names
        ip(
            "link",
            "add",
            "eth0",
            "netns",
            one,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            other,
        )
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def cable(self, state: str) -> None:
        """Pull the second host's cable, "down", or plug it in, "up"."""
        ip("-n", self.names[1], "link", "set", "eth0", state)

    def start(self, folder: Path, *overrides: str) -> list[subprocess.Popen[str]]:
        """Start a training on both, with the run folder on a disk that both see."""
        started = []
        for rank, name in enumerate(self.names):
            environment = os.environ | {
                "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1",
                "GROUP_RANK": str(rank), "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29400",
                "TORCHELASTIC_RUN_ID": "test", "GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": str(ROOT),
            }  # fmt: skip
            command = [
                sys.executable,
                "-m",
                "gan_lab",
                "train",
                *RUN,
                f"runs_dir={folder}",
                *overrides,
            ]
            started.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *command],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if which("ip") is None:
        pytest.skip("needs ip, of iproute2")
    names = (f"gan_lab_{os.getpid()}_a", f"gan_lab_{os.getpid()}_b")
    try:
        yield Hosts(names)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this user may not make network namespaces: {error.stderr.strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def finished(both: list[subprocess.Popen[str]], status: int, seconds: float) -> list[str]:
    """Wait for both, and return what they wrote to stderr."""
    said = []
    end = time.monotonic() + seconds
    try:
        for process in both:
            out, err = process.communicate(timeout=max(1, end - time.monotonic()))
            assert process.returncode == status, out + err
            said.append(err)
    finally:
        for process in both:
            process.kill()
    return said


def test_a_host_that_is_cut_off_only_costs_time(hosts: Hosts, tmp_path: Path) -> None:
    finished(hosts.start(tmp_path, WHOLE, "name=straight"), 0, 600)
    both = hosts.start(tmp_path, "total_kimg=1000", "name=cut")
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists():
        assert all(process.poll() is None for process in both)
        time.sleep(0.05)
    hosts.cable("down")
    for rank, err in enumerate(finished(both, 2, 5 * PATIENCE + 120)):
        # c10d finds no names of addresses here, which it says by itself
        (line,) = [line for line in err.strip().splitlines() if not line.startswith("[W")]
        assert f"process {rank} of 2 has lost another one" in line
        assert f"goes on from {checkpoint}" in line
    clock = final(tmp_path / "cut")["clock"]
    assert isinstance(clock, dict) and 0 < clock["images_seen"] < 640
    hosts.cable("up")
    finished(hosts.start(tmp_path, WHOLE, "name=cut"), 0, 600)
    ours, theirs = final(tmp_path / "cut"), final(tmp_path / "straight")
    for part in ("state_dict", "optimizer_states", "clock"):
        assert_same(ours[part], theirs[part], part)
    assert entries(tmp_path / "cut") == entries(tmp_path / "straight")
