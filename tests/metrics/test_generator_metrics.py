"""Metrics of a generator: measured in pieces that outlive a kill and are shared among processes."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from gan_lab.metrics import generator_metrics
from gan_lab.metrics.cache import FolderChunks, MemoryChunks
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue
from gan_lab.metrics.features import NoFeatures
from gan_lab.metrics.generator_metrics import GeneratorMetric
from gan_lab.metrics.sources import GanImages
from gan_lab.sampling.gan import Gan
from tests.helpers.linear import Linear

NUM = 40


class Numbers(GeneratorMetric):
    """Measures the square of each number, and stops at a given one."""

    kind, short, size = "numbers", "numbers", 4

    def __init__(self, *, step: float = 1.0) -> None:
        super().__init__(key="numbers")
        self._step = step

    def num(self, context: MetricContext) -> int:
        return NUM

    def outcomes(self, images: GanImages, context: MetricContext, start: int, stop: int) -> Tensor:
        ASKED.append((start, stop))
        if STOP_AT is not None and stop > STOP_AT:
            raise KeyboardInterrupt
        return torch.arange(start, stop).double().square() * self._step

    def summary(self, found: Tensor, context: MetricContext) -> list[MetricValue]:
        return [MetricValue(key="numbers", value=found.sum().item())]


ASKED: list[tuple[int, int]] = []
STOP_AT: int | None = None
EXPECTED = torch.arange(NUM).double().square()


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_metrics, "_CHUNK", 16)
    ASKED.clear()


def images() -> GanImages:
    return GanImages(Gan(Linear().eval()), seed=0)


def context() -> MetricContext:
    extractor = NoFeatures()
    extractor.load(torch.device("cpu"))
    return MetricContext(
        extractor=extractor, num_fake=NUM, num_real=0, num_real_features=0, all_real=False
    )


def test_a_second_call_goes_on_where_the_first_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, metric, done = FolderChunks(tmp_path / "kept"), Numbers(), list[int]()
    monkeypatch.setitem(globals(), "STOP_AT", 24)
    with pytest.raises(KeyboardInterrupt):
        metric.measure(images(), context(), store, done.append)
    assert done == [16] and metric.present(context(), store) == 16
    monkeypatch.setitem(globals(), "STOP_AT", None)
    ASKED.clear()
    found = metric.measure(images(), context(), store, done.append)
    assert torch.equal(found, EXPECTED)
    assert ASKED == [(16, 20), (20, 24), (24, 28), (28, 32), (32, 36), (36, 40)]
    assert done == [16, 16, 32, 40] and metric.present(context(), store) == NUM
    # what was found with other settings is something else
    other = Numbers(step=2.0)
    assert other.present(context(), store) == 0
    assert torch.equal(other.measure(images(), context(), store, done.append), 2 * EXPECTED)


def one_of_two(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    found = Numbers().measure(images(), context(), MemoryChunks(), lambda done: None)
    torch.save([found, ASKED], folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_share_the_work_and_find_the_same(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    (first, mine), (second, theirs) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, EXPECTED) and torch.equal(second, EXPECTED)
    assert len(mine) == 6 and len(theirs) == 4 and not {*mine} & {*theirs}
