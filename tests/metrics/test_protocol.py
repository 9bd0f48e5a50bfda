"""Protocols as training uses them: required or warned of, real features cached, bad data rejected before step 0."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from gan_lab.config import build
from gan_lab.data.base import MemoryImages
from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import (
    ClassAccuracy,
    ClassFrechet,
    Frechet,
    InceptionScore,
    Kernel,
    PrecisionRecall,
)
from gan_lab.metrics.features import WeightsUnavailable
from gan_lab.metrics.features.inception import Inception
from gan_lab.metrics.functional import frechet_distance
from gan_lab.metrics.protocol import Protocol
from tests.helpers.sources import FixedImages, Projection, textures

CONF = Path(__file__).parents[2] / "conf"


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


def protocol(**options):
    chosen = {
        "name": "quick",
        "features": Projection(),
        "metrics": {
            "distance": Frechet(),
            "kernel": Kernel(subset_size=40),
            "score": InceptionScore(),
        },
        "num_fake": 80,
        "best": "distance",
        "device": "cpu",
    }
    return Protocol(**(chosen | options))


def prepared(data, **options):
    made = protocol(**options)
    made.prepare(data)
    return made


def test_one_pass_gives_all_metrics_with_their_uncertainties(data_of, empty_cache):
    real, fake = textures(100, 0, size=8), textures(80, 1, contrast=0.6, size=8)
    metrics = prepared(data_of(real))
    looked = metrics.features.seen
    computed = metrics.compute(FixedImages(fake))
    assert set(computed) == {
        "fd_projection_80_full",
        "kd_projection_80_full",
        "kd_projection_80_full_se",
        "score_projection_80",
        "score_projection_80_std",
    }
    assert metrics.features.seen == looked + 80, "one pass for all three"
    sets = (Projection()(images, ["features"])["features"] for images in (real, fake))
    assert computed["fd_projection_80_full"] == pytest.approx(frechet_distance(*sets).item())
    assert metrics.best == "fd_projection_80_full" and metrics.mode == "min"
    assert metrics.provenance["real"] == "train split of MemoryImages, 100 images"
    assert (metrics.provenance["num_images"], metrics.provenance["transform"]) == (80, "pixels")


def test_the_same_images_are_at_no_distance_in_any_batches(data_of):
    images = textures(80, 0, size=8)
    for batch_size in (7, 80):
        metrics = prepared(data_of(images), batch_size=batch_size).compute(FixedImages(images))
        assert metrics["fd_projection_80_full"] == pytest.approx(0, abs=1e-6)


def test_mirror_images_are_real_images_only_when_requested(data_of):
    images = textures(150, 0, size=8)
    plain, mirrored, fewer, flips = (
        prepared(data_of(images, flip=flip), **options)
        for flip, options in (
            (False, {}),
            (True, {}),
            (True, {"num_real": 120}),
            (True, {"flips": True}),
        )
    )
    for made in (plain, mirrored):
        torch.testing.assert_close(made.real.gaussian("features"), plain.real.gaussian("features"))
    assert (mirrored.real.count, fewer.real.count, flips.real.count) == (150, 120, 300)
    both = Projection()(torch.cat([images, images.flip(-1)]), ["features"])["features"]
    torch.testing.assert_close(flips.real.gaussian("features")[0], both.double().mean(0))
    with pytest.raises(InputError, match=r"set data\.flip=true"):
        prepared(data_of(images), flips=True)


def test_real_features_are_cached_and_a_damaged_entry_is_rebuilt(data_of, empty_cache, capsys):
    data, fakes = data_of(textures(90, 0, size=8)), FixedImages(textures(80, 1, size=8))
    first = prepared(data)
    assert "on 90 real images" in capsys.readouterr().out
    again = prepared(data)
    assert "looks at" not in capsys.readouterr().out and again.features.seen == 0
    assert again.compute(fakes) == first.compute(fakes)

    (file,) = empty_cache.glob("features/*/statistics-*.pt")
    file.write_bytes(file.read_bytes()[:-100])
    rebuilt = prepared(data)
    printed = " ".join(capsys.readouterr().out.split())
    assert "cannot be used" in printed and "on 90 real images" in printed
    assert rebuilt.compute(fakes) == first.compute(fakes)


def test_training_leaves_nothing_of_generated_images(data_of, empty_cache):
    metrics = prepared(data_of(textures(90, 0, size=8)))
    before = set(empty_cache.rglob("*"))
    metrics.compute(FixedImages(textures(80, 1, size=8)))
    assert set(empty_cache.rglob("*")) == before


class NoWeights(Projection):
    def load(self, device):
        if hasattr(self, "missing"):
            raise WeightsUnavailable("the weights are missing: get them")
        self.missing = True
        super().load(device)


def test_missing_weights_are_reported_before_the_run_which_goes_on_or_stops(data_of, capsys):
    data = data_of(textures(90, 0, size=8))
    metrics = protocol(features=NoWeights(), required=False)
    assert metrics.best == "fd_projection_80_full"
    metrics.prepare(data)
    printed = capsys.readouterr().out.replace("\n", "")
    assert (
        "warning: the weights are missing: get them. The run goes on without fd_projection"
        in printed
    )
    assert metrics.best is None and metrics.compute(FixedImages(textures(1, 0))) == {}
    with pytest.raises(WeightsUnavailable, match="get them"):
        prepared(data, features=NoWeights())


def test_the_key_of_the_best_is_known_before_the_data_are(data_of):
    whole, some = protocol(), protocol(num_real=85)
    assert (whole.best, some.best) == ("fd_projection_80_full", "fd_projection_80_real85")
    data = data_of(textures(90, 0, size=8))
    whole.prepare(data)
    some.prepare(data)
    assert (whole.best, some.best) == ("fd_projection_80_full", "fd_projection_80_real85")
    assert protocol(best=None).best is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_fake": 16}, "16 generated images for 16 features"),
        ({"metrics": {"kernel": Kernel()}, "best": None}, "subsets of 1000.*protocol=kid_small"),
        ({"num_real": 91}, "has 90 images, and protocol quick takes 91.*num_real=90"),
        ({"split": "val", "dataset": "gan_lab.data.builtin.Digits"}, "the data are MemoryImages"),
        ({"features": Projection(width=90), "num_fake": 91}, "90 real images for 90 features"),
    ],
)
def test_what_cannot_be_measured_is_rejected_before_anything_is_seen(data_of, options, message):
    metrics = protocol(**options)
    with pytest.raises(InputError, match=message):
        metrics.prepare(data_of(textures(90, 0, size=8)))
    assert metrics.features.seen == 0


def test_meaningless_metrics_are_rejected():
    with pytest.raises(InputError, match="best=fid must be one of its metrics"):
        protocol(best="fid")
    with pytest.raises(InputError, match="0 metrics"):
        protocol(metrics={"distance": None}, best=None)


def test_metrics_of_one_name_are_rejected():
    twice = {"kernel": Kernel(subset_size=40), "finer": Kernel(subset_size=10)}
    with pytest.raises(
        InputError, match=r"metrics.kernel and metrics.finer would both be called kd_"
    ):
        protocol(metrics=twice, best=None)
    with_key = {**twice, "finer": Kernel(subset_size=10, key="finer")}
    assert protocol(metrics=with_key, best="finer").best == "finer"


def test_the_worst_is_not_taken_for_the_best():
    with pytest.raises(
        InputError, match=r"best=score with mode=min would keep the worst.*mode=max"
    ):
        protocol(best="score")
    assert protocol(best="score", mode="max").mode == "max"
    with pytest.raises(InputError, match="mode=min"):
        protocol(mode="max")


def test_classes_of_generated_images_must_be_those_of_the_real(data_of):
    metrics = prepared(
        data_of(textures(90, 0, size=8)), metrics={"each": ClassFrechet()}, best=None
    )
    three = FixedImages(textures(3, 0, size=8), torch.tensor([0, 1, 2]))
    seen = metrics.features.seen
    with pytest.raises(InputError, match="2 classes and fixed images 3"):
        metrics.compute(three)
    assert metrics.features.seen == seen


def test_rgba_is_rejected_before_anything_is_seen(data_of):
    with pytest.raises(InputError, match=r"RGBA.*data\.channels=3"):
        prepared(data_of(textures(90, 0, channels=4, size=8)))


def test_the_reference_is_another_split_measured_as_if_it_were_generated(digits_data, capsys):
    metrics = protocol(
        metrics={
            "distance": Frechet(key="fd"),
            "accuracy": ClassAccuracy(),
            "pr": PrecisionRecall(),
        },
        num_fake=100,
        split="val",
        reference_split="train",
        features=Projection(logits=10),
    )
    metrics.prepare(digits_data)
    computed = metrics.compute(FixedImages(digits_data.train.__getitems__(range(1437)).real))
    assert 0 < computed["fd_real"] < computed["fd"]
    assert f"fd_real is {computed['fd_real']:.3f}" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "protocol").glob("*.yaml")))
def test_every_named_protocol_is_built_and_is_called_by_its_name(name):
    with initialize_config_dir(version_base=None, config_dir=str(CONF)):
        node = compose(overrides=[f"+protocol={name}"]).protocol
    made = build(node)
    assert made.name == name
    assert isinstance(made, Protocol)


@pytest.mark.parametrize(
    ("name", "best", "keys"),
    [
        ("fid50k_full", "fid50k_full", {"fid50k_full", "is50k"}),
        ("fid10k", "fid10k_full", {"fid10k_full", "is10k"}),
        ("clean_fid", "clean_fid50k_full", {"clean_fid50k_full"}),
        ("legacy_tf", "fid50k_full", {"fid50k_full"}),
        ("kid5k", "kid5k_full", {"kid5k_full"}),
        ("digits", "fd_digits", {"fd_digits", "accuracy_digits"}),
        ("stacked_digits", "kl_modes", {"kl_modes"}),
    ],
)
def test_named_protocols_give_their_metrics(name, best, keys):
    with initialize_config_dir(version_base=None, config_dir=str(CONF)):
        made = build(compose(overrides=[f"+protocol={name}"]).protocol)
    assert made.best == best
    assert {metric.key(made._context) for metric in made.metrics.values()} == keys


@pytest.mark.parametrize("real", [4, 300, 2100, 20_000])
@pytest.mark.parametrize("fake", [4, 300, 2100, 20_000])
@pytest.mark.parametrize("name", ["fid10k", "fid50k_full", "kid5k", "all10k", "kid_small"])
def test_advice_for_few_images_works_when_it_is_pasted(name, fake, real):
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    sources = {}
    for what, count in (("fake", fake), ("real", real)):
        sources[what] = FixedImages(pixels.expand(count, -1, -1, -1), endless=False)
    options = [f"protocol={name}"]
    for _ in range(4):
        with initialize_config_dir(version_base=None, config_dir=str(CONF)):
            made = build(compose(overrides=[f"+{options[0]}", *options[1:]]).protocol)
        try:
            made.check(**sources)
            break
        except InputError as error:
            advice = re.findall(r"protocol\S*=\w+", str(error))
            assert advice, error
            chosen = [word for word in advice if word.startswith("protocol=")]
            options = [
                *(chosen or options[:1]),
                *(options[1:] if not chosen else []),
                *advice[len(chosen) :],
            ]
    else:
        pytest.fail(f"{options} is rejected")


def test_the_whole_of_inception_goes_through_a_protocol(data_of, inception_file):
    real, fake = textures(12, 0), textures(9, 1, contrast=0.7)
    computed = {
        "fid": Frechet(output="features64", allow_singular=True),
        "kid": Kernel(output="features64", subset_size=5, subsets=3),
    }
    metrics = prepared(
        data_of(real),
        features=Inception(weights=str(inception_file)),
        metrics=computed,
        num_fake=9,
        best="fid",
    )
    found = metrics.compute(FixedImages(fake))
    extractor = Inception(weights=str(inception_file))
    extractor.load(torch.device("cpu"))
    sets = [extractor(images, ["features64"])["features64"] for images in (real, fake)]
    assert found["fd_inception64_9_full"] == pytest.approx(
        frechet_distance(*sets, allow_singular=True).item(), rel=1e-6
    )
    assert found.keys() >= {"kd_inception64_9_full", "kd_inception64_9_full_se"}
    assert functools.reduce(max, map(abs, found.values())) < 1e6
