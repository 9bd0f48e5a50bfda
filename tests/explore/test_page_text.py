"""The page with a generator of text: lines, keyboard, no external requests."""

from collections.abc import Iterator

import pytest
import torch

from gan_lab.data.sample import SampleSpec
from gan_lab.data.text import OneHot, Text
from gan_lab.models.wgan_gp_text import Generator
from gan_lab.sampling.gan import Gan
from tests.helpers.pages import opened, served, started, wait_for_drawing

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
ALPHABET, LENGTH = "ab<>&'é ", 16


@pytest.fixture(scope="module")
def gan() -> Gan:
    torch.manual_seed(0)
    generator = Generator(sample_shape=(len(ALPHABET), LENGTH), width=8, num_classes=2)
    spec = SampleSpec(
        kind=Text(alphabet=ALPHABET, length=LENGTH),
        shape=(LENGTH,),
        representation=OneHot(characters=len(ALPHABET)),
        num_classes=2,
        class_names=("prose", "<i>verse"),
    )
    return Gan(generator.eval(), spec=spec)


@pytest.fixture(scope="module")
def address(gan: Gan) -> Iterator[str]:
    with served(gan, name="lines") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with started() as browser:
        yield browser


@pytest.fixture
def page(browser: "playwright.Browser", address: str) -> Iterator["playwright.Page"]:
    with opened(browser, address) as page:
        yield page


def line(page: "playwright.Page") -> str:
    return page.locator("figure pre").text_content()


def test_the_line_is_that_of_the_seed_and_escaped(page: "playwright.Page", gan: Gan) -> None:
    expected = gan.spec.kind.media(gan.spec.decode(gan.sample(1, seed=0))[0]).decode()
    assert line(page) == expected
    assert page.locator("figure pre *").count() == 0
    assert page.locator("figure pre").get_attribute("aria-label") == "Text by lines"
    before = int(page.locator("figure").get_attribute("data-drawn"))
    page.keyboard.press("ArrowRight")
    wait_for_drawing(page, after=before)
    following = gan.spec.kind.media(gan.spec.decode(gan.sample(1, seed=1))[0]).decode()
    assert line(page) == following != expected


def test_lines_are_pinned_interpolated_and_downloaded(page: "playwright.Page") -> None:
    page.keyboard.press("p")
    first = line(page)
    before = int(page.locator("figure").get_attribute("data-drawn"))
    page.keyboard.press("ArrowRight")
    wait_for_drawing(page, after=before)
    page.keyboard.press("p")
    assert page.locator("#pins pre").count() == 2
    assert page.locator("#project-part").is_hidden()
    page.wait_for_function(
        "first => document.querySelector('#pins pre').textContent == first", arg=first
    )
    before = int(page.locator("figure").get_attribute("data-drawn"))
    page.locator("#t").fill("0.5")
    wait_for_drawing(page, after=before)
    with page.expect_download() as waiting:
        page.locator("figure").get_by_role("button", name="Text").click()
    assert waiting.value.suggested_filename.endswith(".txt")
    assert waiting.value.path().read_text(encoding="utf-8") == line(page)
