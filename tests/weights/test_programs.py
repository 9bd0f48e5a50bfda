"""Programs of torch.export and ONNX give the generator's images."""

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.sampling.gan import Gan
from gan_lab.weights import programs
from gan_lab.weights.exported import PROGRAMS
from gan_lab.weights.programs import largest_difference, run_onnx, run_torch, write_program
from tests.helpers.generators import TINY, gan_of

FAST = [("dcgan", "torch", 3), ("gat", "torch", 0)]
SLOW = [
    pytest.param(model, kind, classes, marks=pytest.mark.slow)
    for model in TINY
    for kind in ("torch", "onnx")
    for classes in (0, 3)
    if (model, kind, classes) not in FAST
]


@pytest.mark.parametrize(("model", "kind", "classes"), [*FAST, *SLOW])
def test_the_same_images(model: str, kind: str, classes: int, tmp_path: Path) -> None:
    gan = gan_of(model, classes=classes)
    made = write_program(kind, gan, tmp_path)
    assert made["largest_difference"] < 1e-4
    assert set(made["inputs"]) == {
        "z",
        *(["labels"] if classes else []),
        *(["truncation"] if gan.has_styles else []),
    }
    # inputs of another kind than those that the export itself compares
    run = {"torch": run_torch, "onnx": run_onnx}[kind](tmp_path / made["file"])
    z = gan.latents(7, seed=11, space="z").values
    inputs = {"z": z}
    labels = None
    if classes:
        labels = inputs["labels"] = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    if gan.has_styles:
        inputs["truncation"] = torch.tensor(0.3)
    truncation = 0.3 if gan.has_styles else None
    expected = gan.sample(7, seed=11, labels=labels, truncation=truncation) * 1
    assert expected.std() > 0.01
    torch.testing.assert_close(run(inputs), expected, atol=1e-4, rtol=0)


def test_inputs_and_outputs_of_onnx_have_names(styled: Path) -> None:
    session = onnxruntime.InferenceSession(styled / "generator.onnx")
    assert [value.name for value in session.get_inputs()] == ["z", "labels", "truncation"]
    (images,) = session.get_outputs()
    assert images.name == "images" and images.shape[1:] == [1, 8, 8]
    assert isinstance(images.shape[0], str), "any number of images"


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_programs_of_the_command_make_the_run_s_images(kind: str, styled: Path) -> None:
    gan = gan_of("stylegan2")
    run = {"torch": run_torch, "onnx": run_onnx}[kind](styled / PROGRAMS[kind])
    z = gan.latents(7, seed=11, space="z").values
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    images = run({"z": z, "labels": labels, "truncation": torch.tensor(0.3)})
    expected = gan.sample(7, seed=11, labels=labels, truncation=0.3) * 1
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


class Unlike(GeneratorNetwork):
    """A generator that makes other images each time it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 4, 0
        self.weight = nn.Parameter(torch.ones(4))
        self.calls = 0

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        return (z * self.weight * self.calls)[:, None, None, :]


class Untraceable(Unlike):
    """A generator whose control flow depends on its inputs."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z[:, None, None, :] if z.sum() > 0 else -z[:, None, None, :]


def test_a_program_with_different_images_is_deleted(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"generator.pt2 differ .* by up to .*; the file was deleted"
    ):
        write_program("torch", Gan(Unlike().requires_grad_(False)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_untraceable_generators_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch\.export cannot trace Untraceable"):
        write_program("torch", Gan(Untraceable().requires_grad_(False)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_comparison_sees_labels_and_truncation() -> None:
    gan = gan_of("stylegan2")
    program = programs.GeneratorProgram(gan.generator).eval()

    def as_program(inputs: programs.Inputs) -> Tensor:
        with torch.no_grad():
            return program(**inputs)

    assert largest_difference(as_program, gan) < 1e-5
    one = torch.tensor(1.0)
    assert largest_difference(lambda i: as_program(i | {"truncation": one}), gan) > 1e-3
    assert largest_difference(lambda i: as_program(i | {"labels": 0 * i["labels"]}), gan) > 1e-3
    assert largest_difference(lambda i: as_program(i)[:1], gan) == float("inf")
    assert largest_difference(lambda i: as_program(i) * float("nan"), gan) == float("inf")


def test_without_onnxruntime_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(
        InputError, match=r"needs onnxruntime.*pip install 'gan-laboratory\[onnx\]'"
    ):
        programs.onnx_packages()


def test_truncation_leaves_the_finest_layers_alone() -> None:
    gan = gan_of("stylegan")
    (inputs, *_) = list(programs.cases(gan))
    with torch.no_grad():
        made = programs.GeneratorProgram(gan.generator)(**inputs)
        w = gan.generator.mapping(inputs["z"], inputs["labels"], 0.7, 4)  # type: ignore[operator]
        expected = gan.generator.synthesis(w, noise="const")  # type: ignore[operator]
    torch.testing.assert_close(made, expected)
