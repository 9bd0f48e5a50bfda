import functools

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.digits import Digits


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """One cache for the session's tests, and none of the user's."""
    folder = tmp_path_factory.getbasetemp() / "metrics_cache"
    monkeypatch.setenv("GAN_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def datamodule():
    """Makes a datamodule of a dataset's partial."""
    return functools.partial(
        ImageDataModule, batch_size=8, d_steps=1, total_images=8, seed=0, num_workers=0
    )


@pytest.fixture(scope="session")
def digits_data(datamodule):
    return datamodule(dataset=functools.partial(Digits, image_size=16))


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
def inception_file(inception_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(inception_state, path)
    return path
