"""Extract features from images: once for all metrics, in chunks that survive a kill, shared among processes.

Chunks, forward passes and the order of sums only depend on the number of images and the batch size, so the result does
not depend on the number of processes; another batch size only changes rounding. From 2^18 images on, chunks that follow
each other form blocks, of which a process shares and stores sums in place of all features: 21 GB of Inception's for ten
million images, not 82.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lab.config import cache_dir
from gan_lab.console import say, warn
from gan_lab.data.base import digest
from gan_lab.distributed.ranks import Ranks
from gan_lab.metrics.cache import (
    ChunkStore,
    FolderChunks,
    MemoryChunks,
    locked,
    read_entry,
    write_entry,
)
from gan_lab.metrics.feature_set import AllNeeds, FeatureSet, Form, Moments
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.sources import ImageSource

CHUNK = 512  # images; some megabytes of features, and a minute of Inception on two CPU cores
_BLOCKS = 256  # number of blocks from which on they have several chunks
_LARGEST_BLOCK = 32  # chunks
Progress = Callable[[int], None]


def no_progress(images: int) -> None:
    """Do not show progress."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Features to extract from a source of images.

    Attributes:
        source: the images.
        extractor: loaded.
        num: of the first images.
        whole: whether these are all images of the source.
        needs: (output, form) of everything needed.
        max_features: maximum number of images whose features are kept, a fixed random choice; statistics use all.
            None keeps all.
        batch_size: images read at a time.
    """

    source: ImageSource
    extractor: Extractor
    num: int
    whole: bool
    needs: AllNeeds
    max_features: int | None = None
    batch_size: int = 64

    @property
    def key(self) -> str:
        """Identifies everything that features depend on, except their number."""
        made_by = self.extractor
        return digest(
            self.source.fingerprint,
            made_by.name,
            made_by.sha256,
            made_by.transform,
            made_by.precision,
        )

    @property
    def outputs(self) -> list[str]:
        """Which outputs are wanted in any form."""
        return sorted({output for output, _ in self.needs})

    @cached_property
    def rows(self) -> Tensor:
        """Which images' features are kept, int64 [M], in order."""
        if self.max_features is None or self.max_features >= self.num:
            return torch.arange(self.num)
        chosen = np.random.default_rng(0).permutation(self.num)[: self.max_features]
        return torch.from_numpy(np.sort(chosen))

    def extract(self, store: ChunkStore, progress: Progress = no_progress) -> FeatureSet:
        """Extract, reusing the chunks in a store."""
        whole = _Sums(self, 0, self.num)
        for start, stop, part in self._parts(store, progress):
            whole.join(start, stop, part) if stop - start > CHUNK else whole.add(start, part)
        moments = whole.moments.items()
        return self.as_set(
            whole.features, {name: (sums.mean, sums.covariance) for name, sums in moments}
        )

    def as_set(
        self, features: dict[str, Tensor], statistics: dict[str, tuple[Tensor, Tensor]]
    ) -> FeatureSet:
        """Assemble a feature set."""
        rows = self.rows
        labels = self.source.labels(0, self.num)
        return FeatureSet(
            source=self.source,
            count=self.num,
            whole=self.whole,
            features=features,
            rows=rows,
            statistics=statistics,
            labels=None if labels is None else labels[rows],
            device=self.extractor.device,
        )

    def present(self, store: ChunkStore) -> int:
        """Number of images whose chunks, or the sums of whose blocks, are in a store."""
        found = 0
        for block in self._blocks:
            start, stop = block[0][0], block[-1][1]
            if len(block) > 1 and all(store.has(name) for name in self._names(start, stop)):
                found += stop - start
                continue
            found += sum(
                stop - start
                for start, stop in block
                if all(store.has(_name(start, stop, output)) for output in self.outputs)
            )
        return found

    @property
    def folder(self) -> Path:
        """The cache folder for features of real images.

        Raises:
            OSError: when there can be no cache.
        """
        return cache_dir() / "features" / self.key

    def is_kept(self) -> bool:
        """Whether everything needed of real images is cached."""
        return all(_entry(self.folder, self, need).is_file() for need in self.needs)

    def kept_store(self) -> FolderChunks:
        """Return the store for chunks of real images."""
        return FolderChunks(self.folder / f"chunks-{self.num}")

    @property
    def _blocks(self) -> list[list[tuple[int, int]]]:
        """(start, stop) of the chunks of each block."""
        chunks = [(start, min(start + CHUNK, self.num)) for start in range(0, self.num, CHUNK)]
        size = min(max(1, len(chunks) // _BLOCKS), _LARGEST_BLOCK)
        return [chunks[i : i + size] for i in range(0, len(chunks), size)]

    def _names(self, start: int, stop: int) -> dict[str, tuple[str, Form]]:
        """Names of what is stored of a block, with their (output, form)."""
        rows = len(self.rows)
        return {
            _name(start, stop, f"{output}-{form}-{rows}"): (output, form)
            for output, form in sorted(self.needs)
        }

    def _parts(
        self, store: ChunkStore, progress: Progress
    ) -> Iterator[tuple[int, int, dict[Any, Tensor]]]:
        """Yield (start, stop, outputs of a chunk or sums of a block) in order; processes take turns to broadcast."""
        ranks = Ranks.current()
        blocks = self._blocks
        for turn in range(0, len(blocks), ranks.size):
            together = blocks[turn : turn + ranks.size]
            mine: dict[Any, Tensor] | None = None
            if ranks.rank < len(together):
                block = together[ranks.rank]
                mine = (
                    self._block(block, store) if len(block) > 1 else self._chunk(*block[0], store)
                )
            for owner, block in enumerate(together):
                yield block[0][0], block[-1][1], ranks.send(mine, source=owner)
                progress(block[-1][1])

    def _block(
        self, block: list[tuple[int, int]], store: ChunkStore
    ) -> dict[tuple[str, Form], Tensor]:
        """Return the sums of a block; its chunks are stored until these are."""
        names = self._names(block[0][0], block[-1][1])
        kept = {need: store.get(name) for name, need in names.items()}
        found = {need: values for need, values in kept.items() if values is not None}
        if len(found) < len(names):
            sums = _Sums(self, block[0][0], block[-1][1])
            for start, stop in block:
                sums.add(start, self._chunk(start, stop, store))
            found = sums.values()
            for name, need in names.items():
                store.put(name, found[need])
        for start, stop in block:
            for output in self.outputs:
                store.remove(_name(start, stop, output))
        return found

    def _chunk(self, start: int, stop: int, store: ChunkStore) -> dict[str, Tensor]:
        found = {output: store.get(_name(start, stop, output)) for output in self.outputs}
        chunk = {output: values for output, values in found.items() if values is not None}
        missing = [output for output in self.outputs if output not in chunk]
        if missing:
            parts = [
                self.extractor(images, missing)
                for images in _read(self.source, start, stop, self.batch_size)
            ]
            for output in missing:
                chunk[output] = torch.cat([part[output] for part in parts])
                store.put(_name(start, stop, output), chunk[output])
        return chunk


class _Sums:
    """Features that are kept, and moments of all, of images `start` to `stop`."""

    def __init__(self, extraction: Extraction, start: int, stop: int) -> None:
        rows = extraction.rows
        self._rows = rows[(rows >= start) & (rows < stop)]
        widths = extraction.extractor.outputs
        self.features = {
            output: torch.empty(len(self._rows), widths[output])
            for output, form in extraction.needs
            if form == "features"
        }
        self.moments = {
            output: Moments(widths[output])
            for output, form in extraction.needs
            if form == "statistics"
        }

    def add(self, start: int, chunk: dict[str, Tensor]) -> None:
        """Add all outputs of a chunk."""
        for output, sums in self.moments.items():
            sums.add(chunk[output])
        for output, values in self.features.items():
            first, last = self._between(start, start + len(chunk[output]))
            values[first:last] = chunk[output][self._rows[first:last] - start]

    def join(self, start: int, stop: int, sums: dict[tuple[str, Form], Tensor]) -> None:
        """Add what `values` returned for a block."""
        first, last = self._between(start, stop)
        for (output, form), values in sums.items():
            if form == "statistics":
                self.moments[output].join(stop - start, values)
            else:
                self.features[output][first:last] = values

    def values(self) -> dict[tuple[str, Form], Tensor]:
        """Return all by (output, form)."""
        found: dict[tuple[str, Form], Tensor] = {}
        for output, moments in self.moments.items():
            found[output, "statistics"] = moments.stacked()
        for output, features in self.features.items():
            found[output, "features"] = features
        return found

    def _between(self, start: int, stop: int) -> tuple[int, int]:
        first, last = torch.searchsorted(self._rows, torch.tensor([start, stop])).tolist()
        return first, last


def extract_fakes(extraction: Extraction, store: ChunkStore, progress: Progress) -> FeatureSet:
    """Extract generated images, resuming an interrupted extraction."""
    if isinstance(store, FolderChunks) and Ranks.current().rank == 0:
        store.remove_abandoned()
    present = extraction.present(store)
    if present and extraction.outputs:
        say(
            f"{extraction.source.name}: features of {present:,} of {extraction.num:,} images were extracted before"
        )
    return extraction.extract(store, progress)


def extract_real(
    extraction: Extraction, progress: Progress = no_progress, *, what: str = "metrics"
) -> FeatureSet:
    """Load features and statistics of real images from the cache, or extract and cache what is missing.

    One process extracts, others that need the same wait. Chunks are deleted when the result is written.

    Args:
        extraction: of which images.
        progress: called with the number of images done.
        what: prefix of messages.
    """
    ranks = Ranks.current()
    try:
        folder = extraction.folder
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warn(f"no cache: {error}; the environment variable GAN_LAB_CACHE names another folder")
        return extraction.extract(MemoryChunks(), progress)
    if ranks.rank > 0:
        return _extract_kept(extraction, folder, progress, what)
    with locked(folder / "features"):
        return _extract_kept(extraction, folder, progress, what)


def _extract_kept(
    extraction: Extraction, folder: Path, progress: Progress, what: str
) -> FeatureSet:
    ranks = Ranks.current()
    kept: dict[tuple[str, Form], dict[str, Tensor] | None] = {}
    if ranks.rank == 0:
        kept = {need: read_entry(_entry(folder, extraction, need)) for need in extraction.needs}
    kept = ranks.send(kept)
    entries = {need: entry for need, entry in kept.items() if entry is not None}
    features = {
        output: entry["features"] for (output, form), entry in entries.items() if form == "features"
    }
    statistics = {
        output: (entry["mean"], entry["covariance"])
        for (output, form), entry in entries.items()
        if form == "statistics"
    }
    missing = extraction.needs - entries.keys()
    if missing:
        made = _extract_missing(extraction, missing, folder, progress, what)
        features |= made.features
        statistics |= made.statistics
    return extraction.as_set(features, statistics)


def _extract_missing(
    extraction: Extraction, missing: AllNeeds, folder: Path, progress: Progress, what: str
) -> FeatureSet:
    rest = replace(extraction, needs=missing)
    store = extraction.kept_store()
    present = rest.present(store)
    already = f" ({present:,} of them are done already)" if present else ""
    say(
        f"{what}: {extraction.extractor.name} on {extraction.num:,} real images, on "
        f"{extraction.extractor.device}, once{already}"
    )
    made = rest.extract(store, progress)
    if Ranks.current().rank == 0:
        written = [
            write_entry(_entry(folder, extraction, need), _as_entry(made, need))
            for need in sorted(missing)
        ]
        if all(written):
            store.clear()
    return made


def _as_entry(made: FeatureSet, need: tuple[str, Form]) -> dict[str, Tensor]:
    output, form = need
    if form == "features":
        return {"features": made.features[output]}
    mean, covariance = made.statistics[output]
    return {"mean": mean, "covariance": covariance}


def _entry(folder: Path, extraction: Extraction, need: tuple[str, Form]) -> Path:
    output, form = need
    number = len(extraction.rows) if form == "features" else extraction.num
    of = f"{number}-of-{extraction.num}" if number < extraction.num else str(number)
    return folder / f"{form}-{output}-{of}.pt"


def _name(start: int, stop: int, output: str) -> str:
    return f"{start:08d}-{stop:08d}-{output}"


def _read(source: ImageSource, start: int, stop: int, size: int) -> Iterator[Tensor]:
    """Yield batches of images, prefetching the next."""
    bounds = [(i, min(i + size, stop)) for i in range(start, stop, size)]
    if source.in_memory:
        yield from (source.read(*bound) for bound in bounds)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(source.read, *bounds[0])
        for bound in bounds[1:]:
            images = coming.result()
            coming = pool.submit(source.read, *bound)
            yield images
        yield coming.result()
