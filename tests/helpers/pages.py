"""Explore's page in Chromium, served by this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from gan_lab.commands.explore import listen
from gan_lab.explore.app import build_app
from gan_lab.explore.studio import Studio
from gan_lab.sampling.gan import Gan

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@contextmanager
def served(gan: Gan, *, name: str) -> Iterator[str]:
    """Serve the page of one generator; yields its address."""
    listening = listen("127.0.0.1", 0)
    app = build_app([Studio(gan, name=name)], hosts=["127.0.0.1"])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@contextmanager
def started(*arguments: str) -> Iterator["Browser"]:
    """Start Chromium, which takes a second: once for all tests of a file."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *arguments]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", address: str) -> Iterator["Page"]:
    """Open the page on a screen of 375 pixels.

    At the end: no error in the console, no request to another server, nothing wider than the screen.
    """
    requests: list[str] = []
    console: list[str] = []
    context = browser.new_context(viewport={"width": 375, "height": 800})
    page = context.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto(address)
    wait_for_drawing(page, after=0)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    context.close()
    assert console == []
    assert [url for url in requests if not url.startswith((address, "blob:", "data:"))] == []


def wait_for_drawing(page: "Page", *, after: int) -> None:
    """Wait until the figure has been drawn more than `after` times."""
    page.wait_for_function(
        "after => Number(document.querySelector('figure')?.dataset.drawn) > after", arg=after
    )
