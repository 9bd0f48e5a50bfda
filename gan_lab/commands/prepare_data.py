"""gan-lab prepare-data: pack samples, images at one size, into one file or a folder of shards."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from gan_lab.commands.options import pick_device
from gan_lab.config import build, cache_dir
from gan_lab.console import progress_bar, say, warn
from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.datamodule import unmirrored
from gan_lab.data.image_files import UnreadableImage
from gan_lab.data.listing import PACKED_ENDING, SOURCE_ENDING, format_names
from gan_lab.data.metadata import MetadataTable, join_tables
from gan_lab.data.packing import Damaged, Encoded, PackedSample, Packer, disk_full
from gan_lab.data.sample import Representation, as_node
from gan_lab.data.shards import INDEX, Shard, read_shard, shard_name, shard_rows, write_index
from gan_lab.data.source import reason_of
from gan_lab.data.text import Text
from gan_lab.data.text_files import pack_lines
from gan_lab.errors import InputError, counted
from gan_lab.run import write

_SPLITS = {"all": ("train", "val"), "train": ("train",), "val": ("val",)}

_OF_SHARDS = re.compile(rf"\.?(shard-|part-|{INDEX})")  # files of a folder of shards

_MOST_ROWS = 100_000  # of a shard: each is an object while its zip is written
_SIZED = 64  # samples whose mean size determines the samples per shard

Item = tuple[SampleDataset, int]  # a data set and the index of a stored sample


def run(config: DictConfig) -> None:
    """Pack the configured images; resumes after a kill.

    Raises:
        InputError: for bad data or options, a finished file in the way, or a full disk.
    """
    part, parts = _part(config)
    if config.merge:
        _merge(Path(config.out or "").expanduser())
        return
    out = _destination(config.out, config.overwrite)
    datasets = _datasets(config)
    beside = _beside(config, datasets[0])
    lock = cache_dir() / "locks" / f"{digest(str(out.resolve()), part, parts)}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            kind = datasets[0].spec.kind
            if isinstance(kind, Text) and out.suffix:
                _pack_text(datasets, kind, out)
                return
            packing = _Packing(
                datasets=datasets,
                beside=beside,
                num_threads=config.num_threads or os.cpu_count() or 1,
                processes=_processes(config.processes, beside),
                skip_unreadable=bool(config.data.get("skip_unreadable", False)),
            )
            if out.suffix:
                packing.to_zip(out)
                return
            packing.to_shards(out, config.shard_mb, part, parts)
            if parts == 1:
                _merge(out)
    except Timeout:
        raise InputError(
            f"another prepare-data is writing {out}; wait for it, or set another out="
        ) from None
    except OSError as error:
        raise disk_full(error, out) or error from error


def _part(config: DictConfig) -> tuple[int, int]:
    """Return the number of this part, from 1 on, and how many parts there are.

    Raises:
        InputError: for an invalid part.
    """
    if config.part is None:
        return 1, 1
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", config.part)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise InputError(f"part={config.part}; allowed: 1/16 to 16/16, for 16 jobs, and the like")
    if Path(config.out or "").suffix or config.merge:
        raise InputError(
            f"part={config.part} is of a folder of shards; set out={Path(config.out or 'shards').stem}, and merge=true "
            "only when all parts are done"
        )
    return part, parts


def _processes(processes: int, beside: Representation | None) -> int:
    if processes > 1 and beside is not None:
        raise InputError(
            f"processes={processes}: a representation is computed in one process, on the GPU if there is one; leave "
            "processes out, or give each job a part="
        )
    return processes


def _merge(out: Path) -> None:
    index = write_index(out)
    size = sum(shard["bytes"] for shard in index.shards)
    say(
        f"{out}: {counted(len(index.positions), 'sample')} in {counted(len(index.shards), 'shard')}, "
        f"{size / 1e6:,.1f} MB; train on it with data=streaming data.root={out}, or copy the folder to a store and "
        "give its URL"
    )


def _pack_text(datasets: list[SampleDataset], kind: Text, out: Path) -> None:
    if out.suffix != ".npz":
        raise InputError(
            f"out={out}: lines of text are packed into an .npz, or a folder of shards; set "
            f"out={out.with_suffix('.npz')}, or out={out.with_suffix('')}"
        )
    count = pack_lines(datasets, kind, out)
    say(
        f"{out}: {count:,} lines of {kind.length} characters, an alphabet of {len(kind.alphabet)}, "
        f"{out.stat().st_size / 1e6:,.1f} MB; train on it with data=text data.root={out}"
    )


def _destination(out: str | None, overwrite: bool) -> Path:
    if not out:
        raise InputError("out is not set; set out=photos64.zip, the zip to write, or a folder")
    path = Path(out).expanduser()
    if path.is_dir():
        others = [one.name for one in path.iterdir() if not _OF_SHARDS.match(one.name)]
        if path.suffix or others:
            raise InputError(
                f"out={path} is a folder{' with other files' if others else ''}; set out={path / 'images.zip'}, or for "
                f"shards {path.with_suffix('') / 'shards'}"
            )
    done = path / INDEX if not path.suffix and path.is_dir() else path
    if done.exists() and not overwrite:
        raise InputError(f"out={path} exists; set overwrite=true to replace it, or another out=")
    if done.name == INDEX:
        done.unlink(missing_ok=True)
    elif path.is_file() and not path.suffix:
        raise InputError(f"out={path} is a file; set out={path}.zip, or a folder")
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
        InputError: for one that has nothing to pack, or does not support the samples.
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
    return found.to(pick_device(config.device))


@dataclass(kw_only=True)
class _Packing:
    """What is packed, and how.

    Attributes:
        datasets: of the splits.
        beside: what is packed beside the samples, or None.
        num_threads: encoding threads.
        processes: encoding processes, instead of threads if more than 1.
        skip_unreadable: whether damaged samples are left out.
    """

    datasets: list[SampleDataset]
    beside: Representation | None
    num_threads: int
    processes: int
    skip_unreadable: bool

    def __post_init__(self) -> None:
        self.packed_by = self.beside.pack_name if self.beside else ""
        self.items = [(data, i) for data in self.datasets for i in range(data.num_stored)]
        self.table = join_tables(
            [replace(d.metadata, splits=[d.split] * d.num_stored) for d in self.datasets]
        )
        self.plan = digest([data.fingerprint for data in self.datasets], self.packed_by)

    def to_zip(self, out: Path) -> None:
        """Pack everything into one zip.

        Raises:
            InputError: also for pairs.
        """
        if out.suffix != ".zip":
            raise InputError(
                f"out={out}: a zip ends in .zip, and the name of a folder of shards has no dot; set out={out.stem}.zip "
                f"or out={out.stem}"
            )
        if self.datasets[0].spec.source is not None:
            raise InputError(
                f"out={out}: the data are pairs, and no data= reads the sources from a zip; set "
                f"out={out.with_suffix('')} for shards"
            )
        packer = self._packer(out, self.table, self.plan)
        if packer.done:
            say(f"resuming after {packer.done:,} of {counted(len(self.items), 'sample')}")
        with progress_bar("packing", len(self.items), completed=packer.done) as advance:
            self._pack(packer, self.items, out, advance)
        num_packed = len(self.items) - len(packer.damaged)
        unreadable = [pair for data in self.datasets for pair in data.unreadable]
        _report(out, self.datasets[0], num_packed, unreadable + packer.damaged)

    def to_shards(self, folder: Path, shard_mb: float, part: int, parts: int) -> None:
        """Pack the missing shards of a part."""
        assert self.table.splits is not None
        rows_a_shard = max(1, min(_MOST_ROWS, int(shard_mb * 1e6 / self._mean_bytes())))
        shards = shard_rows(self.table.splits, rows_a_shard=rows_a_shard)
        excerpts = {data.split: as_node(data.excerpts) for data in self.datasets}
        plan = digest(self.plan, self.table.content(), shard_mb)
        mine = list(enumerate(shards))[part - 1 :: parts]
        folder.mkdir(parents=True, exist_ok=True)
        total, done = sum(len(rows) for _, (_, rows) in mine), 0
        damaged: list[tuple[str, str]] = []
        with progress_bar("packing", total) as advance:
            for number, (split, rows) in mine:
                out = folder / shard_name(number)
                there = read_shard(out)
                if there is None or (there["plan"], there["number"]) != (plan, number):
                    table = self.table.rows(rows)
                    packer = self._packer(out, table, digest(plan, number))
                    items = [self.items[row] for row in rows.tolist()]
                    self._pack(
                        packer,
                        items,
                        out,
                        advance,
                        before=done,
                        shard=Shard(
                            plan=plan,
                            number=number,
                            of=len(shards),
                            split=split,
                            rows=len(rows),
                            left_out=0,
                            packed_by=self.packed_by,
                            spec=self.datasets[0].spec.as_dict(),
                            excerpts=excerpts[split],
                        ),
                    )
                    damaged += packer.damaged
                done += len(rows)
                advance(done)
        unreadable = [pair for one in self.datasets for pair in one.unreadable] + damaged
        if unreadable:
            warn(f"left out {_list_unreadable(folder / f'part-{part}', unreadable)}")
        if parts > 1:
            say(
                f"{folder}: part {part} of {parts} is done, {counted(len(mine), 'shard')} of {len(shards):,}; when all "
                f"are, gan-lab prepare-data out={folder} merge=true"
            )

    def _mean_bytes(self) -> float:
        """Bytes of a sample in memory, on average over some of them."""
        data = self.datasets[0]
        sizes = []
        for index in np.linspace(0, data.num_stored - 1, min(data.num_stored, _SIZED)).astype(int):
            with suppress(UnreadableImage):
                sizes.append(data.load_content(int(index)).nbytes)
        if not sizes:
            raise InputError("none of the first samples can be read; repair or remove them")
        return float(np.mean(sizes))

    def _packer(self, out: Path, table: MetadataTable, plan: str) -> Packer:
        suffix = self.datasets[0].spec.kind.suffix
        return Packer(out=out, table=table, plan=plan, suffix=suffix)

    def _pack(
        self,
        packer: Packer,
        items: list[Item],
        out: Path,
        advance: Callable[[int], None],
        *,
        before: int = 0,
        shard: Shard | None = None,
    ) -> None:
        """Pack what is left of some items, and finish their file."""
        try:
            for done in packer.pack(
                lambda row: _encode(items[row], self.beside),
                num_threads=self.num_threads,
                processes=self.processes,
            ):
                advance(before + done)
            if len(packer.damaged) == len(items) and shard is None:
                raise InputError(f"none of the {counted(len(items), 'sample')} can be read")
            if packer.damaged and not self.skip_unreadable:
                packer.checkpoint()
                raise InputError(_damaged(out, packer.damaged))
            if shard is None:
                packer.finish(self.packed_by)
            else:
                packer.finish(self.packed_by, shard={**shard, "left_out": len(packer.damaged)})
        except BaseException:
            packer.abandon()
            raise


def _encode(item: Item, beside: Representation | None) -> Encoded:
    """Return the file of a sample, its source's, and what a representation packs of it as a NumPy file of float16."""
    data, index = item
    files: dict[str, bytes] = {}
    try:
        if data.spec.source is not None:
            files[SOURCE_ENDING] = data.spec.source.kind.encoded(data.load_source(index))
        if beside is not None:
            stored = data.load(index)[None].to(next(iter(beside.state_dict().values())).device)
            values = beside.pack(data.spec.kind.to_float(stored))[0]
            file = BytesIO()
            np.save(file, values.cpu().numpy().astype(np.float16))
            files[PACKED_ENDING] = file.getvalue()
        return PackedSample(sample=data.pack(index), beside=files) if files else data.pack(index)
    except UnreadableImage as error:
        return Damaged(reason=reason_of(error.__cause__ or error))


def _report(
    out: Path, data: SampleDataset, num_packed: int, unreadable: list[tuple[str, str]]
) -> None:
    spec = data.spec
    shape = " x ".join(map(str, spec.shape)) if spec.is_image else f"{spec.kind.name}"
    options = spec.kind.zip_options(spec.shape)
    reader = f"train on it with {options} data.root={out}"
    if not options:
        reader = f"a data set of your own has to read it; shards ({out.stem}/) need none"
    say(
        f"{out}: {counted(num_packed, 'sample')} of {shape}, {data.num_classes:,} "
        f"{'class' if data.num_classes == 1 else 'classes'}, {out.stat().st_size / 1e6:,.1f} MB; {reader}"
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
