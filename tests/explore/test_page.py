"""The page in a real browser, on a server of this process."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from gan_lab.commands.explore import listen
from gan_lab.explore.app import build_app
from gan_lab.explore.studio import Studio
from gan_lab.sampling.gan import Gan

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(styled: Gan, unstyled: Gan) -> Iterator[str]:
    listening = listen("127.0.0.1", 0)
    studios = [Studio(styled, name="styled"), Studio(unstyled, name="<b>unstyled")]
    app = build_app(studios, hosts=["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


class Visit:
    """An opened page with its requests and errors."""

    def __init__(self, browser: "playwright.Browser", address: str, width: int) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        for number in (0, 1):
            self.wait_for_another(number, 0)

    def drawn(self, number: int = 0) -> int:
        return int(self.figure(number).get_attribute("data-drawn") or 0)

    def figure(self, number: int) -> "playwright.Locator":
        return self.page.locator("figure").nth(number)

    def wait_for_another(self, number: int, before: int) -> None:
        self.page.wait_for_function(
            "([n, before]) => Number(document.querySelectorAll('figure')[n]?.dataset.drawn) > before",
            arg=[number, before],
        )

    def image(self, number: int = 0) -> str:
        """Return the pixels that are shown."""
        return self.page.evaluate(
            """async (n) => {
                const image = document.querySelectorAll("figure img")[n];
                // rejected where the page sets another image in the meantime
                while (!(await image.decode().then(() => true, () => false)))
                    await new Promise((again) => setTimeout(again, 20));
                const canvas = document.createElement("canvas");
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                canvas.getContext("2d").drawImage(image, 0, 0);
                return canvas.toDataURL();
            }""",
            number,
        )

    def change(self, act, number: int = 0) -> tuple[str, str]:
        """Return the image before and after an act."""
        before, count = self.image(number), self.drawn(number)
        act()
        self.wait_for_another(number, count)
        return before, self.image(number)


@pytest.fixture
def visit(browser: "playwright.Browser", address: str) -> Iterator[Visit]:
    visit = Visit(browser, address, 1280)
    yield visit
    visit.page.close()
    assert visit.complaints == []
    outside = [url for url in visit.requests if not url.startswith((address, "blob:", "data:"))]
    assert outside == []


def slide(visit: Visit, selector: str, value: float):
    return lambda: visit.page.locator(selector).fill(str(value))


def test_controls_change_both_images(visit: Visit):
    for number in (0, 1):
        before, after = visit.change(lambda: visit.page.click("#next"), number)
        assert before != after
        before, after = visit.change(slide(visit, "#truncation", 0.3), number)
        assert before != after
        visit.change(slide(visit, "#truncation", 0.9), number)


def test_style_mixing_changes_one_model_only(visit: Visit):
    visit.change(lambda: visit.page.fill("#mix-seed", "77"))  # is drawn, too
    other = visit.image(1)
    before, after = visit.change(lambda: visit.page.check("#mixed"))
    assert before != after
    assert visit.image(1) == other


def test_directions_have_sliders(visit: Visit):
    visit.change(lambda: visit.page.select_option("#method", "sefa"))
    before, after = visit.change(slide(visit, "#direction-0", 4))
    assert before != after
    _, still = visit.change(lambda: visit.page.click("#still"))
    assert still == before


def test_interpolation_between_pins(visit: Visit):
    first = visit.image()
    visit.page.click("#pin")
    _, second = visit.change(lambda: visit.page.click("#next"))
    visit.page.click("#pin")
    _, middle = visit.change(slide(visit, "#t", 0.5))
    _, end = visit.change(slide(visit, "#t", 1))
    _, start = visit.change(slide(visit, "#t", 0))
    assert (start, end) == (first, second)
    assert middle not in (first, second)


def test_everything_works_by_keyboard(visit: Visit):
    start = visit.image()
    _, after = visit.change(lambda: visit.page.keyboard.press("ArrowRight"))
    _, back = visit.change(lambda: visit.page.keyboard.press("ArrowLeft"))
    assert start == back != after
    visit.page.keyboard.press("p")
    assert visit.page.locator("#pins li").count() == 1
    visit.page.focus("#truncation")
    before, after = visit.change(lambda: visit.page.keyboard.press("PageDown"))
    assert before != after


def test_a_dropped_image_is_projected(visit: Visit, tmp_path: Path):
    from PIL import Image

    Image.new("L", (24, 16), 200).save(tmp_path / "gray.png")
    visit.page.set_input_files("#file", tmp_path / "gray.png")
    visit.page.locator("#cancel").click()
    visit.page.wait_for_function(
        "() => document.querySelector('#message').textContent.includes('mean squared error')"
    )
    assert visit.page.locator("figure").nth(1).locator(".error").inner_text()


def test_an_image_is_downloaded(visit: Visit, tmp_path: Path):
    with visit.page.expect_download() as waiting:
        visit.page.locator("figure").first.get_by_text("Image", exact=True).click()
    assert waiting.value.suggested_filename.startswith("styled_seed-0")
    with visit.page.expect_download() as waiting:
        visit.page.locator("figure").first.get_by_text("Latents").click()
    assert waiting.value.suggested_filename.endswith(".safetensors")


def test_names_are_escaped_and_a_phone_needs_no_horizontal_scrolling(
    browser: "playwright.Browser", address: str
):
    visit = Visit(browser, address, 375)
    assert "<b>unstyled" in visit.figure(1).inner_text()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 375
    visit.page.close()
