"""The LightningDataModule: batches of any SampleDataset, from any position in training."""

import mmap
import os
import re
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from multiprocessing import active_children
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from gan_lab.console import HANGUP, in_a_line, warn
from gan_lab.data.base import MissingSplit, PackedSamples, SampleDataset, permutation
from gan_lab.data.sample import Batch, Representation, SampleSpec, check_same_spec
from gan_lab.distributed import slurm
from gan_lab.errors import InputError, counted

# Sampler: the sample at position p is a function of p, so that a checkpoint only needs the position.


class CountingBatchSampler(Sampler[list[int]]):
    """Batches of item indices from a position on, until `total_images`.

    Position p shows item order(seed, p // n)[p % n]; batches run across the ends of epochs. One yielded batch is for
    one rank and iteration: of `batches` consecutive global batches of `batch_size` images, rank r of R gets the r-th of
    R contiguous parts. So each global batch holds the same images whatever the number of ranks.

    There is no `__len__`: no epoch ends here.

    Args:
        num_items: n, the length of the dataset.
        batch_size: images of one global batch, over all ranks.
        batches: global batches for each that is yielded (D steps).
        total_images: where to stop; the last batch may pass it.
        seed: at least 0.
        start: position of the first image.
        rank: of this process.
        world_size: number of ranks.
        order: of the items in an epoch, of (seed, epoch); None for `permutation`.

    Raises:
        InputError: when the ranks cannot share a batch evenly, or a count is out of range.
    """

    def __init__(
        self,
        *,
        num_items: int,
        batch_size: int,
        total_images: int,
        seed: int,
        batches: int = 1,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int, int], NDArray[np.int64]] | None = None,
    ) -> None:
        check_batch(batch_size=batch_size, batches=batches, world_size=world_size)
        if seed < 0:
            raise InputError(f"seed={seed} is negative; set seed=0 or more")
        assert num_items > 0 and start >= 0 and 0 <= rank < world_size
        self._num_items = num_items
        self._batch_size = batch_size
        self._batches = batches
        self._total_images = total_images
        self._seed = seed
        self._start = start
        self._part = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self._order_of = order or partial(permutation, num_items)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def items(self, position: int, count: int) -> NDArray[np.int64]:
        """Item numbers of the positions [position, position + count), int64 [count]."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(position, self._num_items)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._order_of(self._seed, epoch)
            piece = self._order[offset : offset + count]
            pieces.append(piece)
            position += len(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this rank, as lists of item numbers."""
        step = self._batch_size * self._batches
        for position in range(self._start, self._total_images, step):
            shown = self.items(position, step).reshape(self._batches, self._batch_size)
            yield shown[:, self._part].reshape(-1).tolist()


def check_batch(*, batch_size: int, batches: int, world_size: int) -> None:
    """Raise InputError, with the remedy, when a batch is empty or cannot be shared evenly by the ranks."""
    if batch_size < 1 or batches < 1:
        raise InputError(f"batch_size={batch_size} and d_steps={batches} must both be at least 1")
    if batch_size % world_size:
        lower = batch_size - batch_size % world_size
        nearest = f"{lower} or {lower + world_size}" if lower else str(world_size)
        raise InputError(
            f"batch_size={batch_size} cannot be shared evenly by {world_size} processes (one a device); "
            f"set batch_size={nearest}, or another number of devices"
        )


# Data module


SHARED_MEMORY = Path("/dev/shm")  # used by worker processes to send batches

_MAX_WORKERS = 8
_MEASURED, _MEASURED_BATCH = 10_000, 64  # samples that a representation is fitted to
_PREFETCHED = 2  # batches prefetched by each worker
_IN_TRAINING = 2  # batches held by training: the current one and the next
_PATIENCE_S = 600.0  # for one batch: otherwise the loop may wait forever for a worker that has died
_MAX_CLASSES_SHOWN = 20


class DataModule(pl.LightningDataModule):
    """Training batches from any number of real images shown.

    Args:
        dataset: called with `split=`, returns the data set of that split.
        batch_size: images of one D step, over all ranks.
        d_steps: D steps of one iteration; a batch of the loader holds the images of all of them.
        total_images: where training ends.
        seed: of the order.
        num_workers: decoding processes; None takes 0 for images in memory, else up to 8.
        representation: how networks see samples; None for the data set's. It is fitted to the data here.

    Attributes:
        train: the training samples.
        val: the validation samples, never mirrored; None when there are none.
        spec: what a training sample is.

    Raises:
        InputError: for bad data, before anything expensive.
    """

    def __init__(
        self,
        *,
        dataset: Callable[..., SampleDataset],
        batch_size: int,
        d_steps: int,
        total_images: int,
        seed: int,
        num_workers: int | None = None,
        representation: Representation | None = None,
    ) -> None:
        super().__init__()
        check_batch(batch_size=batch_size, batches=d_steps, world_size=1)
        if num_workers is not None and num_workers < 0:
            raise InputError(
                f"num_workers={num_workers} is negative; set 0 or more, or null for automatic"
            )
        self.train = dataset(split="train")
        try:
            self.val: SampleDataset | None = dataset(split="val", **unmirrored(dataset))
        except MissingSplit:
            self.val = None
        else:
            check_same_spec(self.train.spec, self.val.spec)
        if representation is not None:
            representation.check(self.train.spec)
            kind = self.train.spec.kind
            representation.measure(kind.to_float(part) for part in self._some(self.train))
            for split in (self.train, self.val):
                if split is not None:
                    split.spec = replace(split.spec, representation=representation)
        self.spec: SampleSpec = self.train.spec
        self._reads_packed = reads_packed(self.train)
        self._batch_size = batch_size
        self._d_steps = d_steps
        self._total_images = total_images
        self._seed = seed
        self._num_workers = num_workers

    def _some(self, split: SampleDataset) -> Iterator[Tensor]:
        """Yield stored samples of a split, at most `_MEASURED`, spread evenly."""
        count = min(split.num_stored, _MEASURED)
        chosen = np.linspace(0, split.num_stored - 1, count).astype(int)
        for start in range(0, count, _MEASURED_BATCH):
            yield split.__getitems__(chosen[start : start + _MEASURED_BATCH].tolist()).real

    def train_dataloader(self) -> DataLoader[Batch]:
        """Stored batches of this rank, from the module's `images_seen` on.

        B is batch_size * d_steps / world_size.

        Raises:
            InputError: when the ranks cannot share a batch evenly.
        """
        trainer = self.trainer
        sampler = CountingBatchSampler(
            num_items=len(self.train),
            batch_size=self._batch_size,
            batches=self._d_steps,
            total_images=self._total_images,
            seed=self._seed,
            start=int(trainer.lightning_module.images_seen) if trainer else 0,  # type: ignore[arg-type]
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            order=self.train.order,
        )
        ranks = trainer.world_size if trainer else 1
        read = PackedSamples(self.train) if self._reads_packed else self.train
        return self._loader(read, sampler, self._batch_size * self._d_steps // ranks)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Encode samples on the device: stored images have a quarter of the bytes."""
        source = batch.source
        if source is not None:
            assert self.spec.source is not None
            source = self.spec.source.encode(source)
        if self._reads_packed:
            return Batch(self.spec.representation.unpack(batch.real), batch.labels, source)
        return Batch(self.spec.encode(batch.real), batch.labels, source)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy a batch; from pinned memory without waiting."""
        return batch.to(device)

    @property
    def sources(self) -> Callable[[Sequence[int]], Tensor] | None:
        """A function from indices to stored sources (of validation, if any); None if data are not paired."""
        return None if self.spec.source is None else (self.val or self.train).sources

    @property
    def label_rows(self) -> NDArray[np.float32] | None:
        """All label vectors [M, K] of the training data, to draw attributes from; None where labels are classes."""
        return self.train.labels if self.spec.attributes else None

    def real_grid(self, n: int) -> Tensor:
        """`n` stored training samples [n, ...], fixed by the seed; classes take turns."""
        order = permutation(self.train.num_stored, self._seed, 0)
        labels = self.train.labels[order]
        if labels.ndim == 2:
            return self.train.__getitems__(order[np.arange(n) % len(order)].tolist()).real
        queues = [order[labels == label] for label in range(self.train.num_classes)]
        queues = [queue for queue in queues if len(queue)]
        classes = np.arange(n) * len(queues) // n  # [n]
        first = np.searchsorted(classes, np.arange(len(queues)))
        chosen = [int(queues[c][(i - first[c]) % len(queues[c])]) for i, c in enumerate(classes)]
        return self.train.__getitems__(chosen).real

    def real_rows(self, rows: int, columns: int) -> list[Tensor]:
        """Up to `columns` stored training samples of each of the first `rows` classes, fixed by the seed."""
        order = permutation(self.train.num_stored, self._seed, 0)
        labels = self.train.labels[order]
        classes = [order[labels == label][:columns] for label in range(rows)]
        return [self.train.__getitems__(found.tolist()).real for found in classes if len(found)]

    def describe(self) -> Table:
        """Describe the data as a table: splits, shape, classes with their counts."""
        table = Table(title="data", show_header=False, title_justify="left")
        mirrored = " (twice that with mirror images)" if self.train.flip else ""
        table.add_row("training samples", f"{self.train.num_stored:,}{mirrored}")
        table.add_row("validation samples", f"{self.val.num_stored:,}" if self.val else "none")
        shape = " x ".join(map(str, self.spec.shape))
        table.add_row(self.spec.kind.name, f"{shape} ({' x '.join(self.spec.kind.axes)})")
        if self.train.origin:
            table.add_row("from", Text(self.train.origin))
        if self.train.unreadable:
            table.add_row("left out", f"{counted(len(self.train.unreadable), 'unreadable file')}")
        if self.spec.attributes:
            spans = zip(self.spec.attributes, self.spec.attribute_ranges, strict=True)
            text = ", ".join(
                f"{in_a_line(name)} ({low:g} to {high:g})" for name, (low, high) in spans
            )
            table.add_row("attributes", Text(text))
        else:
            table.add_row("classes", f"{self.train.num_classes:,}")
            table.add_row("samples a class", Text(self._histogram()))
        return table

    def _histogram(self) -> str:
        pairs = [
            f"{in_a_line(name)}: {count:,}"
            for name, count in zip(self.train.class_names, self.train.class_counts, strict=True)
        ]
        if len(pairs) <= _MAX_CLASSES_SHOWN:
            return "  ".join(pairs)
        half = _MAX_CLASSES_SHOWN // 2
        counts = self.train.class_counts
        return (
            f"{'  '.join(pairs[:half])}  ... {len(pairs) - 2 * half:,} more ...  {'  '.join(pairs[-half:])}"
            f"\n(fewest {min(counts):,}, most {max(counts):,})"
        )

    def _loader(
        self, dataset: SampleDataset | PackedSamples, sampler: Sampler[list[int]], batch_size: int
    ) -> DataLoader[Batch]:
        workers = self._fitting(self._workers(dataset), dataset, batch_size)
        if workers:
            # unlike atexit also in processes that multiprocessing started
            Finalize(None, _kill_remaining_workers, exitpriority=100)
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_ignore_signals,
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
            persistent_workers=workers > 0,
            prefetch_factor=_PREFETCHED if workers else None,
            timeout=_PATIENCE_S if workers else 0,
            # otherwise the loader would draw from the global generator
            generator=torch.Generator().manual_seed(self._seed),
        )

    def _fitting(
        self, workers: int, dataset: SampleDataset | PackedSamples, batch_size: int
    ) -> int:
        """Return the number of workers that shared memory suffices for, at most the requested one.

        Without enough, a worker's batch is lost silently, and the loop waits forever.

        Raises:
            InputError: when more workers were requested.
        """
        if not workers or not SHARED_MEMORY.is_dir():
            return workers
        free = shutil.disk_usage(SHARED_MEMORY).free
        ranks = self.trainer.num_devices if self.trainer else 1
        one = dataset.__getitems__([0])
        tensors = [one.real, one.labels, one.source]
        there = [part for part in tensors if part is not None]
        # each tensor takes whole pages, after a header
        batch = sum(batch_size * part.nbytes + 2 * mmap.PAGESIZE for part in there)
        possible = max(0, (free // (ranks * batch) - _IN_TRAINING) // _PREFETCHED)
        if possible >= workers:
            return workers
        needed = (workers * _PREFETCHED + _IN_TRAINING) * batch * ranks
        room = f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB are needed"
        more = f"a container gets more by docker run --shm-size={needed // 2**30 + 1}g"
        if self._num_workers is None:
            warn(f"{possible} processes read samples, not {workers}: {room}; {more}")
            return possible
        raise InputError(f"num_workers={workers}: {room}; set num_workers={possible}, or {more}")

    def _workers(self, dataset: SampleDataset | PackedSamples) -> int:
        if self._num_workers is not None:
            return self._num_workers
        if dataset.in_memory:
            return 0
        cpus = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        ranks = self.trainer.num_devices if self.trainer else 1
        return max(1, min(_MAX_WORKERS, cpus // ranks))


def reads_packed(data: SampleDataset) -> bool:
    """Whether training reads packed representations in place of the samples.

    Raises:
        InputError: where another one packed it, or samples are mirrored, whose packed values are not.
    """
    wanted = data.spec.representation.pack_name if data.packed_by else ""
    if not wanted:
        return False
    if data.packed_by != wanted:
        raise InputError(
            f"the data were packed with {data.packed_by}, and representation= is {wanted}; pack them again with "
            "prepare-data, or set representation.model to the one that packed them"
        )
    if data.flip:
        raise InputError("data.flip=true: mirror images are not packed; set data.flip=false")
    return True


def unmirrored(dataset: Callable[..., SampleDataset]) -> dict[str, bool]:
    """Return `flip=False` for a data set that takes it."""
    parameters = signature(dataset).parameters
    rest = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    return {"flip": False} if "flip" in parameters or rest else {}


def loader_failure(error: Exception) -> str | None:
    """Describe how a loader's worker process ended; None for any other error."""
    text = str(error)
    if " in DataLoader worker process " in text and isinstance(error, InputError):
        # torch puts the traceback before it
        return text.strip().splitlines()[-1].partition(": ")[2].rstrip(".")
    if re.match(r"DataLoader (worker \(|timed out)", text) is not None:
        what = text.partition(". ")[0].replace("DataLoader worker", "a process that reads samples")
    elif isinstance(error, EOFError | ConnectionError) and _in_loader(error):
        what = "a process that reads samples is gone"
    else:
        return None
    return (
        f"{what.strip().rstrip('.')}; where memory is short, set num_workers=0 or fewer (a container's shared memory: "
        "docker run --shm-size=1g)"
    )


def _in_loader(error: BaseException) -> bool:
    """Whether an error was raised while receiving a worker's batch."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parts[-2:] == ("data", "dataloader.py") for frame in frames)


def _ignore_signals(worker: int) -> None:
    """Ignore signals: terminals and SLURM send them to all processes, and workers must outlive the final save."""
    for number in {signal.SIGINT, *slurm.PREEMPT_SIGNALS, *([HANGUP] if HANGUP else [])}:
        signal.signal(number, signal.SIG_IGN)


def _kill_remaining_workers() -> None:
    """Kill remaining workers at exit: multiprocessing would send SIGTERM, which they ignore, and wait forever."""
    left = [child for child in active_children() if child.daemon]
    if left and hasattr(signal, "SIGCHLD"):
        # torch would report a failure
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in left:
        child.kill()


def _unchanged(batch: Any) -> Any:
    """Return the batch unchanged: `__getitems__` has collated it."""
    return batch
