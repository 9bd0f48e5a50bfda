import io
import mmap
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule, Trainer
from rich.console import Console

from gan_lab.config import build, conf_dir
from gan_lab.data import datamodule
from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import DataModule, permutation
from gan_lab.data.image_files import UnreadableImage
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.sample import Batch
from gan_lab.errors import InputError
from tests.helpers.datamodules import attach, module
from tests.helpers.samples import pair

BATCH = (
    8 * (6 * 8 * 3 + 8) + 4 * mmap.PAGESIZE
)  # bytes of 8 images and their labels, in whole pages


def shown(data: DataModule) -> list[Batch]:
    return list(data.train_dataloader())


def equal(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(one.real, two.real) and torch.equal(one.labels, two.labels)
        for one, two in zip(ours, theirs, strict=True)
    )


def test_batches_are_uint8_and_follow_the_permutation() -> None:
    data = module()
    batches = shown(data)
    assert len(batches) == 10
    order = permutation(1437, 0, 0)
    for number, batch in enumerate(batches):
        images, labels = batch.real, batch.labels
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        chosen = order[8 * number : 8 * number + 8]
        assert torch.equal(images, data.train.__getitems__(chosen).real)
        assert labels.tolist() == data.train.labels[chosen].tolist()


def test_a_batch_holds_the_images_of_all_d_steps() -> None:
    single, triple = shown(module(total_images=72)), shown(module(total_images=72, d_steps=3))
    assert len(triple) == 3
    for number, batch in enumerate(triple):
        parts = [part.real for part in single[3 * number : 3 * number + 3]]
        assert torch.equal(batch.real, torch.cat(parts))


def test_goes_on_from_the_images_seen() -> None:
    straight = shown(module())
    data = module()
    attach(data, seen=48)
    assert equal(shown(data), straight[6:])
    attach(data, seen=80)
    assert shown(data) == []


@pytest.mark.parametrize("d_steps", [1, 2])
def test_ranks_share_each_d_step(d_steps: int) -> None:
    whole = shown(module(d_steps=d_steps))
    parts = []
    for rank in range(4):
        data = module(d_steps=d_steps)
        attach(data, rank=rank, world_size=4)
        parts.append(shown(data))
    for number, batch in enumerate(whole):
        of_ranks = [part[number].real.unflatten(0, (d_steps, 2)) for part in parts]
        assert torch.equal(torch.cat(of_ranks, dim=1).flatten(0, 1), batch.real)


def test_ranks_that_cannot_share_get_a_hint_what_to_set() -> None:
    data = module(batch_size=6)
    attach(data, world_size=4)
    with pytest.raises(InputError, match="set batch_size=4 or 8"):
        data.train_dataloader()


def test_global_random_state_is_unchanged(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path, [f"{i}.png" for i in range(9)])
    for workers in (0, 2):
        data = module(dataset=partial(ImageFolder, root=tmp_path), num_workers=workers)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
        shown(data)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[union-attr]


def test_worker_processes_give_the_same_stream(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path, [f"{i % 3}/{i}.png" for i in range(30)])
    streams = []
    for workers in (0, 1, 2):
        data = module(
            dataset=partial(ImageFolder, root=tmp_path, flip=True, image_size=[4, 6]),
            num_workers=workers,
            d_steps=2,
        )
        attach(data, seen=16)
        streams.append(shown(data))
    assert len(streams[0]) == 4
    assert equal(streams[0], streams[1])
    assert equal(streams[0], streams[2])


def test_a_worker_names_a_file_that_goes_bad(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    data = module(dataset=partial(ImageFolder, root=tmp_path), num_workers=1)
    (tmp_path / "b.png").write_bytes(b"gone bad")
    with pytest.raises(UnreadableImage) as caught:
        shown(data)
    assert str(caught.value).startswith("b.png cannot be read")
    assert "\n" not in str(caught.value)


IN_A_PROCESS = """
from multiprocessing import get_context
child = get_context("fork").Process(target=begin)
child.start()
child.join(60)
assert child.exitcode == 0
"""


@pytest.mark.parametrize("run", ["begin()", IN_A_PROCESS], ids=["interpreter", "child process"])
def test_a_process_ends_with_workers_that_are_still_there(
    tmp_path: Path, write_images: Any, run: str
) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    program = f"""
from functools import partial
from gan_lab.data.image_folder import ImageFolder
from tests.helpers.datamodules import attach, module

def begin():
    global images
    data = module(dataset=partial(ImageFolder, root={str(tmp_path)!r}), num_workers=1)
    attach(data)
    images = iter(data.train_dataloader())
    next(images)
    images._shutdown = True  # nobody tells the worker that it is over
"""
    done = subprocess.run(
        [sys.executable, "-c", program + run], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_workers_are_chosen_where_they_help(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path, ["a.png"])
    assert module().train_dataloader().num_workers == 0
    folder = partial(ImageFolder, root=tmp_path)
    assert 1 <= module(dataset=folder).train_dataloader().num_workers <= 8
    assert module(dataset=folder, num_workers=0).train_dataloader().num_workers == 0
    with pytest.raises(InputError, match="num_workers=-1"):
        module(num_workers=-1)


def test_images_become_float_after_the_transfer() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    data = module()
    data.spec = replace(data.spec, source=data.spec)
    batch = Batch(images, torch.tensor([3]), source=images.flip(-1))
    result = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(result.real.flatten(), torch.arange(256) / 127.5 - 1)
    assert torch.equal(result.source, result.real.flip(-1))
    assert result.labels.tolist() == [3]


def test_a_batch_moves_to_the_device_as_a_whole() -> None:
    batch = Batch(torch.zeros(2, 1), source=torch.ones(2, 1))
    moved = module().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert isinstance(moved, Batch)
    assert moved.real.is_meta and moved.source.is_meta and moved.labels is None


class Recorder(LightningModule):
    def __init__(self, seen: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.images_seen = torch.tensor(seen)
        self.batches: list[Batch] = []

    def training_step(self, batch: Batch) -> None:
        self.batches.append(batch)

    def configure_optimizers(self) -> None:
        return None


def test_lightning_trains_to_the_end_of_the_stream() -> None:
    recorder = Recorder(seen=24)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    data = module()
    trainer.fit(recorder, datamodule=data)
    expected = [data.on_after_batch_transfer(batch, 0) for batch in shown(module())[3:]]
    assert equal(recorder.batches, expected)


def test_validation_is_never_mirrored_and_may_be_missing(tmp_path: Path, write_images: Any) -> None:
    data = module(dataset=partial(Digits, image_size=8, flip=True))
    assert len(data.train) == 2 * 1437
    assert data.val is not None
    assert len(data.val) == 360
    write_images(tmp_path, ["a.png"])
    assert module(dataset=partial(ImageFolder, root=tmp_path)).val is None


def test_attributes_describe_the_training_images() -> None:
    data = module(dataset=partial(Digits, image_size=[8, 16], channels=3))
    assert (data.spec.shape, data.spec.num_classes) == ((3, 8, 16), 10)
    assert list(data.spec.class_counts) == np.bincount(data.train.labels).tolist()


def printed(data: DataModule) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(data.describe())
    return file.getvalue()


def test_description_has_sizes_splits_and_classes() -> None:
    text = printed(module(dataset=partial(Digits, image_size=[8, 16], flip=True)))
    for part in ("1,437 (twice that", "360", "1 x 8 x 16", "0: 142", "9: 144"):
        assert part in text


def test_description_abbreviates_many_classes(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path, [f"[c{i:03d}]/{j}.png" for i in range(50) for j in range(1 + i % 2)])
    text = printed(module(dataset=partial(ImageFolder, root=tmp_path)))
    assert "[c000]: 1" in text
    assert "30 more" in text
    assert "fewest 1, most 2" in text
    assert "[c025]" not in text
    assert "[c049]: 2" in text


@pytest.mark.parametrize("n", [1, 7, 10, 25, 100])
def test_grid_of_reals_goes_through_the_classes(n: int) -> None:
    data = module()
    images = data.real_grid(n)
    assert images.shape == (n, 1, 8, 8)
    assert torch.equal(images, module().real_grid(n))
    labels: dict[bytes, int] = {}
    everything, numbers = pair(data.train.__getitems__(range(1437)))
    for image, label in zip(everything, numbers.tolist(), strict=True):
        labels[image.numpy().tobytes()] = label
    found = [labels[image.numpy().tobytes()] for image in images]
    assert found == [i * 10 // n for i in range(n)]
    assert len({image.numpy().tobytes() for image in images}) == n


def test_splits_that_differ_are_rejected(tmp_path: Path, write_images: Any) -> None:
    write_images(tmp_path / "train", ["a/1.png"])
    write_images(tmp_path / "val", ["b/1.png"])

    def dataset(*, split: str, flip: bool = False) -> ImageFolder:
        return ImageFolder(split="train", root=tmp_path / split, flip=flip)

    with pytest.raises(InputError, match=r"class_names.*'a'.*'b'"):
        module(dataset=dataset)


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml")))
def test_every_config_names_arguments_of_its_dataset(name: str, tmp_path: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("prepare_data", overrides=[f"data={name}"])
    dataset = build(config.data)
    without_files = {
        "digits": 360,
        "stacked_digits": 128_000,
        "random": 10_000,
        "tones": 1024,
        "phantoms": 512,
    }
    if name in without_files:
        assert len(dataset(split="val")) == without_files[name]
    elif name == "python_docs":  # as many lines as this Python's documentation has
        assert len(dataset(split="val")) > 500
    else:
        with pytest.raises(
            InputError,
            match=r"data\.(root is not set; set data\.root=PATH to|name is not set)",
        ):
            dataset(split="train")


def test_an_infinite_run_costs_no_more_to_start() -> None:
    data = module(total_images=10**15)
    attach(data, seen=10**14)
    assert len(list(islice(data.train_dataloader(), 3))) == 3


@pytest.mark.parametrize(
    ("free", "given", "expected"),
    [
        (10**12, 4, 4),
        (10**12, None, 2),
        (0, None, 0),
        (4 * BATCH, None, 1),
        (0, 0, 0),
        (8 * BATCH, 4, "num_workers=3"),
        (2 * BATCH, 4, "num_workers=0"),
    ],
)
def test_shared_memory_is_looked_at_before_the_first_step(
    free: int,
    given: int | None,
    expected: int | str,
    tmp_path: Path,
    write_images: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datamodule, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(datamodule, "_MAX_WORKERS", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    write_images(tmp_path / "photos", ["a.png"])
    data = module(dataset=partial(ImageFolder, root=tmp_path / "photos"), num_workers=given)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=f"{expected}, or .*--shm-size="):
            data.train_dataloader()
    else:
        assert data.train_dataloader().num_workers == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "(pid(s) 7) exited"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"), "Bus error"),
        (RuntimeError("DataLoader timed out after 600 seconds"), "600 seconds"),
        (InputError("Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most "
                    "recent call last):\n  File\ngan_lab.errors.InputError: a.png: is bad\n"), "a.png: is bad"),
        (RuntimeError("CUDA error"), None),
        (EOFError("of another file"), None),
        (InputError("a.png is bad"), None),
    ],
)  # fmt: skip
def test_what_becomes_of_a_worker_is_reported_in_a_sentence(
    error: Exception, said: str | None
) -> None:
    found = datamodule.loader_failure(error)
    assert found == said or (said is not None and said in str(found))
    assert found is None or "\n" not in found
