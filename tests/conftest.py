"""What every test stands on: one thread, no network, and caches that end with the session."""

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.func import functional_call
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_lab.commands.launch import add_plus
from gan_lab.config import conf_dir, register_resolvers
from tests.helpers.once import Pickles, compose_once, shared_folder, transform_once

register_resolvers()

# what tests with a marker use of the system
PROGRAMS = {"slurm": "slurmctld", "browser": "chromium", "speech": "espeak-ng"}
LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def isolation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's caches and accounts out, here and in every process that a test starts."""
    root = shared_folder(tmp_path_factory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GAN_LAB_CACHE", str(root / "cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("WANDB_API_KEY", raising=False)
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            patch.delenv(name)  # the tests may run in a job
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        for kind in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{kind}_DIR", str(root / "wandb"))
        torch.set_num_threads(1)
        # after torch.export a first backward would start threads, with which no forked process can differentiate
        torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
        compose_once(patch, root / "composed")
        transform_once(patch)
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a connection that leaves the machine fail at once, by name."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        leaves = self.family in (socket.AF_INET, socket.AF_INET6)
        if leaves and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DictConfig]:
    """Compose a configuration as the command line does: `compose("model=gan", "batch_size=8", root="train")`."""

    kept = Pickles(shared_folder(tmp_path_factory) / "composed")

    def once(overrides: tuple[str, ...], root: str) -> DictConfig:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra_compose(root, overrides=add_plus(list(overrides)))

    def composed(*overrides: str, root: str = "train") -> DictConfig:
        # ${run_name:} asks Hydra for the command line, which there is none of
        options = ("name=test", *overrides) if root == "train" else overrides
        found = kept.get(("compose", root, *options), lambda: once(options, root))
        config: DictConfig = pickle.loads(found)
        return config

    return composed


@pytest.fixture(scope="session")
def inception_state() -> dict[str, Tensor]:
    """Random weights for torch-fidelity's Inception whose activations neither vanish nor explode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *args, **kwargs: {}
        )
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the mean over the batches that follow
        network.train()
        with torch.no_grad():
            network(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8))
            network.fc.weight.normal_(std=0.1)
    return network.state_dict()


@pytest.fixture(scope="session")
def inception_file(
    inception_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A file of them in the format of the published one."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception_state, path)
    return path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, unless it was requested by GAN_LAB_REQUIRE=slurm,browser."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    required = os.environ.get("GAN_LAB_REQUIRE", "").split(",")
    for marker, program in PROGRAMS.items():
        present = which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if item.get_closest_marker(marker) and not present and marker not in required:
            pytest.skip(f"needs {program}")


@pytest.fixture
def check_gradients() -> Callable[..., None]:
    def check(module: nn.Module, *inputs: Tensor, **settings: object) -> None:
        """Compare first and second derivatives by `inputs` and by all parameters with finite differences."""
        module = module.double()
        names, parameters = (
            zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())
        )
        count = len(inputs)

        def function(*values: Tensor) -> Tensor:
            state = dict(zip(names, values[count:], strict=True))
            return functional_call(module, state, values[:count], settings)

        values = [v.detach().double().requires_grad_() for v in (*inputs, *parameters)]
        assert torch.autograd.gradcheck(function, values)
        assert torch.autograd.gradgradcheck(function, values)

    return check
