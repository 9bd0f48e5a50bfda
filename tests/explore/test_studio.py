import math

import pytest

from gan_lab.errors import InputError
from gan_lab.explore.studio import Between, Mix, SavedLatents, Seeded, Walk, parse


def test_a_recipe_is_read_with_all_its_parts():
    recipe = parse(
        {
            "model": 1,
            "point": {"start": {"seed": 1, "label": 2}, "end": {"latents": "ab"}, "t": 0.25},
            "truncation": 0.5,
            "center": "class",
            "mix": {"seed": 4, "first": 0, "last": 3},
            "walk": {"method": "sefa", "amounts": [1, -2.5]},
            "noise": "none",
            "translate": [0.1, 0],
            "rotate": 30,
        }
    )
    assert recipe.point == Between(
        start=Seeded(seed=1, label=2), end=SavedLatents(latents="ab"), t=0.25
    )
    assert recipe.mix == Mix(seed=4, first=0, last=3)
    assert recipe.walk == Walk(method="sefa", amounts=[1.0, -2.5])
    assert (recipe.model, recipe.truncation, recipe.center) == (1, 0.5, "class")
    assert (recipe.noise, recipe.translate, recipe.rotate) == ("none", (0.1, 0.0), 30.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "recipe"),
        ([], "recipe"),
        ({}, "point"),
        ({"point": {"seed": -1}}, "seed"),
        ({"point": {"seed": 2**32}}, "seed"),
        ({"point": {"seed": 1.5}}, "seed"),
        ({"point": {"seed": True}}, "seed"),
        ({"point": {"seed": 1}, "truncation": math.nan}, "truncation"),
        ({"point": {"seed": 1}, "center": "elsewhere"}, "center"),
        ({"point": {"seed": 1}, "walk": {"method": "sefa", "amounts": [0] * 65}}, "amounts"),
        ({"point": {"seed": 1}, "mix": {"seed": 1, "first": 0}}, "mix.last"),
        ({"point": {"seed": 1}, "translate": [1, 2, 3]}, "translate"),
        ({"point": {"seed": 1}, "psi": 1}, "psi"),
    ],
)
def test_invalid_recipes_are_rejected(given, message):
    with pytest.raises(InputError, match=message):
        parse(given)


def test_deeply_nested_points_are_rejected():
    point: dict = {"seed": 1}
    for _ in range(3000):
        point = {"start": point, "end": {"seed": 0}, "t": 0.5}
    with pytest.raises(InputError):
        parse({"point": point})
