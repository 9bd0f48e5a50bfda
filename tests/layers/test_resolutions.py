"""Resolutions of a network."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import ProjectionLogit
from gan_lab.layers.networks import label_vectors, with_label_maps
from gan_lab.layers.resolutions import image_shape, resolution_pyramid


@given(base=st.integers(4, 7), longer=st.integers(4, 30), count=st.integers(0, 8))
def test_halvings_undo_doublings(base: int, longer: int, count: int) -> None:
    assume(longer >= base)
    size = [base << count, longer << count]
    assert resolution_pyramid(size) == ((base, longer), count)
    assert resolution_pyramid(size[::-1]) == ((longer, base), count)


@given(st.integers(1, 600))
def test_unsupported_sizes_name_a_supported_one(size: int) -> None:
    try:
        (height, width), count = resolution_pyramid(size)
    except InputError as error:
        remedies = str(error).split("data.image_size=")[1].split(" or ")
        assert all(resolution_pyramid(int(remedy)) for remedy in remedies)
    else:
        assert height == width and 4 <= height < 8 and height << count == size


@pytest.mark.parametrize("size", [0, -4, [8], [8, 8, 8], [8, 0]])
def test_invalid_sizes(size: object) -> None:
    with pytest.raises(InputError, match=r"one positive number or \[height, width\]"):
        image_shape(size)  # type: ignore[arg-type]


def test_labels_as_numbers_or_vectors() -> None:
    like = torch.zeros(2, 5)
    vectors = label_vectors(torch.tensor([2, 0]), 3, like)
    assert vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert torch.equal(label_vectors(vectors, 3, like), vectors)
    assert label_vectors(None, 0, like).shape == (2, 0)


@pytest.mark.parametrize(("labels", "classes"), [(None, 3), (torch.tensor([0, 1]), 0)])
def test_labels_that_do_not_match_the_network(labels: torch.Tensor | None, classes: int) -> None:
    with pytest.raises(ValueError, match="given to a network of"):
        label_vectors(labels, classes, torch.zeros(2, 5))


def test_label_maps() -> None:
    with_maps = with_label_maps(torch.zeros(2, 1, 2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert with_maps.shape == (2, 3, 2, 2)
    assert with_maps[1, 1].unique().tolist() == [3] and with_maps[1, 2].unique().tolist() == [4]


def test_projection_is_an_affine_map_plus_an_inner_product() -> None:
    layer = ProjectionLogit(features=4, num_classes=3)
    features, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    assert layer.embedding is not None
    by_hand = [
        layer.affine(f).squeeze() + layer.embedding.weight[:, y] @ f
        for f, y in zip(features, labels, strict=True)
    ]
    torch.testing.assert_close(layer(features, labels), torch.stack(by_hand))
