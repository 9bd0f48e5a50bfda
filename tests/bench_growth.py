"""How loading grows with the number of images: start-up, CPU time an image, and memory of a worker, zip and shards.

python tests/bench_growth.py [images ...]        1000 100000 by default; 10,000,000 as an index alone, last

The images are scikit-learn's digits, 16x16, again and again. Each line is measured in a process of its own; times are
of the processor, so that other processes of the machine do not count.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gan_lab.data.base import SampleDataset
from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import CountingBatchSampler
from gan_lab.data.image_folder import Zip
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.packing import Packer
from gan_lab.data.sample import as_node
from gan_lab.data.shards import INDEX, Shard, ShardEntry, save_index, shard_name, write_index
from gan_lab.data.streaming import StreamedSamples

A_SHARD = 10_000  # images
SEEN = 20_000
INDEX_ALONE = 10_000_000


def table_of(digits: Digits, count: int) -> MetadataTable:
    return MetadataTable(
        files=["digit"] * count,
        labels=np.resize(digits.labels, count),
        class_names=digits.class_names,
    )


def make_zip(out: Path, count: int) -> None:
    digits = Digits(split="train")
    files = [digits.pack(number) for number in range(len(digits))]
    packer = Packer(out=out, table=table_of(digits, count), plan="growth")
    for _ in packer.pack(lambda row: files[row % len(files)], num_threads=1):
        pass
    packer.finish()


def make_shards(folder: Path, count: int) -> None:
    digits = Digits(split="train")
    files = [digits.pack(number) for number in range(len(digits))]
    folder.mkdir()
    shards = -(-count // A_SHARD)
    for number in range(shards):
        rows = min(A_SHARD, count - number * A_SHARD)
        packer = Packer(
            out=folder / shard_name(number), table=table_of(digits, rows), plan=f"{number}"
        )
        for _ in packer.pack(lambda row: files[row % len(files)], num_threads=1):
            pass
        packer.finish(
            shard=Shard(
                plan="growth",
                number=number,
                of=shards,
                split="train",
                rows=rows,
                left_out=0,
                packed_by="",
                spec=digits.spec.as_dict(),
                excerpts=as_node(digits.excerpts),
            )
        )
    write_index(folder)


def make_index(folder: Path, count: int) -> None:
    """Write an index whose shards are not there."""
    folder.mkdir()
    digits = Digits(split="train")
    positions = np.empty((count, 3), dtype=np.uint32)
    positions[:, 0] = np.tile(np.arange(A_SHARD) * 400, count // A_SHARD)
    positions[:, 1], positions[:, 2] = 300, np.arange(count)
    size = A_SHARD * 400
    save_index(
        folder / INDEX,
        [
            ShardEntry(
                name=shard_name(number), bytes=size, split="train", count=A_SHARD, table=(0, 0, 0)
            )
            for number in range(count // A_SHARD)
        ],
        {"positions": positions, "labels": np.resize(digits.labels, count).astype(np.int32)},
        spec=digits.spec.as_dict(),
        packed_by="",
        excerpts={"train": as_node(digits.excerpts)},
    )


def memory() -> dict[str, float]:
    """Return MB of this process: all ("rss"), what no other process shares ("own"), and its part of the rest, too.

    The last one ("pss") counts a page that n processes share as 1/n of a page: of all processes these add up to what
    is in use.
    """
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) / 1000
    own = found["Private_Clean"] + found["Private_Dirty"]
    return {"rss": found["Rss"], "own": own, "pss": found["Pss"]}


def load(data: SampleDataset, batches: list[list[int]], found: Any) -> None:
    """Load batches, as a worker does, and say what it took."""
    begin = time.process_time()
    count = sum(len(data.__getitems__(batch)) for batch in batches)
    each = (time.process_time() - begin) / count
    found.put({"us": 1e6 * each, **memory()})


def measure(kind: str, path: Path) -> dict[str, float]:
    opened = Zip if kind == "zip" else StreamedSamples
    starts = []
    for _ in range(2):  # with an empty cache, and with a full one
        begin = time.process_time()
        data = opened(split="train", root=str(path))
        sampler = CountingBatchSampler(
            num_items=len(data), batch_size=64, total_images=SEEN, seed=0, order=data.order
        )
        batches = list(sampler)
        starts.append(time.process_time() - begin)
    result = {"first": starts[0], "again": starts[1], "main": memory()["rss"]}
    if kind == "index":
        return result
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    worker = context.Process(target=load, args=(data, batches, found))
    worker.start()
    result |= found.get()
    worker.join()
    return result


def line(kind: str, count: int, folder: Path) -> None:
    path = folder / (f"{count}.zip" if kind == "zip" else f"{kind}{count}")
    begin = time.process_time()
    {"zip": make_zip, "shards": make_shards, "index": make_index}[kind](path, count)
    made = time.process_time() - begin
    environment = {**os.environ, "GAN_LAB_CACHE": str(folder / f"cache-{path.name}")}
    command = [sys.executable, __file__, "--measure", kind, str(path)]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(run.stdout.splitlines()[-1])
    cells = [f"{found['first']:.2f} s", f"{found['again']:.2f} s"]
    cells += [f"{found['us']:.0f} µs" if "us" in found else "-"]
    cells += [f"{found[key]:.0f} MB" if key in found else "-" for key in ("rss", "own", "pss")]
    cells += [f"{found['main']:.0f} MB", f"{made:.1f} s"]
    print(f"| {kind} | {count:,} | {' | '.join(cells)} |", flush=True)


def main(counts: list[int]) -> None:
    print(
        "| | images | start, first | start, again | an image | worker | its own | its part | main | making |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            for kind in ("zip", "shards"):
                line(kind, count, Path(folder))
        line("index", INDEX_ALONE, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main([int(count) for count in sys.argv[1:]] or [1_000, 100_000])
