"""FID and IS: how generated images compare with real ones in the eyes of Inception.

Heusel et al. 2017, https://arxiv.org/abs/1706.08500; Salimans et al. 2016, https://arxiv.org/abs/1606.03498.
"""

import time
import warnings
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.utilities.data import dim_zero_cat

from gan_lab.console import say, warn
from gan_lab.data.base import ImageDataset, digest
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.errors import InputError
from gan_lab.images import to_uint8
from gan_lab.metrics.base import Fakes
from gan_lab.metrics.cache import cached_tensors
from gan_lab.metrics.frechet import frechet_distance_from_statistics, refuse_small_sample
from gan_lab.metrics.inception_network import (
    WIDTHS,
    InceptionNetwork,
    WeightsUnavailable,
    check_weights,
    find_weights,
)
from gan_lab.metrics.inception_score import inception_score
from gan_lab.metrics.real_sample import RealSample

_LOADED_AT_ONCE = 64
_STATISTICS = ("features_sum", "features_cov_sum", "features_num_samples")


class FrechetFromFeatures(FrechetInceptionDistance):
    """torchmetrics' FID, fed with features instead of images, in float64 and safe for singular covariances.

    Args:
        width: of the features that `update` is given.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__(feature=_Given(width), reset_real_features=False, sync_on_compute=False)

    def real_statistics(self) -> dict[str, Tensor]:
        """What has been gathered of the real images, on the CPU."""
        return {name: getattr(self, f"real_{name}").cpu() for name in _STATISTICS}

    def set_real_statistics(self, statistics: dict[str, Tensor]) -> None:
        """Go on from `real_statistics`."""
        for name in _STATISTICS:
            setattr(self, f"real_{name}", statistics[name].to(self.device, copy=True))

    def compute(self) -> Tensor:
        """Frechet distance, a float64 scalar on the CPU."""
        return frechet_distance_from_statistics(self._gaussian("real"), self._gaussian("fake"))

    def _gaussian(self, which: str) -> tuple[Tensor, Tensor]:
        total, squares, num = (getattr(self, f"{which}_{name}").cpu() for name in _STATISTICS)
        mean = total / num
        return mean, (squares - num * torch.outer(mean, mean)) / (num - 1)


class InceptionScoreFromLogits(InceptionScore):
    """torchmetrics' IS, fed with logits instead of images, with torch-fidelity's order, parts and deviation."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # 50,000 images need 200 MB of host memory
            warnings.filterwarnings(
                "ignore", "Metric `InceptionScore` will save all extracted features"
            )
            super().__init__(feature=nn.Identity(), sync_on_compute=False)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over ten parts."""
        return inception_score(dim_zero_cat(self.features), splits=self.splits)


class InceptionMetrics:
    """FID against the training images, and IS.

    - `fid10k` (for 10,000 generated images; the key carries the number): the Frechet distance to all stored
      training images, not mirrored, or to `max_real` of them. From a layer other than the last, where it is not
      comparable with any FID, the key is `fd_inception64_10k`.
    - `is10k` and `is10k_std`: the Inception Score and its standard deviation over ten parts.

    Images are quantised to 8 bit, then resized as TensorFlow 1 did. Grey images are repeated to RGB. RGBA is
    refused: Inception sees no alpha, and a background would have to be invented.

    Args:
        num_images: generated for one evaluation; more than `width`.
        max_real: real images at most, chosen at random (the same ones always); None takes all.
        width: of the features; 2048, or 64, 192, 768 of an earlier layer.
        with_score: whether to compute IS.
        inception_weights: path of torch-fidelity's weights; None takes torch's cache, or downloads them to it.
        inception_sha256: of that file, or the beginning of it; checked when given.
        required: whether to refuse to run when the weights cannot be had. If not, a warning is printed, `best`
            becomes None, and `compute` returns nothing.
        batch_size: images that go through Inception at once; None takes 64, or on a CPU 8.
        device: where; None takes the trainer's, or the accelerator that is there.

    Attributes:
        best: key of the Frechet distance.
        mode: "min".
        protocol: how the figures are made; filled in by `prepare`.

    Raises:
        InputError: for a number of images that gives no Frechet distance.
    """

    def __init__(
        self,
        *,
        num_images: int = 10_000,
        max_real: int | None = None,
        width: int = 2048,
        with_score: bool = True,
        inception_weights: str | None = None,
        inception_sha256: str | None = None,
        required: bool = False,
        batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        if width not in WIDTHS:
            raise InputError(f"metrics.width={width}; Inception has features of {WIDTHS}")
        refuse_small_sample("generated", num=num_images, width=width)
        count = f"{num_images // 1000}k" if num_images % 1000 == 0 else str(num_images)
        self._distance_key = f"fid{count}" if width == 2048 else f"fd_inception{width}_{count}"
        self._score_key = f"is{count}" if with_score else None
        self.best: str | None = self._distance_key
        self.mode: Literal["min", "max"] = "min"
        self.protocol: dict[str, str | int] = {}
        self._num_images = num_images
        self._max_real = max_real
        self._width = width
        self._weights = inception_weights
        self._sha256 = inception_sha256
        self._required = required
        self._batch_size = batch_size
        self._device = device
        self._network: InceptionNetwork | None = None
        self._real: dict[str, Tensor] = {}

    def prepare(self, data: ImageDataModule) -> None:
        """Load Inception and get the statistics of the real images, from the cache if they are there.

        Raises:
            InputError: for data or weights that cannot be used; for missing weights when they are required.
        """
        real = self._real_images(data.train)
        try:
            weights = find_weights(self._weights)
        except WeightsUnavailable as error:
            if self._required:
                raise
            self.best = None
            warn(f"{error}. The run goes on without {self._names()}")
            return
        sha256 = check_weights(weights, self._sha256)
        self._network = InceptionNetwork(
            weights,
            width=self._width,
            logits=self._score_key is not None,
            device=self._choose_device(data),
            batch_size=self._batch_size,
        )
        self.protocol = {
            "extractor": "torch-fidelity inception-v3-compat",
            "extractor_sha256": sha256,
            "features": self._width,
            "transform": "uint8, TensorFlow 1 bilinear to 299x299",
            "real": f"train, {real.num_stored} stored images",
            "num_images": self._num_images,
        }
        key = digest(
            real.fingerprint,
            *(self.protocol[part] for part in ("extractor_sha256", "features", "transform")),
        )
        self._real = cached_tensors(
            f"inception-real-{key}.pt", lambda: self._measure_real(data, real)
        )

    def compute(self, fakes: Fakes) -> dict[str, float]:
        """Generate `num_images` images and measure them; nothing when there are no weights."""
        if self._network is None:
            return {}
        distance = FrechetFromFeatures(width=self._width).to(_float64_device(self._network.device))
        distance.set_real_statistics(self._real)
        score = InceptionScoreFromLogits()
        for images, _ in fakes(self._num_images):
            features, logits = self._network(to_uint8(images))
            distance.update(features.to(distance.device), real=False)
            if logits is not None:
                score.update(logits.cpu())
        assert int(distance.fake_features_num_samples) == self._num_images
        figures = {self._distance_key: distance.compute().item()}
        if self._score_key is not None:
            mean, deviation = score.compute()
            figures |= {self._score_key: mean.item(), f"{self._score_key}_std": deviation.item()}
        return figures

    def _names(self) -> str:
        return " and ".join(key for key in (self._distance_key, self._score_key) if key)

    def _real_images(self, train: ImageDataset) -> ImageDataset:
        if train.channels == 4:
            raise InputError(
                f"{self._distance_key} of RGBA images: Inception sees RGB only; set data.channels=3, or metrics=none"
            )
        num = train.num_stored if self._max_real is None else min(self._max_real, train.num_stored)
        refuse_small_sample("real", num=num, width=self._width)
        return train if num == len(train) else RealSample(train, num=num)

    def _choose_device(self, data: ImageDataModule) -> torch.device:
        if self._device is not None:
            return torch.device(self._device)
        if data.trainer is not None:
            return data.trainer.strategy.root_device
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    def _measure_real(self, data: ImageDataModule, real: ImageDataset) -> dict[str, Tensor]:
        assert self._network is not None
        say(
            f"metrics: Inception looks at {real.num_stored:,} real images on {self._network.device}, once"
        )
        begin = time.perf_counter()
        distance = FrechetFromFeatures(width=self._width).to(_float64_device(self._network.device))
        for images, _ in data.ordered_loader(real, batch_size=_LOADED_AT_ONCE):
            distance.update(self._network(images)[0].to(distance.device), real=True)
        say(
            f"metrics: that took {time.perf_counter() - begin:.0f} s; the statistics lie in the cache"
        )
        return distance.real_statistics()


class _Given(nn.Identity):
    """Stands where torchmetrics expects the network that makes features of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def _float64_device(device: torch.device) -> torch.device:
    return torch.device("cpu") if device.type == "mps" else device
