"""Any module is an extractor."""

import pytest
import torch
from torch import nn

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import Frechet, MetricContext
from gan_lab.metrics.features import ModuleFeatures
from gan_lab.metrics.features.classifiers import DigitsFeatures
from tests.helpers.sources import textures

CPU = torch.device("cpu")


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, images):
        return self.scale * images.mean((2, 3))


def made(**options):
    extractor = ModuleFeatures(name="means", module=Means(), outputs={"features": 3}, **options)
    extractor.load(CPU)
    return extractor


def test_the_module_sees_the_described_input():
    images = textures(5, 0)
    plain = made()(images, ["features"])["features"]
    torch.testing.assert_close(plain, 2 * (images.float() / 127.5 - 1).mean((2, 3)))
    normed = made(mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.4], image_size=8)
    images = images[:, :, :1, :1].expand(-1, -1, 32, 32)
    expected = 2 * ((images.float() / 255).mean((2, 3)) - torch.tensor([0.5, 0.4, 0.3]))
    torch.testing.assert_close(
        normed(images, ["features"])["features"],
        expected / torch.tensor([0.1, 0.2, 0.4]),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    assert "8x8" in normed.transform and "[0.5, 0.4, 0.3]" in normed.transform
    gray = made()(textures(2, 0, channels=1), ["features"])["features"]
    assert torch.equal(gray[:, 0], gray[:, 2])


def test_its_metrics_bear_its_name_and_its_weights_a_hash(tmp_path):
    extractor = made()
    context = MetricContext(
        extractor=extractor, num_fake=1000, num_real=2000, num_real_features=2000, all_real=True
    )
    assert Frechet().key(context) == "fd_means_1k_full"
    path = tmp_path / "weights.pt"
    torch.save({"scale": torch.tensor(3.0)}, path)
    loaded = made(weights=str(path))
    assert loaded.sha256 != extractor.sha256 and len(loaded.sha256) == 64
    assert loaded._module.scale == 3
    with pytest.raises(InputError, match=r"features\.sha256 says abc"):
        made(weights=str(path), sha256="abc")
    torch.save({"other": torch.tensor(3.0)}, path)
    with pytest.raises(InputError, match="not a state dict of means"):
        made(weights=str(path))
    with pytest.raises(InputError, match=r"outputs=.*mean and std together"):
        made(mean=[0.5, 0.5, 0.5])


def test_digits_have_features_and_classes():
    extractor = DigitsFeatures()
    extractor.load(CPU)
    found = extractor(textures(3, 0, channels=1, size=8), ["features", "logits"])
    assert {name: values.shape[1] for name, values in found.items()} == dict(extractor.outputs)
