"""gan-lab prepare-data: pack samples, images at one size, into one file."""

import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build, cache_dir
from gan_lab.console import progress_bar, say, warn
from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.datamodule import unmirrored
from gan_lab.data.encoded import UnreadableImage
from gan_lab.data.listing import format_names
from gan_lab.data.metadata import join_tables
from gan_lab.data.packing import Damaged, Encoded, Packer, WithPacked, disk_full
from gan_lab.data.sample import Representation
from gan_lab.data.source import reason_of
from gan_lab.data.text import Lines
from gan_lab.data.text_files import pack_lines
from gan_lab.errors import InputError, counted
from gan_lab.run import write

_SPLITS = {"all": ("train", "val"), "train": ("train",), "val": ("val",)}

Item = tuple[SampleDataset, int]  # and the number of a stored sample


def run(config: DictConfig) -> None:
    """Pack the configured images; resumes after a kill.

    Raises:
        InputError: for bad data or options, a finished zip in the way, or a full disk.
    """
    out = _destination(config.out, config.overwrite)
    datasets = _datasets(config)
    beside = _beside(config, datasets[0])
    lock = cache_dir() / "locks" / f"{digest(str(out.resolve()))}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            if isinstance(datasets[0], Lines):
                _pack_text(datasets, out)  # type: ignore[arg-type]
                return
            _pack(
                datasets,
                out,
                beside,
                num_threads=config.num_threads or os.cpu_count() or 1,
                skip_unreadable=bool(config.data.get("skip_unreadable", False)),
            )
    except Timeout:
        raise InputError(
            f"another prepare-data is writing {out}; wait for it, or set another out="
        ) from None
    except OSError as error:
        raise disk_full(error, out) or error from error


def _pack_text(datasets: list[Lines], out: Path) -> None:
    if out.suffix != ".npz":
        raise InputError(
            f"out={out}: lines of text are packed into an .npz; set out={out.with_suffix('.npz')}"
        )
    count, kind = pack_lines(datasets, out), datasets[0].text
    say(
        f"{out}: {count:,} lines of {kind.length} characters, an alphabet of {len(kind.alphabet)}, "
        f"{out.stat().st_size / 1e6:,.1f} MB; train on it with data=text data.root={out}"
    )


def _destination(out: str | None, overwrite: bool) -> Path:
    if not out:
        raise InputError("out is not set; set out=photos64.zip, the zip to write")
    path = Path(out).expanduser()
    if path.is_dir():
        raise InputError(f"out={path} is a folder; set out={path / 'images.zip'}")
    if path.exists() and not overwrite:
        raise InputError(f"out={path} exists; set overwrite=true to replace it, or another out=")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _datasets(config: DictConfig) -> list[SampleDataset]:
    """Open the requested splits."""
    node: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    wanted = {"image_size": config.size, "crop": config.crop, "resample": config.resample}
    for key, value in wanted.items():
        if value is not None:
            node[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    factory = build(node, Callable[..., SampleDataset])
    datasets = []
    for split in _SPLITS[config.split]:
        try:
            datasets.append(factory(split=split, **unmirrored(factory)))
        except MissingSplit:
            if config.split != "all":
                raise
    return datasets


def _beside(config: DictConfig, data: SampleDataset) -> Representation | None:
    """Return the representation whose values are packed beside the samples, if one is chosen.

    Raises:
        InputError: for one that has nothing to pack, or is not of such samples.
    """
    found: Representation | None = build(config.get("representation"), Representation | None)
    if found is None:
        return None
    if not found.pack_name:
        raise InputError(
            f"representation={type(found).__name__} is quick to compute and measured of the data; leave it out here, "
            "and set it for train"
        )
    found.check(data.spec)
    here = torch.accelerator.current_accelerator(check_available=True)
    return found.to(here or "cpu")


def _pack(
    datasets: list[SampleDataset],
    out: Path,
    beside: Representation | None,
    *,
    num_threads: int,
    skip_unreadable: bool,
) -> None:
    packed_by = beside.pack_name if beside else ""
    items = [(data, index) for data in datasets for index in range(data.num_stored)]
    packer = Packer(
        out=out,
        table=join_tables([replace(d.metadata, splits=[d.split] * d.num_stored) for d in datasets]),
        plan=digest([data.fingerprint for data in datasets], packed_by),
        suffix=datasets[0].spec.kind.suffix,
    )
    if packer.done:
        say(f"resuming after {packer.done:,} of {counted(len(items), 'image')}")
    try:
        with progress_bar("packing", len(items), completed=packer.done) as advance:
            for done in packer.pack(
                lambda row: _encode(items[row], beside), num_threads=num_threads
            ):
                advance(done)
        num_packed = len(items) - len(packer.damaged)
        if not num_packed:
            raise InputError(f"none of the {counted(len(items), 'image')} can be read")
        if packer.damaged and not skip_unreadable:
            packer.checkpoint()
            raise InputError(_damaged(out, packer.damaged))
        packer.finish(packed_by)
    except BaseException:
        packer.abandon()
        raise
    unreadable = [pair for data in datasets for pair in data.unreadable]
    _report(out, datasets[0], num_packed, unreadable + packer.damaged)


def _encode(item: Item, beside: Representation | None) -> Encoded:
    """Return the file of a sample, and what a representation packs of it as a NumPy file of float16."""
    data, index = item
    try:
        if beside is None:
            return data.pack(index)
        stored = data.load(index)[None].to(next(iter(beside.state_dict().values())).device)
        values = beside.pack(data.spec.kind.to_float(stored))[0]
        file = BytesIO()
        np.save(file, values.cpu().numpy().astype(np.float16))
        return WithPacked(sample=data.pack(index), packed=file.getvalue())
    except UnreadableImage as error:
        return Damaged(reason=reason_of(error.__cause__ or error))


def _report(
    out: Path, data: SampleDataset, num_packed: int, unreadable: list[tuple[str, str]]
) -> None:
    spec = data.spec
    shape = " x ".join(map(str, spec.shape)) if spec.is_image else f"{spec.kind.name}"
    reader = "data=zip" if spec.is_image else "the same data="
    say(
        f"{out}: {counted(num_packed, 'sample')} of {shape}, {data.num_classes:,} "
        f"{'class' if data.num_classes == 1 else 'classes'}, {out.stat().st_size / 1e6:,.1f} MB; "
        f"train on it with {reader} data.root={out}"
    )
    _unreadable_file(out).unlink(missing_ok=True)
    if unreadable:
        warn(f"left out {_list_unreadable(out, unreadable)}")


def _unreadable_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.unreadable.txt")


def _list_unreadable(out: Path, unreadable: list[tuple[str, str]]) -> str:
    """Write names and reasons to a file beside the zip; return the first ones for a message."""
    names = _unreadable_file(out)
    lines = "".join(f"{name}: {reason}\n" for name, reason in unreadable)
    write(names, lines.encode(errors="surrogateescape"))
    shown = format_names([f"{name} ({reason})" for name, reason in unreadable], limit=50)
    files = counted(len(unreadable), "file")
    return f"{files} that could not be read; {names} lists them: {shown}"


def _damaged(out: Path, unreadable: list[tuple[str, str]]) -> str:
    return (
        f"{_list_unreadable(out, unreadable)}; repair or remove them, or give the same command with "
        f"data.skip_unreadable=true to leave them out: it goes on with what is packed"
    )
