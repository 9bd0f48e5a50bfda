"""Generators as programs without Python source (torch.export, ONNX), each verified after writing."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError, import_extra
from gan_lab.layers.networks import samples_made
from gan_lab.run import naming, replacing
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from gan_lab.weights.exported import PROGRAMS

TOLERANCE = 1e-4  # largest allowed difference of a pixel, for images in [-1, 1]

Inputs = dict[str, Tensor]

Program = Callable[[Inputs], Tensor]


class GeneratorProgram(nn.Module):
    """The module that is exported: `(z, labels, truncation) -> images`, with constant noise.

    Args:
        generator: in evaluation mode.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, z: Tensor, labels: Tensor | None = None, truncation: Tensor | None = None
    ) -> Tensor:
        """Map latents [N, Z], labels [N] and psi (a scalar, for generators with styles) to images [N, C, H, W]."""
        generator = cast(Any, self.generator)
        if truncation is None:
            return samples_made(generator(z, labels))
        styles = generator.styles(z, labels)
        # layers without truncation have the style itself as center
        center = generator.styles(z, labels, 0.0)
        return generator.synthesis(torch.lerp(center, styles, truncation), noise="const")


def write_program(kind: str, gan: Gan, folder: Path) -> dict[str, Any]:
    """Write a program, run it, and check that its images are the generator's.

    Args:
        kind: "torch" or "onnx".
        gan: on the CPU.
        folder: for the file.

    Returns:
        The file's name, its inputs, and the largest difference found.

    Raises:
        InputError: when a package is missing, the generator cannot be converted, or images differ; the
            file is deleted then.
    """
    if gan.generator.translates:
        raise InputError(
            f"format={kind}: programs do not support sources, which {gan.kind} needs; leave {kind} out of format="
        )
    path = folder / PROGRAMS[kind]
    write, run = {"torch": (write_torch, run_torch), "onnx": (write_onnx, run_onnx)}[kind]
    inputs = next(cases(gan))
    try:
        write(trace(gan, inputs, kind), path)
        difference = largest_difference(run(path), gan)
    except Exception:
        remove(path)
        raise
    if not difference < TOLERANCE:
        remove(path)
        raise InputError(
            f"format={kind}: images of {path.name} differ from the generator's by up to {difference:.2g}, more than "
            f"{TOLERANCE:g}; the file was deleted. Leave {kind} out of format="
        )
    return {
        "file": path.name,
        "inputs": {name: signature(value) for name, value in inputs.items()},
        "largest_difference": difference,
    }


def signature(value: Tensor) -> dict[str, Any]:
    """Return an input's type and shape, with a dynamic batch size."""
    shape = ["images", *value.shape[1:]] if value.ndim else []
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": shape}


def trace(gan: Gan, inputs: Inputs, kind: str) -> torch.export.ExportedProgram:
    """Trace a generator with a dynamic batch size.

    Raises:
        InputError: when it cannot be traced.
    """
    batch = torch.export.Dim("batch")
    shapes: dict[str, Any] = {
        name: {0: batch} if value.ndim else {} for name, value in inputs.items()
    }
    try:
        with torch.no_grad():
            return torch.export.export(
                GeneratorProgram(gan.generator).eval(), (), kwargs=inputs, dynamic_shapes=shapes
            )
    except Exception as error:  # torch.export raises errors of many types
        raise InputError(
            f"format={kind}: torch.export cannot trace {type(gan.generator).__qualname__} ({error}); "
            f"leave {kind} out of format="
        ) from error


def write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program for `torch.export.load`."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)


def run_torch(path: Path) -> Program:
    """Load a program with torch.export."""
    module = torch.export.load(path).module()
    return lambda inputs: module(**inputs)


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program as ONNX, https://onnx.ai; weights beyond 2 GB go into a second file.

    Raises:
        InputError: when it cannot be expressed in ONNX, or packages are missing.
    """
    onnx_packages()
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # otherwise prints pages of optimizer logs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, output_names=["images"], optimize=True
            )
        assert made is not None
        # no temporary name, since the file refers to the second one by name; the folder is replaced as a whole
        with naming(path):
            made.save(path)
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"format=onnx: the generator cannot be expressed ({error}); leave onnx out of format="
        ) from error
    finally:
        logging.disable(quiet)


def run_onnx(path: Path) -> Program:
    """Load a program with onnxruntime."""
    runtime = onnx_packages()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        (images,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(images)

    return run


def onnx_packages() -> Any:
    """Import onnxruntime; it and the packages that write ONNX are optional.

    Raises:
        InputError: naming what to install.
    """
    for package in ("onnx", "onnxscript"):
        import_extra(package, extra="onnx", what="format=onnx")
    return import_extra("onnxruntime", extra="onnx", what="format=onnx")


def cases(gan: Gan) -> Iterator[Inputs]:
    """Yield inputs with several batch sizes, seeds, labels and truncations."""
    psis = (0.7, 1.0, 0.0, -0.5)
    for seed, (count, psi) in enumerate(zip((3, 1, 16, 5), psis, strict=True)):
        inputs = {"z": gan.latents(count, seed=seed, space="z").values}
        drawn = gan.labels(count, seed=seed)
        if drawn is not None and drawn.is_floating_point():
            inputs["labels"] = drawn
        elif gan.num_classes:
            inputs["labels"] = (torch.arange(count) * 7 + seed) % gan.num_classes
        if gan.has_styles:
            inputs["truncation"] = torch.tensor(psi)
        yield inputs


def largest_difference(program: Program, gan: Gan) -> float:
    """Return the largest difference between a program's images and the generator's; infinite if shapes differ."""
    largest = 0.0
    for inputs in cases(gan):
        expected = expected_images(gan, inputs)
        images = program(inputs)
        if images.shape != expected.shape or not images.isfinite().all():
            return float("inf")
        largest = max(largest, float((images - expected).abs().max()))
    return largest


def expected_images(gan: Gan, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the generator's own images for a program's inputs."""
    psi = inputs.get("truncation")
    latents = Latents(z=inputs["z"], labels=inputs.get("labels"))
    return gan.synthesize(
        gan.as_latents(latents, truncation=None if psi is None else float(psi)),
        batch_size=len(latents),
    )


def remove(path: Path) -> None:
    """Delete a program and its second file."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
