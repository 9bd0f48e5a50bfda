"""Style mixing: which image an image is where it takes all or none of its layers from another."""

import pytest
import torch
from torch.testing import assert_close

from gan_lab.data.images import Images
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.interpolation import pick_layers
from tests.sampling.conftest import big_gan, style_gan, style_gan2, style_gan3

ROWS, COLUMNS = [0, 1], [10, 11, 12]
LABELS = {"row_labels": [0, 1], "column_labels": 2}


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a * 1, b * 1, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [style_gan, style_gan2, style_gan3])
def test_none_are_the_rows_and_all_are_the_columns(make: type[Gan]) -> None:
    gan = make()
    rows, columns = gan.sample(seed=ROWS, labels=[0, 1]), gan.sample(seed=COLUMNS, labels=2)
    none = gan.mix(ROWS, COLUMNS, layers=[], **LABELS)
    assert isinstance(none, Images) and none.shape[0] == 6
    assert near(none, rows.repeat_interleave(3, dim=0))
    for every in (["coarse", "middle", "fine"], "all", range(gan.num_ws)):
        assert near(gan.mix(ROWS, COLUMNS, layers=every, **LABELS), columns.repeat(2, 1, 1, 1))
    some = gan.mix(ROWS, COLUMNS, layers="middle", **LABELS)
    assert not any(near(a, b) for a, b in zip(some, none, strict=True))


def test_each_layer_from_where_it_is_said_to_come_from() -> None:
    gan = style_gan2()
    a, b = (gan.latents(1, seed=s, labels=1, truncation=0.7).values for s in (4, 9))
    b = b.clone()
    b[:, :3] = a[:, :3]
    expected = gan.synthesize(b, noise="none")
    made = gan.mix(
        [9], [4], layers="0-2", row_labels=1, column_labels=1, truncation=0.7, noise="none"
    )
    assert_close(made.as_subclass(torch.Tensor), expected)


def test_the_sheet_has_its_sources_at_the_edges() -> None:
    gan = style_gan2()
    sheet = gan.mix(ROWS, COLUMNS, layers="coarse", sheet=True, **LABELS)
    tiles = sheet.unflatten(0, (3, 4))
    assert (tiles[0, 0] == 1).all(), "white"
    assert near(tiles[0, 1:], gan.sample(seed=COLUMNS, labels=2))
    assert near(tiles[1:, 0], gan.sample(seed=ROWS, labels=[0, 1]))
    mixed = gan.mix(ROWS, COLUMNS, layers="coarse", **LABELS)
    assert torch.equal(tiles[1:, 1:].flatten(0, 1), mixed * 1)


def test_labels_that_are_not_given_are_those_of_the_seeds() -> None:
    gan = style_gan2()
    mixed = gan.mix(ROWS, COLUMNS, layers=[])
    assert near(mixed, gan.sample(seed=ROWS).repeat_interleave(3, dim=0))


def test_seeds_latents_and_styles_are_one() -> None:
    gan = style_gan2(classes=0)
    z = gan.latents(2, seed=ROWS, space="z").values
    expected = gan.mix(ROWS, COLUMNS, layers="middle")
    assert torch.equal(gan.mix(z, COLUMNS, layers="middle"), expected)
    assert torch.equal(
        gan.mix(gan.latents(2, seed=ROWS).values, torch.tensor(COLUMNS), layers="middle"), expected
    )


def test_random_noise_is_the_same_for_all() -> None:
    """Only what is mixed differs between two images of a sheet."""
    gan = style_gan2(classes=0)
    made = gan.mix([3, 3], [5, 5], layers="coarse", noise="random")
    assert near(made, made[:1].expand(4, -1, -1, -1))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("coarse", [0, 1, 2]),
        ("middle,9", [3, 4, 5, 6, 9]),
        ("fine", [7, 8, 9]),
        ("0-3", [0, 1, 2, 3]),
        (5, [5]),
        ([8, "0-1", "coarse"], [0, 1, 2, 8]),
        (range(2, 4), [2, 3]),
        ("all", list(range(10))),
        ([], []),
    ],
)
def test_layers(layers: object, expected: list[int]) -> None:
    assert pick_layers(style_gan2(size=64), layers) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "finest",
            r"choose from coarse \(0-2\), middle \(3-6\), fine \(7-9\), all, or numbers from 0 to 9",
        ),
        ("10", "layers=10 is out of range"),
        ([-1], "layers=-1: choose from"),
        ("4-12", "layers=4-12 is out of range"),
        ("5-2", "layers=5-2 is out of range"),
        ([True], "layers=True: choose from"),
        ([0.5], "layers=0.5: choose from"),
    ],
)
def test_layers_unknown(layers: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pick_layers(style_gan2(size=64), layers)  # type: ignore[arg-type]


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(
        InputError, match="biggan has no styles w; stylegan, stylegan2, stylegan3 and gat"
    ):
        big_gan().mix([0], [1])
    gan = style_gan2(size=8)
    with pytest.raises(InputError, match="layers=fine: images of this size have no such layers"):
        gan.mix([0], [1], layers="fine")
    for arguments, message in (
        ({"row_labels": 3}, "class 3 is out of range"),
        ({"row_labels": [0, 1]}, None),  # one seed, two classes: two rows
        ({"rows": [0, 1], "row_labels": [0, 1, 2]}, "shape .3,.*2 images"),
        ({"rows": []}, "no seeds"),
        ({"rows": torch.zeros(2, 5)}, r"z has shape \[2, 5\], the generator takes \[N, 8\]"),
        (
            {"rows": torch.zeros(2, 6, 5)},
            r"w has shape \[2, 6, 5\], the generator takes \[N, 4, 8\]",
        ),
        ({"rows": torch.zeros(2)}, "latents have shape"),
        ({"rows": torch.zeros(2, 8)}, "there are no labels"),
        ({"noise": "loud"}, "noise='loud' must be one of"),
    ):
        given = {"rows": [0], "columns": [1], **arguments}
        if message is None:
            assert len(gan.mix(**given)) == 2  # type: ignore[arg-type]
            continue
        with pytest.raises(InputError, match=message):
            gan.mix(**given)  # type: ignore[arg-type]
