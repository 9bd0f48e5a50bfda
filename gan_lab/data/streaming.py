"""Shards read from where they are: a folder, S3, GCS, HTTP or any other store of fsspec, through a bounded local cache.

Single samples are read from the store; a shard of which several samples are needed is fetched completely. So neither a
few samples spread over all data nor a pass in order reads more than necessary.
"""

import io
import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from errno import EINVAL
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.config import build, cache_dir
from gan_lab.console import warn
from gan_lab.data.base import MissingSplit, SampleDataset, check_split, digest
from gan_lab.data.cache import read_header
from gan_lab.data.decoding import DECODE_ERRORS
from gan_lab.data.metadata import UNLABELED, MetadataTable, join_tables
from gan_lab.data.sample import Excerpts, SampleSpec
from gan_lab.data.shards import INDEX, ShardEntry, ShardIndex, read_index
from gan_lab.data.transform import ImageSize, parse_size
from gan_lab.errors import InputError
from gan_lab.run import naming

_FEW = 3  # samples of a shard that a process reads by themselves, before it fetches the shard
_PIECE = 1 << 23  # bytes fetched by one request
_REQUESTS = 4  # at a time
_ANSWER_S = 60.0  # for one request
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0  # between tries
_INDEX_END = 1 << 12  # bytes, in which its digest is, and the checksums of its arrays
_MOST_PATIENCE_S = 500.0  # the loader gives up on a worker after 600 s


def window_order(
    counts: NDArray[np.int64], *, window: int, seed: int, epoch: int, copies: int = 1
) -> NDArray[np.int64]:
    """Order of the samples of shards in an epoch, int64 [copies * N]: at each position from `window` shards.

    The shards stand on a circle in random order, and each sample at its shard's position plus a random part of the
    window's length; positions on the circle are the order. A new shard is wanted when the oldest is done, so that the
    network has a steady load, and what is wanted last is wanted first in an epoch of the same shards.

    Args:
        counts: samples of each shard [S], N in all.
        window: shards; S or more shuffle everything.
        seed: of the run.
        epoch: its number.
        copies: items i, i + N, ... that are the same sample, such as its mirror image.
    """
    draw = np.random.default_rng((seed, epoch))
    shards = len(counts)
    positions = np.tile(np.repeat(draw.permutation(shards).astype(np.float64), counts), copies)
    positions += draw.random(len(positions)) * min(window, shards)
    positions %= shards
    return np.argsort(positions, kind="stable")


class Store:
    """Files below a folder or URL, read in parts; it can be pickled and forked.

    Args:
        root: a folder, or a URL that fsspec knows, such as s3://bucket/faces.
        options: of fsspec's file system, such as {"endpoint_url": ...}.
        patience: seconds for which a store that fails is tried again.

    Raises:
        InputError: for a folder that does not exist, or a store whose package is not installed.
    """

    def __init__(self, root: str, *, options: Mapping[str, Any], patience: float) -> None:
        self.root = root.rstrip("/")
        self._options = dict(options)
        self._patience = patience
        self._pid = -1
        self._system: Any = None
        self._below = ""
        self.folder = None if "://" in root else Path(root).expanduser()
        if self.folder is None:
            self._opened()
        elif not self.folder.is_dir():
            raise InputError(
                f"data.root={root} is not a folder of shards; make one with prepare-data, or give a URL"
            )

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return some bytes of a file.

        Raises:
            InputError: when it is missing, may not be read, or the store has failed for `patience` seconds.
        """
        data = self._retry(name, lambda: self._read(name, start, stop))
        if len(data) != stop - start:
            raise InputError(
                f"{self.root}/{name} gave {len(data):,} bytes of {stop - start:,}: it is cut short, or its store gives "
                "no parts of files; copy it again"
            )
        return data

    def size(self, name: str) -> int:
        """Return a file's number of bytes.

        Raises:
            InputError: as `read`, and when the store does not say it.
        """
        info = self._retry(name, lambda: self._call("_info", f"{self._opened()[1]}/{name}"))
        if info["size"] is None:
            raise InputError(
                f"{self.root}/{name}: its store does not say how long it is; use another"
            )
        return int(info["size"])

    def fetch(self, name: str, size: int, path: Path) -> None:
        """Copy a file, in pieces by several requests.

        Raises:
            InputError: as `read`, and when the copy cannot be written.
        """
        starts = range(0, size, _PIECE)

        def piece(start: int) -> None:
            data = self.read(name, start, min(start + _PIECE, size))
            with naming(path):
                os.pwrite(file.fileno(), data, start)

        with naming(path), path.open("wb") as file, ThreadPoolExecutor(_REQUESTS) as pool:
            try:
                for done in [pool.submit(piece, start) for start in starts]:
                    done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None, "_pid": -1}

    def _opened(self) -> tuple[Any, str]:
        """Return this process's file system, and the root's path in it: connections do not outlive a fork."""
        if self._pid != os.getpid():
            try:
                fsspec = import_module("fsspec")
                opened = fsspec.core.url_to_fs(self.root, **self._options)
            except ImportError as error:
                raise InputError(
                    f"data.root={self.root}: {error}; pip install 'gan-laboratory[streaming]', for gs:// also gcsfs"
                ) from error
            except ValueError as error:
                raise InputError(
                    f"data.root={self.root}: {error}; give a folder, s3://, gs:// or https://"
                ) from error
            (self._system, self._below), self._pid = opened, os.getpid()
        return self._system, self._below

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the file system, with a timeout if it is asynchronous."""
        system, _ = self._opened()
        if not system.async_impl:
            return getattr(system, method.lstrip("_"))(*arguments, **options)
        asyn = import_module("fsspec.asyn")
        return asyn.sync(
            system.loop, getattr(system, method), *arguments, timeout=_ANSWER_S, **options
        )

    def _read(self, name: str, start: int, stop: int) -> bytes:
        if self.folder is not None:
            with (self.folder / name).open("rb") as file:
                return os.pread(file.fileno(), stop - start, start)
        path = f"{self._opened()[1]}/{name}"
        return bytes(self._call("_cat_file", path, start=start, end=stop))

    def _retry(self, name: str, call: Callable[[], Any]) -> Any:
        """Call repeatedly until it succeeds, with growing pauses."""
        where = f"{self.root}/{name}"
        deadline, wait = time.monotonic() + self._patience, _FIRST_WAIT_S
        while True:
            try:
                return call()
            except InputError:
                raise
            except Exception as error:  # each store has its own for temporary errors
                if permanent := _permanent_error(error):
                    raise InputError(f"{where} {permanent}") from error
                reason = (str(error) or type(error).__name__).splitlines()[0]
                if time.monotonic() + wait > deadline:
                    raise InputError(
                        f"{where} cannot be read for {self._patience:g} s ({reason}); the same command goes on from "
                        "the last checkpoint when the store is there again"
                    ) from error
                if wait == _FIRST_WAIT_S:
                    warn(f"{where} cannot be read ({reason}); trying for {self._patience:g} s ...")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)


def _permanent_error(error: Exception) -> str | None:
    """Describe an error that a retry cannot fix; None for a temporary one."""
    cause = error.__cause__
    if isinstance(cause, Exception) and type(cause).__module__.startswith(("aiohttp", "builtins")):
        # fsspec's HTTP calls everything a missing file, also a server that cannot be reached
        error = cause if isinstance(error, FileNotFoundError) else error
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return "is missing; copy it there, or merge the shards that there are"
    if isinstance(error, PermissionError) or status in (401, 403):
        return f"may not be read ({error}); check the credentials"
    if getattr(error, "errno", None) == EINVAL or status == 416:
        return "is shorter than the index says; copy it again"
    return None


class ShardCache:
    """Copies of some shards of a store in a local folder, which processes of one machine share, also other runs.

    One process at a time makes room, by removing the shards that were read longest ago, and fetches a shard; a copy
    appears only when complete. Others read from the store meanwhile.

    Args:
        folder: of the copies, beside those of other stores.
        store: where they are from.
        most: bytes of all copies, also of other stores.
    """

    def __init__(self, folder: Path, *, store: Store, most: int) -> None:
        self._folder = folder
        self._store = store
        self._most = most
        self._wanted: Counter[str] = Counter()

    def read(self, name: str, size: int, start: int, stop: int) -> bytes | None:
        """Return some bytes of a shard of `size` bytes; None without a copy."""
        try:
            return self._read(name, start, stop)
        except FileNotFoundError:
            self._wanted[name] += 1
            if size > self._most or self._wanted[name] <= _FEW or not self._fetch(name, size):
                return None
        try:
            return self._read(name, start, stop)
        except FileNotFoundError:  # another process has just removed it
            return None

    def drop(self, name: str) -> None:
        """Remove a damaged copy."""
        (self._folder / name).unlink(missing_ok=True)

    def _read(self, name: str, start: int, stop: int) -> bytes:
        with (self._folder / name).open("rb") as file:
            os.utime(file.fileno())
            return os.pread(file.fileno(), stop - start, start)

    def _fetch(self, name: str, size: int) -> bool:
        """Fetch a shard; False while another process fetches one."""
        with naming(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._folder.parent / ".lock", timeout=0)
        try:
            with lock:
                path = self._folder / name
                if not path.exists():
                    self._make_room(size)
                    part = path.with_suffix(".part")
                    self._store.fetch(name, size, part)
                    part.replace(path)
        except Timeout:
            return False
        self._wanted.pop(name, None)
        return True

    def _make_room(self, size: int) -> None:
        """Remove parts that a killed process left, and shards read longest ago, until `size` bytes fit."""
        for part in self._folder.parent.glob("*/*.part"):
            part.unlink(missing_ok=True)
        stats = {path: path.stat() for path in self._folder.parent.glob("*/*.zip")}
        total = sum(stat.st_size for stat in stats.values())
        for path in sorted(stats, key=lambda path: stats[path].st_mtime_ns):
            if total + size <= self._most:
                return
            path.unlink(missing_ok=True)
            total -= stats[path].st_size


class StreamedSamples(SampleDataset):
    """Samples of shards of any kind, in an order in which few shards are needed at a time.

    Args:
        split: "train" or "val".
        root: a folder of shards, or its URL: s3://, gs://, https:// and others of fsspec.
        window: shards whose samples are shuffled with each other.
        image_size: None, or the size that the images must have.
        flip: append the mirror images.
        cache: local folder for shards of a URL; None for one in the cache of gan_lab.
        cache_gb: largest size of the cache in GB; 0 reads each sample from the store.
        patience: seconds for which a store that fails is tried again.
        options: of fsspec's file system; credentials are better in its environment variables: these are written into
            the run.
        trust: packages besides gan_lab whose kinds of samples the shards may hold.

    Raises:
        InputError: for a missing or damaged index, a store that cannot be reached, and options out of range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | None,
        window: int = 8,
        image_size: ImageSize = None,
        flip: bool = False,
        cache: str | None = None,
        cache_gb: float = 20.0,
        patience: float = 300.0,
        options: Mapping[str, Any] | None = None,
        trust: Sequence[str] = (),
    ) -> None:
        check_split(split)
        store = Store(
            _checked_root(root, window, cache_gb, patience),
            options=options or {},
            patience=patience,
        )
        index, folder = _opened_index(store, Path(cache).expanduser() if cache else cache_dir())
        self._store, self._index = store, index
        most = int(cache_gb * 1e9)
        self._cache = None
        if store.folder is None and most:
            self._cache = ShardCache(folder, store=store, most=most)
            _check_room(index, window, most)
        origin = Path(f"{self._store.root}/{INDEX}")
        spec = SampleSpec.from_dict(index.spec, origin=origin, trust=trust)
        _check_images(spec, parse_size(image_size), flip)
        self._shards = [s for s in index.shards if s["split"] == split]
        if not self._shards:
            raise MissingSplit(f"data.root={root} has no samples of split={split}")
        counts = [s["count"] for s in self._shards]
        before = index.shards.index(self._shards[0])
        self._first = sum(s["count"] for s in index.shards[:before])
        self._starts = np.cumsum([0, *counts])
        self._window = window
        self.packed_by = index.packed_by
        self.origin = store.root
        self.excerpts = build(index.excerpts.get(split), Excerpts, origin=origin, trust=trust)
        here = slice(self._first, self._first + int(self._starts[-1]))
        every: NDArray[Any] = index.labels if index.attributes is None else index.attributes
        labels = every[here]
        self._groups = None if index.groups is None else index.groups[here]
        if index.attributes is None and spec.num_classes:
            of_classes = np.bincount(labels, minlength=spec.num_classes).tolist()
            spec = replace(spec, class_counts=tuple(of_classes))
        super().__init__(
            split=split,
            spec=replace(
                spec,
                attribute_ranges=(),
                label_vectors=(),
                num_groups=0 if self._groups is None else len(np.unique(self._groups)),
            ),
            labels=labels,
            flip=flip,
        )
        self._fingerprint = digest(index.digest, split, flip)

    @property
    def groups(self) -> list[str] | None:
        numbers = self._groups
        return None if numbers is None else [f"group{number}" for number in numbers.tolist()]

    @property
    def metadata(self) -> MetadataTable:
        """The metadata of the stored samples, from the tables of their shards."""
        tables = []
        for number, shard in enumerate(self._shards):
            content = json.loads(self._read(shard, shard["table"], "its table"))
            first = int(self._starts[number])
            files = [self.name(first + i) for i in range(shard["count"])]
            tables.append(_table(content, files, self.split, list(self.spec.attributes)))
        return join_tables(tables)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch, shuffled in windows of shards."""
        counts = np.diff(self._starts)
        copies = len(self) // self.num_stored
        return window_order(counts, window=self._window, seed=seed, epoch=epoch, copies=copies)

    def name(self, index: int) -> str:
        """Shard and number of a sample."""
        shard = self._shard_of(index)
        return f"{self._shards[shard]['name']}, sample {index - int(self._starts[shard])}"

    def stored(self, index: int) -> bytes:
        """Return the file of stored sample `index`."""
        return self._member(index, self._index.positions)

    def pack(self, index: int) -> bytes:
        return self.stored(index)

    def load(self, index: int) -> Tensor:
        return self.excerpts.take(self.load_content(index), 0)

    def load_content(self, index: int) -> Tensor:
        """Decode the file of sample `index`.

        Raises:
            InputError: naming shard and sample.
        """
        return self._decoded(index, self.stored(index), self.spec)

    def load_source(self, index: int) -> Tensor:
        assert self._index.sources is not None and self.spec.source is not None
        return self._decoded(index, self._member(index, self._index.sources), self.spec.source)

    def load_packed(self, index: int) -> Tensor:
        assert self._index.packed is not None
        file = io.BytesIO(self._member(index, self._index.packed))
        shape, dtype = read_header(file)
        return torch.from_numpy(np.frombuffer(file.read(), dtype=dtype).reshape(shape).copy())

    def _decoded(self, index: int, data: bytes, spec: SampleSpec) -> Tensor:
        try:
            return spec.kind.decoded(data)
        except DECODE_ERRORS as error:
            raise InputError(
                f"{self._store.root}: {self.name(index)} cannot be decoded ({error}); pack its shard again"
            ) from error

    def _shard_of(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _member(self, index: int, positions: NDArray[np.uint32]) -> bytes:
        """Return a file of stored sample `index`."""
        shard = self._shards[self._shard_of(index)]
        return self._read(shard, positions[self._first + index].tolist(), self.name(index))

    def _read(self, shard: ShardEntry, position: Sequence[int], what: str) -> bytes:
        """Return the bytes at a position, from the cache or the store, checked by their CRC-32."""
        start, count, crc = position
        name = shard["name"]
        if self._cache is not None:
            data = self._cache.read(name, shard["bytes"], start, start + count)
            if data is not None and zlib.crc32(data) == crc:
                return data
            if data is not None:
                self._cache.drop(name)
        data = self._store.read(name, start, start + count)
        if zlib.crc32(data) != crc:
            raise InputError(
                f"{self._store.root}/{name} is damaged, or another shard than that of the index ({what}); copy it again"
            )
        return data


def _checked_root(root: str | None, window: int, cache_gb: float, patience: float) -> str:
    """Return `data.root`; check `window`, `cache_gb` and `patience`."""
    if window < 1 or not cache_gb >= 0 or not 0 < patience <= _MOST_PATIENCE_S:
        raise InputError(
            f"data.window={window}, data.cache_gb={cache_gb}, data.patience={patience}; allowed: at least 1 shard, "
            f"at least 0 GB, and 1 to {_MOST_PATIENCE_S:g} s"
        )
    if not root:
        raise InputError(
            "data.root is not set; set data.root=PATH to a folder of shards, or its URL, such as s3://BUCKET/FOLDER"
        )
    return str(root)


def _check_images(spec: SampleSpec, size: tuple[int, int] | None, flip: bool) -> None:
    """Check options that only images have."""
    are_images = spec.kind.axes[1:] == ("height", "width")
    if not are_images and (size is not None or flip):
        option = "data.flip=true" if flip else f"data.image_size={size}"
        raise InputError(
            f"{option} is for images, and the shards hold {spec.kind.name}; leave it out"
        )
    if size is not None and size != spec.shape[1:]:
        raise InputError(
            f"data.image_size={size[0]}x{size[1]}: the shards hold images of {spec.shape[1]}x{spec.shape[2]}; leave "
            "it out, or pack them at that size"
        )


def _table(
    content: Mapping[str, Any], files: list[str], split: str, attributes: list[str]
) -> MetadataTable:
    """Return the rows of a shard's dataset.json, which has them in the order of its samples."""

    def column(key: str) -> list[Any] | None:
        return None if content.get(key) is None else [value for _, value in content[key]]

    vectors = column("attributes")
    spacing = content.get("spacing")
    return MetadataTable(
        files=files,
        labels=np.array(column("labels") or [0] * len(files), dtype=np.int64),
        class_names=content.get("class_names") or list(UNLABELED),
        attributes=None if vectors is None else np.array(vectors, dtype=np.float32),
        attribute_names=content.get("attribute_names") or attributes,
        groups=column("groups"),
        series=column("series"),
        splits=[split] * len(files),
        captions=column("captions"),
        spacing=None if spacing is None else tuple(spacing),
    )


def _opened_index(store: Store, cache: Path) -> tuple[ShardIndex, Path]:
    """Return the index of a store, copied here where that is remote, and the folder for copies of its shards."""
    if store.folder is not None:
        if not (store.folder / INDEX).is_file():
            raise InputError(
                f"data.root={store.root} has no {INDEX}; merge its shards with gan-lab prepare-data "
                f"out={store.root} merge=true"
            )
        return read_index(store.folder / INDEX), store.folder
    size = store.size(INDEX)
    end = store.read(INDEX, max(0, size - _INDEX_END), size)
    stamp = digest(store.root, size, end)
    folder = cache / "shards" / stamp
    path = folder / INDEX
    with naming(path):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                new = path.with_suffix(".new")
                store.fetch(INDEX, size, new)
                new.replace(path)
    return read_index(path), folder


def _check_room(index: ShardIndex, window: int, most: int) -> None:
    """Check that the shards of a window, and the next one, fit into the cache: else each sample would cost a shard."""
    sizes = sorted((shard["bytes"] for shard in index.shards), reverse=True)
    needed = sum(sizes[: window + 1])
    if needed > most:
        raise InputError(
            f"data.cache_gb={most / 1e9:g}: the {min(window + 1, len(sizes))} shards of a window take "
            f"{needed / 1e9:,.3g} GB; set data.cache_gb={needed * 1.5 / 1e9:.3g}, or a smaller data.window"
        )
