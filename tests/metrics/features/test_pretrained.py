"""CLIP, DINOv2 and VGG16 with random weights in the published layouts, against torch-fidelity's extractors."""

import hashlib
import warnings

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from gan_lab.config import conf_dir
from gan_lab.errors import InputError
from gan_lab.metrics.features import WeightsUnavailable
from gan_lab.metrics.features.clip import CLIP, MODEL_URLS, MODELS
from gan_lab.metrics.features.dinov2 import MODELS as DINOV2_MODELS
from gan_lab.metrics.features.dinov2 import DINOv2, VisionTransformer
from gan_lab.metrics.features.vgg16 import VGG16, WEIGHTS
from tests.helpers.dinov2 import dinov2_state
from tests.helpers.weights import save_vgg16

CPU = torch.device("cpu")


def images(num=3, *, channels=3, size=40):
    """Smooth colors and some noise, so that resizing matters and nothing saturates."""
    generator = torch.Generator().manual_seed(num)
    coarse = torch.rand(num, channels, 5, 5, generator=generator) * 200
    smooth = nn.functional.interpolate(coarse, (size, size + 6), mode="bicubic").clamp(0, 220)
    return (smooth + 30 * torch.rand(smooth.shape, generator=generator)).to(torch.uint8)


def loaded(extractor):
    extractor.load(CPU)
    return extractor


def rejected(extractor, match):
    with pytest.raises(InputError, match=match):
        extractor.load(CPU)


# VGG16 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory):
    return save_vgg16(tmp_path_factory.mktemp("vgg16") / "vgg16.pth")


def test_vgg16_is_torch_fidelitys(vgg16_file):
    shown = images()
    theirs = FeatureExtractorVGG16(
        "vgg16", ["fc2", "fc2_relu"], feature_extractor_weights_path=str(vgg16_file)
    )
    before, after = theirs(shown)
    ours = loaded(VGG16(weights=str(vgg16_file), batch_size=3))(shown, {"features", "features_fc2"})
    spread = after.std(0).mean()
    assert spread > 1e-3, "random weights that tell nothing apart would agree with anything"
    # sixteen layers in float32: another order of summation alone makes 1e-4
    assert (ours["features"] - after).abs().max() < 1e-3 * spread
    assert (ours["features_fc2"] - before).abs().max() < 1e-3 * spread


def test_vgg16_refuses_other_files(tmp_path):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    rejected(VGG16(weights=str(tmp_path / "other.pth")), r"VGG16's weights.*vgg16-397923af\.pth")
    torch.save({"weights": [1]}, tmp_path / "list.pth")
    rejected(VGG16(weights=str(tmp_path / "list.pth")), "holds more than tensors")
    (tmp_path / WEIGHTS.file_name).write_bytes(b"<html>")
    rejected(VGG16(weights=str(tmp_path / WEIGHTS.file_name)), "its name says 397923af")
    rejected(VGG16(weights="/nowhere.pth"), "is not a file")


# CLIP -----------------------------------------------------------------------------------------------------------------


class Published(nn.Module):
    """What is in OpenAI's archives besides the text encoder."""

    def __init__(self, **size):
        super().__init__()
        self.visual = CLIPVisual(**size).visual
        self.text_projection = nn.Parameter(torch.randn(8, size["embed_dim"]))

    def forward(self, x):
        return self.visual(x)


VIT = {
    "embed_dim": 512,
    "image_resolution": 224,
    "vision_layers": 2,
    "vision_width": 64,
    "vision_patch_size": 32,
}
RESNET = {
    "embed_dim": 1024,
    "image_resolution": 224,
    "vision_layers": (1, 1, 1, 1),
    "vision_width": 8,
    "vision_patch_size": None,
}


def clip_archive(path, **size):
    torch.manual_seed(0)
    module = Published(**size).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and "running" not in name:
                gain = 2.0 if value.ndim == 4 else 1.0  # or deep networks tell no images apart
                value.copy_((gain * value).half())  # as OpenAI's are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        side = size["image_resolution"]
        torch.jit.trace(module, torch.rand(1, 3, side, side), check_trace=False).save(str(path))
    return path


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return clip_archive(tmp_path_factory.mktemp("clip") / "vit.pt", **VIT)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("model", "size"), [("clip-vit-b-32", VIT), ("clip-rn50", RESNET)])
def test_clip_is_torch_fidelitys(tmp_path, model, size):
    path = clip_archive(tmp_path / "clip.pt", **size)
    shown = images()
    (theirs,) = FeatureExtractorCLIP(model, ["clip"], feature_extractor_weights_path=str(path))(
        shown
    )
    extractor = loaded(CLIP(model=model, weights=str(path), sha256=sha256(path), batch_size=3))
    ours = extractor(shown, {"features"})["features"]
    assert ours.shape == (3, extractor.outputs["features"])
    assert theirs.std(0).mean() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert extractor.sha256 == sha256(path)


def test_clip_reads_a_state_dict_and_does_not_depend_on_the_batch(clip_file, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.jit.load(str(clip_file)).state_dict()
    torch.save(dict(state), tmp_path / "state.pt")
    gray = images(5, channels=1)
    one, many = (
        loaded(CLIP(weights=str(tmp_path / "state.pt"), batch_size=size))(part, {"features"})
        for size, part in ((2, gray), (5, gray.repeat(1, 3, 1, 1)))
    )
    torch.testing.assert_close(one["features"], many["features"], rtol=1e-4, atol=1e-5)


def test_an_unknown_program_is_not_opened(clip_file, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: pytest.fail("was opened"))
    rejected(CLIP(weights=str(clip_file)), r"TorchScript.*set features\.sha256")
    rejected(CLIP(weights=str(clip_file), sha256="0" * 64), r"features\.sha256 says 0000")


def test_clip_of_another_size_is_rejected(clip_file, vgg16_file):
    other = CLIP(model="clip-vit-b-16", weights=str(clip_file), sha256=sha256(clip_file))
    other.load(CPU)  # of the same width and image size: only hash and name tell these two apart
    large = CLIP(model="clip-vit-l-14", weights=str(clip_file), sha256=sha256(clip_file))
    rejected(large, r"width and image size are \(512, 224\)")
    rejected(CLIP(weights=str(vgg16_file)), r"clip-vit-b-32's weights \(KeyError")
    with pytest.raises(InputError, match=r"features\.model=vit: choose one of clip-rn50"):
        CLIP(model="vit")


def test_clip_models_are_torch_fidelitys():
    assert MODELS.keys() == MODEL_URLS.keys()


# DINOv2 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dinov2_file(tmp_path):
    torch.save(dinov2_state(), tmp_path / "vits.pth")
    return tmp_path / "vits.pth"


class Reference(nn.Module):
    """The same network of torch's own layers; the scales of residuals are worked into the matrices before them."""

    def __init__(self, state):
        super().__init__()
        self.state = state
        width = state["norm.weight"].numel()
        depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
        self.layers = nn.ModuleList()
        for i in range(depth):
            at = f"blocks.{i}."
            layer = nn.TransformerEncoderLayer(
                width,
                width // 64,
                len(state[f"{at}mlp.fc1.bias"]),
                activation="gelu",
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            first, second = (state[f"{at}ls{j}.gamma"] for j in (1, 2))
            layer.load_state_dict(
                {
                    "self_attn.in_proj_weight": state[f"{at}attn.qkv.weight"],
                    "self_attn.in_proj_bias": state[f"{at}attn.qkv.bias"],
                    "self_attn.out_proj.weight": first[:, None] * state[f"{at}attn.proj.weight"],
                    "self_attn.out_proj.bias": first * state[f"{at}attn.proj.bias"],
                    "linear1.weight": state[f"{at}mlp.fc1.weight"],
                    "linear1.bias": state[f"{at}mlp.fc1.bias"],
                    "linear2.weight": second[:, None] * state[f"{at}mlp.fc2.weight"],
                    "linear2.bias": second * state[f"{at}mlp.fc2.bias"],
                    "norm1.weight": state[f"{at}norm1.weight"],
                    "norm1.bias": state[f"{at}norm1.bias"],
                    "norm2.weight": state[f"{at}norm2.weight"],
                    "norm2.bias": state[f"{at}norm2.bias"],
                }
            )
            self.layers.append(layer.eval())

    def forward(self, x):
        state, width = self.state, self.state["norm.weight"].numel()
        patches = nn.functional.unfold(x, 14, stride=14)  # [N, 588, 256]
        matrix = state["patch_embed.proj.weight"].flatten(1)
        tokens = (matrix @ patches).transpose(1, 2) + state["patch_embed.proj.bias"]
        positions = state["pos_embed"]
        square = positions[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
        square = nn.functional.interpolate(square, scale_factor=16.1 / 37, mode="bicubic")
        tokens = tokens + square.flatten(2).transpose(1, 2)
        first = (state["cls_token"] + positions[:, :1]).expand(len(x), 1, width)
        x = torch.cat([first, tokens], dim=1)
        for layer in self.layers:
            x = layer(x)
        weight, bias = state["norm.weight"], state["norm.bias"]
        return nn.functional.layer_norm(x, (width,), weight, bias, 1e-6)[:, 0]


def test_dinov2_is_torch_fidelitys_around_the_same_network(dinov2_file, monkeypatch):
    # torch-fidelity gets the network by running downloaded code
    reference = Reference(dinov2_state())
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: reference)
    shown = images()
    with torch.no_grad():
        (theirs,) = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])(shown)
    extractor = loaded(DINOv2(model="dinov2-vit-s-14", weights=str(dinov2_file), batch_size=3))
    ours = extractor(shown, {"features"})["features"]
    assert ours.shape == (3, 384) and theirs.std(0).mean() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# Every 64th feature that the published code (https://github.com/facebookresearch/dinov2 at b8931f7) makes with
# `dinov2_state`'s weights
PUBLISHED = {
    False: [
        [0.2323, -0.1277, 0.6617, -0.2728, -0.0224, 0.2386],
        [-0.2055, -0.0876, 0.7335, -0.5452, -0.7948, 0.2354],
    ],
    True: [
        [0.55, 0.6215, -0.772, -0.1712, 0.1216, -0.4593],
        [0.3423, 0.561, -0.7224, -0.1361, 0.2344, -0.4187],
    ],
}


@pytest.mark.parametrize("gated", [False, True])
def test_dinov2_is_the_published_network(gated):
    waves = torch.linspace(-2, 2, 2 * 3 * 224 * 224).view(2, 3, 224, 224).sin() * 2
    features = VisionTransformer.of(dinov2_state(gated=gated))(waves)
    torch.testing.assert_close(features[:, ::64], torch.tensor(PUBLISHED[gated]), rtol=0, atol=1e-4)


def test_positions_are_those_learned_where_the_grid_is_that_of_training():
    network = VisionTransformer.of(dinov2_state(grid=4))
    assert network.positions(4, 4) is network.pos_embed
    assert network.positions(8, 6).shape == (1, 49, 384)


def test_dinov2_of_another_size_or_kind_is_rejected(dinov2_file, tmp_path):
    rejected(DINOv2(weights=str(dinov2_file)), "features are 384 wide")
    torch.save({"pos_embed": torch.zeros(1, 5, 8)}, tmp_path / "other.pth")
    rejected(DINOv2(weights=str(tmp_path / "other.pth")), "dinov2-vit-l-14's weights")
    with pytest.raises(InputError, match=r"features\.model=large: choose one of dinov2-vit-s-14"):
        DINOv2(model="large")


# All ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "dinov2", "lpips", "vgg16"])
def test_what_is_missing_is_reported_with_its_address(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(request):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    extractor = instantiate(OmegaConf.load(conf_dir() / "features" / f"{name}.yaml"))
    for ask in (extractor.prefetch, lambda: extractor.load(CPU)):
        with pytest.raises(WeightsUnavailable, match=r"does not exist and could not be.*https://"):
            ask()


def test_hashes_are_whole():
    assert all(len(bytes.fromhex(sha)) == 32 for _, _, sha in DINOV2_MODELS.values())
