"""Inception: torch-fidelity's features, whatever the batch; sFID's channels; clean-fid's resizer; and which weights."""

import io
import pickle
import urllib.error
from email.message import Message

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch.utils.data import TensorDataset
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_lab.errors import InputError
from gan_lab.metrics import frechet_distance, inception_score, kernel_distance
from gan_lab.metrics.features import WeightsUnavailable
from gan_lab.metrics.features.inception import WEIGHTS, Inception
from tests.helpers.sources import textures

CPU = torch.device("cpu")


class Images(TensorDataset):
    """As torch-fidelity takes them."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0]


@pytest.fixture(scope="module")
def inception(inception_file):
    made = Inception(weights=str(inception_file))
    made.load(CPU)
    return made


def reference(real, fake, weights, **options):
    return calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        batch_size=8,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        **options,
    )


def test_agrees_with_torch_fidelity_in_the_first_layers(inception, inception_file):
    real, fake = textures(20, 0), textures(24, 1, contrast=0.7)
    options = {"kid": True, "kid_subset_size": 16, "kid_subsets": 10, "feature_layer_kid": "64"}
    theirs = reference(real, fake, inception_file, fid=True, feature_layer_fid="64", **options)
    sets = [inception(images, ["features64"])["features64"] for images in (real, fake)]
    distance = frechet_distance(*sets, allow_singular=True).item()
    kernel, _ = kernel_distance(*sets, subset_size=16, subsets=10)
    assert distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert kernel.item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_agrees_with_torch_fidelity_in_all_layers(inception, inception_file):
    real, fake = textures(60, 0), textures(80, 1, contrast=0.7)
    theirs = reference(real, fake, inception_file, fid=True, isc=True, kid=True, kid_subset_size=50)
    ours = [inception(images, ["features", "logits"]) for images in (real, fake)]
    features = [found["features"] for found in ours]
    distance = frechet_distance(*features, allow_singular=True).item()
    mean, deviation = inception_score(ours[1]["logits"])
    kernel, _ = kernel_distance(*features, subset_size=50)
    assert distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert mean.item() == pytest.approx(theirs["inception_score_mean"], rel=1e-3)
    assert deviation.item() == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert kernel.item() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert mean > 1.1, "the random weights tell nothing apart, so agreement would mean nothing"


def test_every_output_has_its_width_and_the_layers_are_torch_fidelitys(inception, inception_file):
    images = textures(3, 0)
    found = inception(images, list(inception.outputs))
    assert {name: values.shape[1] for name, values in found.items()} == dict(inception.outputs)
    layers = ["64", "192", "768", "2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3(
        "x", layers, feature_extractor_weights_path=str(inception_file)
    )
    spatial = []
    # mixed_6/conv of the graph is this branch, by torch-fidelity's own table of names
    theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *call: spatial.append(call[2].clone()))
    with torch.no_grad():
        expected = theirs(images)
    ours = ["features64", "features192", "features768", "features", "logits"]
    for name, values in zip(ours, expected, strict=True):
        scale = values.abs().max().item()
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-4 * scale)
    assert spatial[0].shape == (3, 192, 17, 17) and (spatial[0] >= 0).all(), "after its ReLU"
    expected = spatial[0][:, :7].flatten(1)
    scale = expected.max().item()
    torch.testing.assert_close(found["spatial"], expected, rtol=1e-4, atol=1e-4 * scale)


def test_features_depend_on_neither_batches_nor_precision_and_gray_is_repeated(inception_file):
    gray = textures(5, 0, channels=1)
    one, many = (Inception(weights=str(inception_file), batch_size=size) for size in (2, 5))
    for extractor in (one, many):
        extractor.load(CPU)
    features = one(gray, ["features64"])["features64"]
    with torch.autocast("cpu", torch.bfloat16):
        again = many(gray.repeat(1, 3, 1, 1), ["features64"])["features64"]
    assert features.shape == (5, 64) and again.dtype == torch.float32
    torch.testing.assert_close(features, again)
    # within one size of forward passes, what stands beside an image changes no bit of its features
    assert torch.equal(one(gray[3:4], ["features64"])["features64"], features[3:4])


@pytest.mark.parametrize("size", [(32, 32), (64, 40), (400, 350)])
def test_the_clean_resizer_is_that_of_clean_fid(size):
    # black and white
    images = (
        255 * torch.randint(2, (1, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    )
    ours = Inception(resizer="clean")._resized(images)
    theirs = build_resizer("clean")(images[0].permute(1, 2, 0).numpy())
    assert np.abs(ours[0].permute(1, 2, 0).numpy() - theirs).max() < 0.02
    assert ours.min() == 0 and ours.max() == 255, "there is overshoot, and it is cut off"


def test_resizers_differ_and_are_recorded(inception, inception_file):
    clean = Inception(resizer="clean", weights=str(inception_file))
    clean.load(CPU)
    images = textures(2, 0)
    pair = [extractor(images, ["features64"])["features64"] for extractor in (inception, clean)]
    assert not torch.allclose(*pair, rtol=1e-3)
    assert "TensorFlow 1 bilinear" in inception.transform and "bicubic" in clean.transform
    with pytest.raises(InputError, match="choose tensorflow or clean"):
        Inception(resizer="lanczos")  # type: ignore[arg-type]


def test_mixed_precision_is_another_precision(inception, inception_file):
    half = Inception(weights=str(inception_file), mixed_precision=True)
    half.load(CPU)
    images = textures(2, 0)
    one, other = (e(images, ["features64"])["features64"] for e in (inception, half))
    assert (one - other).abs().max() > 1e-5 and torch.allclose(one, other, rtol=0.1, atol=0.05)
    assert (inception.precision, half.precision) == ("float32", "bfloat16") and not half.names


def test_weights_that_make_nan_are_rejected(inception_state, tmp_path):
    name = "Conv2d_1a_3x3.conv.weight"
    path = tmp_path / "nan.pth"
    torch.save(inception_state | {name: torch.full_like(inception_state[name], torch.nan)}, path)
    broken = Inception(weights=str(path))
    broken.load(CPU)
    with pytest.raises(InputError, match=r"NaN or infinity.*damaged"):
        broken(textures(2, 0), ["features64"])


def test_rgba_is_rejected(inception):
    with pytest.raises(InputError, match=r"photos are RGBA.*data\.channels=3"):
        inception.check((4, 8, 8), "photos")


# Weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty torch cache without network access; gives the path of the usual weights."""

    def unreachable(request):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return tmp_path / "torch" / "hub" / "checkpoints" / WEIGHTS.file_name


def test_missing_weights_name_the_remedy(offline):
    for ask in (lambda: Inception().load(CPU), Inception().prefetch):
        with pytest.raises(WeightsUnavailable) as caught:
            ask()
        for part in (WEIGHTS.url, str(offline), "features.weights=PATH", "service not known"):
            assert part in str(caught.value)


def test_a_damaged_download_is_not_kept(offline, monkeypatch):
    class Answer(io.BytesIO):
        def info(self):
            return Message()

    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Answer(b"<html>log in first</html>"))
    with pytest.raises(WeightsUnavailable, match=r"could not be downloaded.*hash"):
        Inception().load(CPU)
    assert {path.suffix for path in offline.parent.iterdir()} <= {".lock"}


@pytest.mark.parametrize("given", [True, False])
def test_the_usual_name_with_other_content_is_rejected(offline, inception_file, given):
    offline.parent.mkdir(parents=True)
    offline.write_bytes(inception_file.read_bytes())
    with pytest.raises(InputError, match=f"its name says {WEIGHTS.sha256}.*delete it"):
        Inception(weights=str(offline) if given else None).load(CPU)


def test_the_given_hash_is_checked(inception, inception_file):
    with pytest.raises(InputError, match=r"features\.sha256 says abc"):
        Inception(weights=str(inception_file), sha256="abc").load(CPU)
    right = Inception(weights=str(inception_file), sha256=inception.sha256)
    assert right.prefetch() == str(inception_file)
    with pytest.raises(InputError, match=r"features\.weights=/nowhere\.pth is not a file"):
        Inception(weights="/nowhere.pth").load(CPU)


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_hold_something_else_are_rejected_and_run_nothing(tmp_path):
    executed = tmp_path / "executed"
    content = {
        "pickle.pth": pickle.dumps(Exploit(executed), protocol=2),
        "text.pth": b"version https://git-lfs.github.com/spec/v1",
        "empty.pth": b"",
    }
    for name, value in content.items():
        (tmp_path / name).write_bytes(value)
    torch.save({"weights": Exploit(executed)}, tmp_path / "exploit.pth")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in (*content, "exploit.pth", "other.pth", "list.pth"):
        with pytest.raises(InputError, match=f"{name} is not a state dict of torch-fidelity's"):
            Inception(weights=str(tmp_path / name)).load(CPU)
    assert not executed.exists()
