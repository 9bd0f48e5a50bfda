"""Path lengths: in closed form, and against torch-fidelity's with the same random weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch_fidelity import GenerativeModelModuleWrapper, calculate_metrics, sample_similarity_lpips

from gan_lab.data.images import image_spec
from gan_lab.errors import InputError
from gan_lab.layers.stylegan import StyleGeneratorNetwork
from gan_lab.metrics.feature_metrics import MetricContext
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.features import NoFeatures
from gan_lab.metrics.features.vgg16 import LPIPS, ImageDistance, linear_weights, read_vgg16
from gan_lab.metrics.generator_metrics import PerceptualPathLength, slerp, without_extremes
from gan_lab.metrics.sources import GanImages
from gan_lab.models.stylegan2 import Generator as StyleGAN2
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from gan_lab.seeding import derive_seed
from tests.helpers.features import compute_of_generator
from tests.helpers.linear import SIDE, Linear, LinearSynthesis
from tests.helpers.sources import FixedImages
from tests.helpers.weights import save_vgg16

CPU = torch.device("cpu")


class Squared(ImageDistance):
    """The sum of squared differences."""

    name = short = "squared"
    outputs = {"features": 1}  # noqa: RUF012
    transform = "none"

    def distance(self, a, b):
        return (a.double() - b.double()).square().flatten(1).sum(1)

    def _load(self, device):
        return "0" * 64

    def _forward(self, images, outputs):
        return {"features": images.flatten(1).double().sum(1, keepdim=True)}


class LinearInW(StyleGeneratorNetwork):
    """Images are a linear map of w = z."""

    level_ends = (1, 1)

    def __init__(self, *, z_dim=64):
        super().__init__(
            synthesis=LinearSynthesis(z_dim),
            z_dim=z_dim,
            w_dim=z_dim,
            num_ws=1,
            num_classes=0,
            mapping_layers=1,
            w_avg_beta=0.9,
        )

    def styles(self, z, labels=None, truncation=1.0):
        return truncation * z[:, None]


def measured(generator, metric, *, num=256, extractor=None, truncation=None):
    images = GanImages(Gan(generator.eval()), seed=3, truncation=truncation)
    (result,) = compute_of_generator(images, metric, num=num, extractor=extractor or Squared())
    return result


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_of_a_linear_generator_in_w(sampling):
    generator = LinearInW()
    metric = PerceptualPathLength(space="w", sampling=sampling, discard=0, epsilon=1e-3)
    result = measured(generator, metric, num=2000)
    assert result.key == f"path_squared_w_{sampling}_2k"
    # E |A (w1 - w0)|^2 = 2 |A|^2 at every place of a path
    expected = 2 * (generator.synthesis.matrix.weight / 8).square().sum().item()
    assert result.value == pytest.approx(expected, rel=0.02)
    assert abs(result.value - expected) < 4 * result.uncertainty
    half = measured(generator, metric, num=2000, truncation=0.5)
    assert half.value == pytest.approx(result.value / 4, rel=1e-3)


def test_of_a_linear_generator_in_z():
    generator = Linear(orthogonal=True)
    result = measured(generator, PerceptualPathLength(space="z", discard=0, epsilon=1e-3), num=100)
    gan = Gan(generator)
    a, b = (
        gan.latents(100, seed=derive_seed(3, stream), space="z").values.double()
        for stream in (3, 4)
    )
    lengths = a.norm(dim=1), b.norm(dim=1)
    angle = ((a * b).sum(1) / lengths[0] / lengths[1]).acos()
    speed = (lengths[1] - lengths[0]) ** 2 + (lengths[0] * angle) ** 2
    assert result.value == pytest.approx(speed.mean().item() / 64, rel=2e-3)
    assert result.key == "path_squared_z_end_100"


def test_the_sphere_is_walked_at_an_even_pace():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    b = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    places = [slerp(a, b, torch.full((5,), t)) for t in torch.linspace(0, 1, 5)]
    torch.testing.assert_close(places[0], a)
    torch.testing.assert_close(places[-1], b)
    steps = torch.stack([(q - p).norm(dim=1) for p, q in pairwise(places)])
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))
    for place in places:
        torch.testing.assert_close(place.norm(dim=1), a.norm(dim=1))


def test_extremes_are_left_out_as_in_numpy():
    values = torch.arange(1000, dtype=torch.float64).flip(0)
    kept = without_extremes(values, 1)
    assert kept.min() == 9 and kept.max() == 990
    assert len(without_extremes(values, 0)) == 1000


def test_nothing_depends_on_batches_and_few_paths_are_the_first_of_many():
    generator, metric = Linear(), PerceptualPathLength(space="z", sampling="full", discard=0)
    few = measured(generator, metric, num=3)
    assert few.value == measured(generator, metric, num=3).value
    lone = PerceptualPathLength(space="z", sampling="full", discard=0, num_paths=3)
    assert measured(generator, lone, num=50).value == few.value


class MiddleOnly(Linear):
    """Only what lies in the crop changes with z."""

    def forward(self, z, labels=None):
        images = super().forward(z, labels)
        kept = torch.zeros(SIDE, SIDE)
        kept[3:7, 2:6] = 1
        return images * kept


def test_the_crop_is_the_middle_of_aligned_faces():
    whole, cropped = (
        measured(MiddleOnly(), PerceptualPathLength(space="z", crop=crop), num=16)
        for crop in (False, True)
    )
    assert cropped.value == pytest.approx(whole.value, rel=1e-5)
    assert cropped.key == "path_squared_z_end_crop_16"
    outside = measured(Linear(), PerceptualPathLength(space="z", crop=True), num=16)
    assert outside.value < 0.5 * measured(Linear(), PerceptualPathLength(space="z"), num=16).value


def test_a_style_generator_with_labels_and_half_precision_keeps_its_types():
    torch.manual_seed(0)
    generator = StyleGAN2(
        image_size=16,
        channels=3,
        num_classes=3,
        z_dim=8,
        w_dim=8,
        channel_base=64,
        channel_max=8,
        num_fp16_res=2,
        fp16_dtype="bfloat16",
    )
    types = [block.dtype for block in generator.synthesis.blocks]
    assert torch.bfloat16 in types
    in_w, in_z = (
        measured(generator, PerceptualPathLength(space=space, sampling="full"), num=32)
        for space in "wz"
    )
    assert in_w.value > 0 and in_z.value > 0
    assert [block.dtype for block in generator.synthesis.blocks] == types
    # differences over 1e-4 are those over 1e-2: nothing is lost to rounding
    coarse = measured(
        generator, PerceptualPathLength(space="w", epsilon=1e-2, sampling="end"), num=32
    )
    fine = measured(
        generator, PerceptualPathLength(space="w", epsilon=1e-4, sampling="end"), num=32
    )
    assert fine.value == pytest.approx(coarse.value, rel=0.05)


def test_what_it_cannot_measure():
    with pytest.raises(InputError, match="no styles w; set space=z"):
        measured(Linear(), PerceptualPathLength(space="w"))
    with pytest.raises(InputError, match="none has no features"):
        measured(Linear(), PerceptualPathLength(space="z"), extractor=NoFeatures())
    with pytest.raises(InputError, match="epsilon=0"):
        PerceptualPathLength(epsilon=0)
    with pytest.raises(InputError, match="space=x is z or w"):
        PerceptualPathLength(space="x")


# LPIPS ----------------------------------------------------------------------------------------------------------------


class Textures(Linear):
    """Colors that a normalized z decides."""

    def __init__(self):
        super().__init__(z_dim=16)
        self.matrix = nn.Linear(16, 3 * 64)

    def synthesis(self, w, noise="const"):
        z = w[:, 0] / w[:, 0].norm(dim=1, keepdim=True)
        coarse = torch.tanh(3 * self.matrix(z)).view(-1, 3, 8, 8)
        return nn.functional.interpolate(coarse, (64, 64), mode="bicubic")


class InBytes(nn.Module):
    """Images as torch-fidelity takes them."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, z):
        return (self.generator(z) + 1) * 127.5


class Given(Gan):
    """Draws the latents that torch-fidelity draws."""

    def latents(self, num_images, *, seed=0, start=0, **settings):
        random = np.random.RandomState(2020)
        ends = [normalize(torch.from_numpy(random.rand(12, 16)).float()) for _ in range(2)]
        stream = [derive_seed(3, 3), derive_seed(3, 4)].index(seed) if seed != 3 else 0
        return Latents(z=ends[stream][start : start + num_images])


def test_agrees_with_torch_fidelity(tmp_path, monkeypatch):
    weights = save_vgg16(tmp_path / "vgg16.pth")
    state = torch.load(linear_weights(None), map_location="cpu", weights_only=True)
    monkeypatch.setattr(
        sample_similarity_lpips, "load_state_dict_from_url", lambda *args, **kwargs: state
    )
    monkeypatch.setattr(
        sample_similarity_lpips, "torchvision_load_pretrained_vgg16", lambda: read_vgg16(weights)
    )
    generator = Textures().eval()
    theirs = calculate_metrics(
        input1=GenerativeModelModuleWrapper(InBytes(generator), 16, "unit", 0),
        input1_model_z_type="unit",
        input1_model_num_samples=12,
        ppl=True,
        ppl_epsilon=1e-2,
        ppl_z_interp_mode="slerp_unit",
        ppl_sample_similarity_dtype="float32",
        ppl_discard_percentile_lower=None,
        ppl_discard_percentile_higher=None,
        cuda=False,
        verbose=False,
        batch_size=4,
    )
    extractor = LPIPS(weights=str(weights))
    extractor.load(CPU)
    spec = image_spec(channels=3, image_size=(8, 8))
    images = GanImages(Given(generator, spec=spec), seed=3)
    context = MetricContext(
        extractor=extractor,
        num_fake=12,
        num_real=0,
        num_real_features=0,
        all_real=False,
        fake=images,
    )
    empty = FeatureSet(
        source=images, count=12, whole=False, features={}, rows=torch.arange(12), labels=None
    )
    metric = PerceptualPathLength(space="z", epsilon=1e-2, discard=0)
    (result,) = metric.compute(None, empty, context)
    assert result.key == "ppl_z_end_12"
    assert theirs["perceptual_path_length_std"] > 0.01 * theirs["perceptual_path_length_mean"]
    assert result.value == pytest.approx(theirs["perceptual_path_length_mean"], rel=1e-3)


def test_files_have_no_path_length():
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    context = MetricContext(
        extractor=Squared(),
        num_fake=4,
        num_real=0,
        num_real_features=0,
        all_real=False,
        fake=FixedImages(pixels),
    )
    with pytest.raises(InputError, match="needs a generator"):
        PerceptualPathLength(space="z").check(context)
