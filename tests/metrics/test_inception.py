import functools
import io
import pickle
import urllib.error
from email.message import Message

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset
from torch_fidelity import calculate_metrics

from gan_lab.data.memory import MemoryImages
from gan_lab.errors import InputError
from gan_lab.images import to_float
from gan_lab.metrics import frechet_distance, inception, inception_score
from gan_lab.metrics.inception import FrechetFromFeatures, InceptionMetrics
from gan_lab.metrics.inception_network import (
    SHA256_PREFIX,
    URL_INCEPTION_V3,
    WEIGHTS_NAME,
    InceptionNetwork,
)

CPU = torch.device("cpu")


class Images(TensorDataset):
    """As torch-fidelity takes them."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0]


def textures(num: int, seed: int, *, channels: int = 3, size: int = 32, contrast: float = 1.0):
    """uint8 [num, channels, size, size]: waves of random direction, colour and brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    u, v, phase = rng.uniform(1, 6, (3, num, channels, 1, 1))
    waves = np.sin(2 * np.pi * (u * x + v * y + phase)) * rng.uniform(0.2, 1, (num, channels, 1, 1))
    return torch.from_numpy(np.rint(127.5 + 127.5 * contrast * waves).astype(np.uint8))


@pytest.fixture
def data_of(datamodule):
    """Makes a datamodule of images held in memory."""

    def make(images, *, flip=False):
        def dataset(*, split, flip=flip):
            return MemoryImages(
                pixels=images.permute(0, 2, 3, 1).numpy(),
                labels=np.arange(len(images)) % 2,
                class_names=["a", "b"],
                split=split,
                image_size=None,
                crop="none",
                resample="bicubic",
                channels=None,
                flip=flip,
            )

        return datamodule(dataset=dataset)

    return make


def generator(images, batch_size=33):
    def fakes(num):
        assert num == len(images)
        for part in images.split(batch_size):
            yield to_float(part), None

    return fakes


class RandomProjection:
    """Stands in for Inception, of which one image takes 0.2 s, in the tests of all that is around it."""

    def __init__(self, weights, *, width, logits, device, batch_size):
        self.device = device
        self._width = width

    def __call__(self, images):
        pixels = images.flatten(1).float() / 255
        generator = torch.Generator().manual_seed(0)
        return pixels @ torch.randn(pixels.shape[1], self._width, generator=generator), None


@pytest.fixture
def quick(early, monkeypatch):
    monkeypatch.setattr(inception, "InceptionNetwork", RandomProjection)
    return early


@pytest.fixture
def early(inception_file):
    """Makes metrics that look at Inception's first layers only, which takes 0.03 s an image."""
    return functools.partial(
        InceptionMetrics,
        num_images=80,
        width=64,
        with_score=False,
        inception_weights=str(inception_file),
        device="cpu",
    )


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


def test_agrees_with_torch_fidelity_in_the_first_layers(early, data_of, inception_file):
    real, fake = textures(70, 0), textures(66, 1, contrast=0.7)
    theirs = reference(real, fake, inception_file, fid=True, feature_layer_fid="64")
    metrics = early(num_images=66)
    metrics.prepare(data_of(real))
    figures = metrics.compute(generator(fake))
    assert set(figures) == {"fd_inception64_66"}
    assert figures["fd_inception64_66"] == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_agrees_with_torch_fidelity_in_all_layers(data_of, inception_file):
    real, fake = textures(60, 0), textures(80, 1, contrast=0.7)
    theirs = reference(real, fake, inception_file, fid=True, isc=True)
    network = InceptionNetwork(inception_file, width=2048, logits=True, device=CPU)
    (real_features, _), (fake_features, logits) = network(real), network(fake)
    distance = frechet_distance(real_features, fake_features, allow_singular=True).item()
    mean, deviation = inception_score(logits)
    assert distance == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert mean.item() == pytest.approx(theirs["inception_score_mean"], rel=1e-3)
    assert deviation.item() == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert mean > 1.1, "the random weights tell nothing apart, so agreement would mean nothing"

    metrics = InceptionMetrics(
        num_images=80, width=64, inception_weights=str(inception_file), device="cpu"
    )
    metrics.prepare(data_of(textures(65, 0)))
    figures = metrics.compute(generator(fake))
    assert figures["is80"] == pytest.approx(mean.item(), rel=1e-5)
    assert figures["is80_std"] == pytest.approx(deviation.item(), rel=1e-3)


def test_the_torchmetrics_class_is_the_pure_function_and_goes_on_from_its_statistics():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(200, 16, generator=generator) + 50 for _ in range(2))
    first, second = FrechetFromFeatures(width=16), FrechetFromFeatures(width=16)
    for part in real.split(60):
        first.update(part, real=True)
    second.set_real_statistics(first.real_statistics())
    for part in fake.split(70):
        second.update(part, real=False)
    expected = frechet_distance(real, fake).item()
    assert second.compute().item() == pytest.approx(expected, rel=1e-9)
    assert first.real_features_num_samples == 200


def test_the_same_images_are_at_no_distance_in_any_batches(quick, data_of):
    images = textures(80, 0)
    metrics = quick()
    metrics.prepare(data_of(images))
    for batch_size in (7, 80):
        figures = metrics.compute(generator(images, batch_size=batch_size))
        assert figures["fd_inception64_80"] == pytest.approx(0, abs=1e-6)


def test_features_depend_on_neither_batches_nor_precision_and_grey_is_repeated(inception_file):
    grey = textures(5, 0, channels=1)
    one, many = (
        InceptionNetwork(inception_file, width=64, logits=False, device=CPU, batch_size=size)
        for size in (2, 5)
    )
    features, logits = one(grey)
    assert features.shape == (5, 64) and logits is None
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = many(grey.repeat(1, 3, 1, 1))
    assert again.dtype == torch.float32
    torch.testing.assert_close(features, again)


def test_mirror_images_are_no_real_images_and_max_real_limits_them(quick, data_of):
    images = textures(150, 0)
    plain, mirrored, fewer = quick(), quick(), quick(max_real=120)
    for metrics, flip in ((plain, False), (mirrored, True), (fewer, True)):
        metrics.prepare(data_of(images, flip=flip))
    for name, value in plain._real.items():
        torch.testing.assert_close(mirrored._real[name], value)
    assert fewer._real["features_num_samples"] == 120
    assert fewer.protocol["real"] == "train, 120 stored images"


def test_real_statistics_are_cached_and_a_damaged_entry_is_rebuilt(
    quick, data_of, empty_cache, capsys
):
    images = textures(80, 0)
    metrics = quick()
    metrics.prepare(data_of(images))
    assert "looks at 80 real images" in capsys.readouterr().out

    again = quick()
    again.prepare(data_of(images))
    assert "looks at" not in capsys.readouterr().out
    assert again.compute(generator(images)) == metrics.compute(generator(images))

    (file,) = empty_cache.glob("inception-real-*.pt")
    file.write_bytes(file.read_bytes()[:-100])
    again.prepare(data_of(images))
    told = " ".join(capsys.readouterr().out.split())
    assert "cannot be used" in told and "looks at 80 real images" in told
    assert again.compute(generator(images)) == metrics.compute(generator(images))


def test_other_images_weights_or_layers_are_another_entry(
    quick, data_of, empty_cache, inception_state, tmp_path
):
    images = textures(200, 0)
    quick().prepare(data_of(images[:100]))
    quick().prepare(data_of(images[100:]))
    quick(max_real=90).prepare(data_of(images[:100]))
    quick(width=192, num_images=200).prepare(data_of(images))
    name = "Conv2d_1a_3x3.conv.weight"
    other = tmp_path / "other.pth"
    torch.save(inception_state | {name: 2 * inception_state[name]}, other)
    quick(inception_weights=str(other)).prepare(data_of(images[:100]))
    assert len(list(empty_cache.glob("inception-real-*.pt"))) == 5


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty torch cache and a network that cannot be reached; gives the path of the usual weights."""

    def unreachable(request):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    return tmp_path / "torch" / "hub" / "checkpoints" / WEIGHTS_NAME


def assert_names_the_remedy(message: str, usual) -> None:
    for part in (
        URL_INCEPTION_V3,
        str(usual),
        "inception_weights=PATH",
        "metrics=none",
        "service not known",
    ):
        assert part in message


def test_missing_weights_are_told_before_the_run_which_goes_on(offline, data_of, capsys):
    metrics = InceptionMetrics(num_images=3000, device="cpu")
    metrics.prepare(data_of(textures(2100, 0, size=4)))
    told = capsys.readouterr().out.replace("\n", "")
    assert_names_the_remedy(told, offline)
    assert "warning" in told and "goes on without fid3k and is3k" in told
    assert metrics.best is None
    assert metrics.compute(generator(textures(1, 0))) == {}


def test_missing_weights_stop_a_run_that_requires_them(offline, data_of):
    metrics = InceptionMetrics(required=True, device="cpu")
    with pytest.raises(InputError) as caught:
        metrics.prepare(data_of(textures(2100, 0, size=4)))
    assert_names_the_remedy(str(caught.value), offline)


def test_a_damaged_download_is_not_kept(offline, early, data_of, monkeypatch):
    class Answer(io.BytesIO):
        def info(self):
            return Message()

    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Answer(b"<html>log in first</html>"))
    metrics = early(inception_weights=None, required=True)
    with pytest.raises(InputError, match=r"could not be downloaded.*hash"):
        metrics.prepare(data_of(textures(100, 0)))
    assert {path.suffix for path in offline.parent.iterdir()} <= {".lock"}


@pytest.mark.parametrize("given", [True, False])
def test_the_usual_name_with_other_content_is_refused(
    offline, early, data_of, inception_file, given
):
    offline.parent.mkdir(parents=True)
    offline.write_bytes(inception_file.read_bytes())
    metrics = early(inception_weights=str(offline) if given else None)
    with pytest.raises(InputError, match=f"its name says {SHA256_PREFIX}.*delete it"):
        metrics.prepare(data_of(textures(100, 0)))


def test_the_given_hash_is_checked(quick, data_of):
    data = data_of(textures(100, 0))
    with pytest.raises(InputError, match=r"metrics\.inception_sha256 says abc"):
        quick(inception_sha256="abc").prepare(data)
    metrics = quick()
    metrics.prepare(data)
    quick(inception_sha256=str(metrics.protocol["extractor_sha256"])).prepare(data)


def test_a_path_to_nothing_is_refused_even_if_not_required(early, data_of):
    with pytest.raises(InputError, match=r"inception_weights=/nowhere\.pth is no file"):
        early(inception_weights="/nowhere.pth").prepare(data_of(textures(100, 0)))


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_hold_something_else_are_refused_and_run_nothing(early, data_of, tmp_path):
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
    data = data_of(textures(100, 0))
    for name in (*content, "exploit.pth", "other.pth", "list.pth"):
        with pytest.raises(InputError, match=f"{name} is no state dict of torch-fidelity's"):
            early(inception_weights=str(tmp_path / name)).prepare(data)
    assert not executed.exists()


def test_numbers_of_images_that_give_no_distance_are_refused(early, data_of):
    with pytest.raises(InputError, match="2048 generated images for 2048 features"):
        InceptionMetrics(num_images=2048)
    with pytest.raises(InputError, match="64 real images for 64 features"):
        early().prepare(data_of(textures(64, 0)))
    with pytest.raises(InputError, match="50 real images"):
        early(max_real=50).prepare(data_of(textures(100, 0)))
    with pytest.raises(InputError, match=r"metrics\.width=100"):
        early(width=100)


def test_rgba_and_other_ranges_are_refused(quick, data_of):
    with pytest.raises(InputError, match=r"RGBA.*data\.channels=3"):
        quick().prepare(data_of(textures(100, 0, channels=4)))
    metrics = quick()
    metrics.prepare(data_of(textures(100, 0)))
    with pytest.raises(InputError, match="expected \\[-1, 1\\]"):
        metrics.compute(lambda num: iter([(textures(num, 0).float(), None)]))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, "fid10k"),
        ({"num_images": 50_000}, "fid50k"),
        ({"num_images": 5500}, "fid5500"),
        ({"num_images": 5000, "width": 768}, "fd_inception768_5k"),
    ],
)
def test_the_key_carries_the_number_and_only_the_last_layer_is_fid(options, key):
    assert InceptionMetrics(**options).best == key
