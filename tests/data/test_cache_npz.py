"""Headers of arrays that claim more than their files hold."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gan_lab.data.cache import read_arrays
from gan_lab.errors import InputError


def claim(path: Path, shape: tuple[int, ...], *, packed: bool = False) -> None:
    """Write an archive whose array `rows` claims a shape, and holds 100 bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("rows.npy", header.getvalue() + bytes(100))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "shape", [(10**12,), (10**12, 2048), (26,), (10**9, 0), (1, 10**15), (2**62, 4)]
)
def test_what_a_file_cannot_hold_is_not_made(
    shape: tuple[int, ...], packed: bool, tmp_path: Path
) -> None:
    claim(tmp_path / "a.npz", shape, packed=packed)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_arrays(tmp_path / "a.npz")


def test_files_are_read_completely(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 5))}
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for name in ("a", "b"):
        found = read_arrays(tmp_path / f"{name}.npz")
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[key], value) for key, value in arrays.items())


@pytest.mark.parametrize("content", [b"", b"PK", b"x" * 100])
def test_what_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a complete"):
        read_arrays(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="objects"):
        read_arrays(tmp_path / "b.npz")
