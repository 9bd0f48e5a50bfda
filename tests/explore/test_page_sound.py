"""The page with a generator of sound: player, keyboard, no external requests."""

from collections.abc import Iterator

import pytest
import torch

from gan_lab.models.wavegan import Generator
from gan_lab.sampling.gan import Gan
from tests.helpers.pages import opened, served, started, wait_for_drawing
from tests.helpers.sounds import sound_spec

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser
LENGTH, RATE = 4096, 8000


@pytest.fixture(scope="module")
def gan() -> Gan:
    torch.manual_seed(0)
    generator = Generator(sample_shape=(1, LENGTH), width=2, num_classes=2)
    return Gan(generator.eval(), spec=sound_spec(LENGTH, rate=RATE, classes=2))


@pytest.fixture(scope="module")
def address(gan: Gan) -> Iterator[str]:
    with served(gan, name="notes") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with started("--autoplay-policy=no-user-gesture-required") as browser:
        yield browser


@pytest.fixture
def page(browser: "playwright.Browser", address: str) -> Iterator["playwright.Page"]:
    with opened(browser, address) as page:
        drawn(page, 0)
        yield page


def drawn(page: "playwright.Page", before: int) -> None:
    wait_for_drawing(page, after=before)
    page.wait_for_function("() => document.querySelector('figure audio').readyState >= 1")


def source(page: "playwright.Page") -> str:
    return page.locator("figure audio").get_attribute("src")


def test_a_clip_is_played_by_pointer_and_keyboard(page: "playwright.Page") -> None:
    duration = page.evaluate("document.querySelector('figure audio').duration")
    assert duration == pytest.approx(LENGTH / RATE, abs=0.001)
    audio = page.locator("figure audio")
    assert audio.get_attribute("aria-label") == "Clip by notes"
    page.keyboard.press("l")
    page.wait_for_function("() => document.querySelector('figure audio').currentTime > 0.05")
    before = source(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('figure audio').src != before", arg=before
    )
    page.click("#listen")
    page.wait_for_function("() => document.querySelector('figure audio').ended")
    audio.focus()
    assert page.evaluate("document.activeElement.tagName") == "AUDIO"


def test_the_clip_is_that_of_the_seed(page: "playwright.Page", gan: Gan) -> None:
    expected = gan.spec.kind.media(gan.spec.decode(gan.sample(1, seed=0))[0])
    found = page.evaluate(
        """async () => {
            return Array.from(new Uint8Array(await canvases[0].blob.arrayBuffer()));
        }"""
    )
    # drawn alone it may differ in the last bits
    assert len(found) == len(expected) and bytes(found[:44]) == expected[:44]
    image = page.evaluate("document.querySelector('figure img').naturalWidth")
    assert image == 128, "its spectrogram"


def test_interpolation_between_pinned_clips(page: "playwright.Page") -> None:
    page.keyboard.press("p")
    before = int(page.locator("figure").get_attribute("data-drawn"))
    page.keyboard.press("ArrowRight")
    drawn(page, before)
    page.keyboard.press("p")
    assert page.locator("#pins audio").count() == 2
    before = int(page.locator("figure").get_attribute("data-drawn"))
    page.locator("#t").fill("0.5")
    drawn(page, before)
    assert page.locator("#project-part").is_hidden()
    with page.expect_download() as waiting:
        page.locator("figure").get_by_text("Clip").click()
    assert waiting.value.suggested_filename.endswith(".wav")
