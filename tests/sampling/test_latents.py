"""Latents in files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gan_lab.errors import InputError
from gan_lab.sampling.latents import Latents
from tests.sampling.conftest import big_gan, style_gan2


@pytest.mark.parametrize(
    "labels", [None, torch.tensor([2, 0]), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])]
)
def test_they_come_back(labels: torch.Tensor | None, tmp_path: Path) -> None:
    gan = style_gan2(classes=0 if labels is None else 3)
    w = gan.latents(2, labels=labels).values
    metadata = {"kind": "test", "model": "stylegan2", "seed": "0"}
    path = Latents(w=w, labels=labels, metadata=metadata).save(tmp_path / "new" / "a.safetensors")
    read = gan.read_latents(path)
    assert torch.equal(read.w, w) and dict(read.metadata) == metadata  # type: ignore[arg-type]
    assert (read.labels is None) if labels is None else torch.equal(read.labels, labels)  # type: ignore[arg-type]
    again = read.save(tmp_path / "b.safetensors")
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    assert len(read[1:]) == 1 and torch.equal(read[1:].values, w[1:])


def test_what_does_not_fit(tmp_path: Path) -> None:
    gan = style_gan2()
    path = tmp_path / "a.safetensors"

    def rejects(message: str, **tensors: torch.Tensor) -> None:
        save_file(tensors, path)
        with pytest.raises(InputError, match=message):
            gan.read_latents(path)

    z, w = torch.zeros(2, 8), torch.zeros(2, 8, 8)
    rejects("holds x; latents are one tensor z or w", x=z)
    rejects("holds w, z; latents are one tensor", z=z, w=w)
    rejects(r"z has shape \[2, 9\], the generator takes \[N, 8\]", z=torch.zeros(2, 9))
    rejects(r"z has shape \(8,\); it must be \[N, Z\]", z=torch.zeros(8))
    rejects(r"w has shape \[2, 5, 8\], the generator takes \[N, 8, 8\]", w=torch.zeros(2, 5, 8))
    rejects("2 latents have 3 labels", z=z, labels=torch.zeros(3, dtype=torch.int64))
    rejects("class 7 is out of range", z=z, labels=torch.tensor([0, 7]))
    rejects("there are no labels, and the generator has 3 classes", z=z)
    rejects("must be finite", w=w / 0)
    rejects("z is torch.int64", z=z.long())
    rejects("z is torch.complex64", z=z.to(torch.complex64))
    rejects(r"labels is torch.int64 of shape \[\]", z=z, labels=torch.tensor(1))
    rejects(r"labels is torch.complex64", z=z, labels=torch.zeros(2, dtype=torch.complex64))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        Latents.read(path)
    with pytest.raises(InputError, match="does not exist"):
        Latents.read(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        Latents(z=z).save(tmp_path / "a.pt")
    with pytest.raises(InputError, match="biggan has no styles"):
        big_gan().check_latents(Latents(w=w))
    with pytest.raises(InputError, match="give one of them"):
        Latents(z=z, w=w)
