"""gan-lab prepare-data: any kind of images, at one size, into one zip."""

import io
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from gan_lab.config import build, cache_dir
from gan_lab.console import progress_bar, say, warn
from gan_lab.data.base import ImageDataset, MissingSplit, digest
from gan_lab.data.encoded import UnreadableImage
from gan_lab.data.images import to_pil
from gan_lab.data.packing import RestartableZip, disk_full
from gan_lab.data.scan import reason_of
from gan_lab.data.source import listed
from gan_lab.data.zip import METADATA
from gan_lab.errors import InputError

_VERSION = 1
_SPLITS = {"all": ("train", "val"), "train": ("train",), "val": ("val",)}
_CHECKPOINT_IMAGES = 5_000
_CHECKPOINT_SECONDS = 20.0
_AHEAD = 8  # images a thread may be ahead of the writer
_COMPRESSION = 1  # zlib's fastest level: a tenth larger than its default, several times quicker

Item = tuple[str, ImageDataset, int]  # member name, dataset, stored index


def run(config: DictConfig) -> None:
    """Pack the images that the configuration names; started again after a kill, it goes on.

    Raises:
        InputError: for bad data or options, a finished zip in the way, or a full disk.
    """
    if config.num_threads is not None and config.num_threads < 1:
        raise InputError(f"num_threads={config.num_threads} must be at least 1, or null")
    out = _destination(config.out, config.overwrite)
    datasets = _datasets(config)
    lock = cache_dir() / "locks" / f"{digest(str(out.resolve()))}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            _pack(datasets, out, config.num_threads or os.cpu_count() or 1)
    except Timeout:
        raise InputError(
            f"another prepare-data is writing {out}; wait for it, or set another out="
        ) from None
    except OSError as error:
        raise disk_full(error, out) or error from error


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


def _datasets(config: DictConfig) -> list[ImageDataset]:
    """Open the splits that are wanted, without what cannot be read."""
    if config.split not in _SPLITS:
        raise InputError(f"split={config.split!r}; allowed: {', '.join(_SPLITS)}")
    node: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    wanted = {"image_size": config.size, "crop": config.crop, "resample": config.resample}
    for key, value in wanted.items():
        if value is not None:
            node[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
    node["flip"] = False
    if "skip_unreadable" in node:
        node["skip_unreadable"] = True
    factory = build(node)
    datasets = []
    for split in _SPLITS[config.split]:
        try:
            datasets.append(factory(split=split))
        except MissingSplit:
            if config.split != "all":
                raise
    return datasets


def _pack(datasets: list[ImageDataset], out: Path, num_threads: int) -> None:
    items = [
        (f"{data.split}/{index // 1000:05d}/img{index:08d}.png", data, index)
        for data in datasets
        for index in range(data.num_stored)
    ]
    plan = digest(_VERSION, [(data.fingerprint, data.class_names) for data in datasets])
    archive = RestartableZip(out=out, plan=plan)
    if archive.done:
        say(f"going on after {archive.done:,} of {len(items):,} images")
    try:
        _write(archive, items, num_threads)
        failed = {member for member, _, _ in archive.failed}
        packed = [item for item in items if item[0] not in failed]
        if not packed:
            raise InputError(f"none of the {len(items):,} images can be read")
        archive.finish(METADATA, json.dumps(_metadata(packed)).encode())
    except BaseException:
        archive.abandon()
        raise
    unreadable = [pair for data in datasets for pair in data.unreadable]
    _report(out, packed, unreadable + [(name, reason) for _, name, reason in archive.failed])


def _write(archive: RestartableZip, items: list[Item], num_threads: int) -> None:
    saved, saved_at = archive.done, time.monotonic()
    with progress_bar("packing", len(items), completed=archive.done) as advance:
        left = items[archive.done :]
        for (member, data, index), png in zip(left, _encode_all(left, num_threads), strict=True):
            if isinstance(png, bytes):
                archive.add(member, png)
            else:
                archive.give_up(member, data.name(index), png.reason)
            advance(archive.done)
            due = time.monotonic() - saved_at > _CHECKPOINT_SECONDS
            if due or archive.done - saved >= _CHECKPOINT_IMAGES:
                archive.checkpoint()
                saved, saved_at = archive.done, time.monotonic()


class _Failure:
    def __init__(self, reason: str) -> None:
        self.reason = reason


def _encode_all(items: list[Item], num_threads: int) -> Iterator[bytes | _Failure]:
    """PNG files of the items, in order, made by threads that run a little ahead."""
    queue: deque[Future[bytes | _Failure]] = deque()
    pool = ThreadPoolExecutor(num_threads)
    try:
        rest = iter(items)
        queue.extend(pool.submit(_encode, item) for item in islice(rest, _AHEAD * num_threads))
        while queue:
            png = queue.popleft().result()
            queue.extend(pool.submit(_encode, item) for item in islice(rest, 1))
            yield png
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(item: Item) -> bytes | _Failure:
    _, data, index = item
    try:
        image = data.load(index)
    except UnreadableImage as error:
        return _Failure(reason_of(error.__cause__ or error))
    file = io.BytesIO()
    to_pil(image).save(file, format="PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def _metadata(packed: list[Item]) -> dict[str, Any]:
    """Content of dataset.json; see `gan_lab.data.zip`."""
    class_names = packed[0][1].class_names
    labelled = class_names != ["all"]
    metadata: dict[str, Any] = {"labels": None}
    if labelled:
        metadata["labels"] = [[member, int(data.labels[i])] for member, data, i in packed]
        metadata["class_names"] = class_names
    val = [member for member, data, _ in packed if data.split == "val"]
    if 0 < len(val) < len(packed):
        metadata["val"] = val
    return metadata


def _report(out: Path, packed: list[Item], unreadable: list[tuple[str, str]]) -> None:
    data = packed[0][1]
    height, width = data.image_size
    say(
        escape(
            f"{out}: {len(packed):,} images of {data.channels} x {height} x {width}, {data.num_classes:,} "
            f"{'class' if data.num_classes == 1 else 'classes'}, {out.stat().st_size / 1e6:,.1f} MB; "
            f"train on it with data=zip data.root={out}"
        )
    )
    names = out.with_name(f"{out.name}.unreadable.txt")
    names.unlink(missing_ok=True)
    if unreadable:
        names.write_text("".join(f"{name}: {reason}\n" for name, reason in unreadable))
        shown = listed([f"{name} ({reason})" for name, reason in unreadable], limit=50)
        files = "1 file" if len(unreadable) == 1 else f"{len(unreadable):,} files"
        warn(escape(f"left out {files} that could not be read; {names} lists them: {shown}"))
