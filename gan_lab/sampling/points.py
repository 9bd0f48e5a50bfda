"""Points of latent spaces: where pictures come from, kept in a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.run import write
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.labels import Labels, check_labels
from gan_lab.sampling.latents import Seeds
from gan_lab.sampling.rendering import Rendering

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False)
class Points:
    """Latents z, or styles w, and labels.

        points = Points.read("generated/latents.safetensors", gan=gan)
        gan.synthesize(points.w)
        points[:4].save("four.safetensors")

    Exactly one of z and w is there. In a file they are tensors of these names, and `metadata` is its text metadata:
    "kind" says what wrote them (generate, project, explore), "model" the architecture, "seed" and so on how.

    Attributes:
        z: float32 [N, Z].
        w: float32 [N, L, D].
        labels: int64 [N], float32 [N, num_classes], or None without classes.
        metadata: text by name.

    Raises:
        InputError: for both, none, or other shapes.
    """

    z: Tensor | None = None
    w: Tensor | None = None
    labels: Tensor | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.z is None) == (self.w is None):
            raise InputError("points are latents z or styles w: give one of them")
        name, dims = ("z", 2) if self.w is None else ("w", 3)
        if self.values.ndim != dims or not len(self.values):
            raise InputError(
                f"{name} has shape {tuple(self.values.shape)}; it must be {SHAPES[name]}"
            )
        if self.labels is not None and len(self.labels) != len(self):
            raise InputError(f"{len(self)} points have {len(self.labels)} labels")

    @property
    def values(self) -> Tensor:
        """The z or the w."""
        found = self.z if self.w is None else self.w
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Points":
        return Points(
            z=None if self.z is None else self.z[rows],
            w=None if self.w is None else self.w[rows],
            labels=None if self.labels is None else self.labels[rows],
            metadata=self.metadata,
        )

    def repeated(self, count: int) -> "Points":
        """Return one point `count` times."""
        return Points(
            z=None if self.z is None else self.z.expand(count, -1),
            w=None if self.w is None else self.w.expand(count, -1, -1),
            labels=None
            if self.labels is None
            else self.labels.expand(count, *self.labels.shape[1:]),
            metadata=self.metadata,
        )

    def styles(self, gan: Gan, *, truncation: float | None = None, center: str = "mean") -> Tensor:
        """Return w [N, L, D]. Truncation moves a saved w, too, on top of what moved it before.

        Raises:
            InputError: for a generator without styles.
        """
        if self.w is None:
            return gan.styles(self.values, self.labels, truncation=truncation, center=center)
        return gan.truncate(self.w, self.labels, truncation=truncation, center=center)

    def images(self, gan: Gan, rendering: Rendering, *, seed: int = 0, start: int = 0) -> Tensor:
        """Make images [N, C, H, W]; a saved z of a generator without styles is taken as it is.

        Args:
            gan: of the points.
            rendering: of which a threshold of z does not count.
            seed: of random noise, with indices from `start` on.
            start: index of the first.
        """
        if not gan.has_styles:
            return gan.render(self.values, self.labels)
        w = self.styles(gan, truncation=rendering.truncation, center=rendering.center)
        return gan.synthesize(
            w, noise=rendering.noise, seed=seed, start=start, transform=rendering.transform()
        )

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; the folder is made when it is not there. Returns the path."""
        path = Path(path).expanduser()
        if path.suffix != SUFFIX:
            raise InputError(f"{path}: points are kept in a file that ends in {SUFFIX}")
        tensors = {"z": self.z, "w": self.w, "labels": self.labels}
        there = {
            name: rows.cpu().contiguous() for name, rows in tensors.items() if rows is not None
        }
        data = save(there, metadata={name: str(text) for name, text in self.metadata.items()})
        write(path, in_order(data))
        return path

    @classmethod
    def read(cls, path: str | Path, *, gan: Gan | None = None) -> "Points":
        """Read a file that `save` wrote.

        Args:
            path: of the file.
            gan: what the points must fit; None checks nothing.

        Raises:
            InputError: for a file that is not there or holds something else, and for points of another generator.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InputError(
                f"{path} is not there; give a file of latents, such as latents{SUFFIX}"
            )
        try:
            with safe_open(path, framework="pt") as opened:
                names = set(opened.keys())
                metadata = dict(opened.metadata() or {})
                read = {name: opened.get_tensor(name) for name in names & {"z", "w", "labels"}}
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is no whole safetensors file ({error}); save it again"
            ) from error
        if len(names & {"z", "w"}) != 1:
            raise InputError(
                f"{path} holds {', '.join(sorted(names)) or 'nothing'}; latents are one tensor z or w, and labels"
            )
        try:
            found = cls(**read, metadata=metadata)
            if gan is not None:
                found.check(gan)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return found

    def check(self, gan: Gan) -> None:
        """Refuse points that do not fit a generator.

        Raises:
            InputError: with both shapes.
        """
        if self.w is not None:
            styled = gan.styled
            expected = (styled.num_ws, gan.center().shape[-1])
            if self.w.shape[1:] != expected:
                raise InputError(
                    f"w has shape {list(self.w.shape)}, the generator takes [N, {expected[0]}, {expected[1]}]"
                )
        elif self.values.shape[1] != gan.generator.z_dim:
            raise InputError(
                f"z has shape {list(self.values.shape)}, the generator takes [N, {gan.generator.z_dim}]"
            )
        if not self.values.is_floating_point() or not self.values.isfinite().all():
            raise InputError("the values must be finite floats")
        if self.labels is not None:
            check_labels(self.labels, len(self), gan.num_classes)
        elif gan.num_classes and self.w is None:
            raise InputError(
                f"there are no labels, and the generator has {gan.num_classes} classes"
            )


def in_order(data: bytes) -> bytes:
    """Return a safetensors file with its header's names in order, so that equal points make equal files."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


SHAPES = {"z": "[N, Z]", "w": "[N, L, D]"}


# What pictures are made from, as people give it: seeds, latents, styles or points of a file.

Source = Points | Seeds | Tensor


def as_points(
    gan: Gan, source: Source, *, labels: Labels | None = None, truncation: float | None = None
) -> Points:
    """Return points of seeds, latents or styles.

    Args:
        gan: what the points are of.
        source: a seed or several, of each of which the first latent is taken; z [N, Z]; w [N, L, D]; or points.
        labels: of the points, in place of those that they have; as many as points, or one for all. One point is taken
            with each of several labels. None takes those of the points, and those that seeds draw.
        truncation: of generators without styles, the threshold of latents of seeds. Not psi.

    Raises:
        InputError: for points that do not fit the generator, and labels that do not fit the points.
    """
    points = _unlabelled(gan, source, truncation)
    if labels is not None:
        count = max(len(points), _number(labels))
        chosen = check_labels(labels, count, gan.num_classes)
        if len(points) == 1:
            points = points.repeated(count)
        points = Points(z=points.z, w=points.w, labels=chosen, metadata=points.metadata)
    elif points.labels is None and not isinstance(source, Points | Tensor):
        drawn = gan.labels(len(points), seed=_seeds(source))
        points = Points(z=points.z, w=points.w, labels=drawn, metadata=points.metadata)
    points.check(gan)
    return points


def _unlabelled(gan: Gan, source: Source, truncation: float | None) -> Points:
    if isinstance(source, Points):
        return source
    if isinstance(source, Tensor) and source.is_floating_point():
        if source.ndim not in (2, 3):
            raise InputError(
                f"latents have shape {list(source.shape)}; give z [N, Z] or styles w [N, L, D]"
            )
        return Points(z=source) if source.ndim == 2 else Points(w=source)
    seeds = _seeds(source)
    if not seeds:
        raise InputError("no seeds were given")
    threshold = None if gan.has_styles else truncation
    return Points(z=gan.latents(len(seeds), seed=seeds, truncation=threshold))


def _seeds(source: Seeds | Tensor) -> list[int]:
    if isinstance(source, Tensor):
        return [int(seed) for seed in source.flatten()]
    return [source] if isinstance(source, int) else list(source)


def _number(labels: Labels) -> int:
    if isinstance(labels, int) or (isinstance(labels, Tensor) and labels.ndim == 0):
        return 1
    return len(labels) if isinstance(labels, Sequence) else int(torch.as_tensor(labels).shape[0])
