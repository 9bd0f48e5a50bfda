"""The page in a browser: desktop and phone, pointer and keyboard, no external requests."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from omegaconf import DictConfig
from PIL import Image

from gan_lab.commands.launch import launch
from tests.compare.conftest import MakeRun

pytestmark = pytest.mark.browser
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EVIL = "<img src=x onerror=alert(1)> & 'c'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=which("chromium"), args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., DictConfig]) -> Path:
    """A page of three runs: the second is the best, the third has a hostile name and no checkpoint."""
    from tests.compare import conftest

    root = tmp_path_factory.mktemp("page")
    make: MakeRun = conftest.make_run.__wrapped__(root, compose)  # type: ignore[attr-defined]
    metrics = [{"key": "fid5k", "value": 7.25, "uncertainty": 0.5, "detail": {}}]
    result = {"protocol": "clean", "metrics": metrics, "fake": {"checkpoint": "best.ckpt"}}
    make("a", "seed=10", best=3.0, evaluation=[result])
    make("b", "seed=9", "loss=hinge", best=1.0, kimg=6)
    make(EVIL, "seed=2", best=2.0, checkpoint=False, seconds=None)
    overrides = [f"runs=[{root}/runs]", f"out={root}", "columns=3"]
    assert launch("compare", overrides) == 0
    return root / "compare.html"


class Opened:
    """A page with its console messages and requests."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    def column(self, table: str, number: int = 1) -> list[str]:
        """The texts of a column, from the top."""
        cells = self.page.locator(f"{table} tbody tr > *:nth-child({number})")
        return [" ".join(text.split()) for text in cells.all_inner_texts()]

    def sorted_by(self, table: str) -> dict[str, str]:
        heads = self.page.locator(f"{table} thead th").all()
        orders = {h.inner_text().split()[0]: h.get_attribute("aria-sort") for h in heads}
        return {name: order for name, order in orders.items() if order != "none"}

    def check(self) -> None:
        """No errors, no external requests, and no horizontal overflow."""
        assert self.complaints == []
        assert [u for u in self.requests if not u.startswith(("file:", "data:"))] == []
        assert len([u for u in self.requests if u.startswith("file:")]) == 1
        inner = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert inner[0] <= inner[1]


DESKTOP, PHONE = (1280, "light"), (375, "dark")
NAMES = ["desktop", "phone"]


def on_screen(screen: tuple[int, str], browser: Any, page_file: Path) -> Iterator[Opened]:
    width, scheme = screen
    # scrolling that takes its time would move what the pointer is sent to
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    made = Opened(context.new_page(), page_file)
    yield made
    made.check()
    context.close()


# on a phone in `make slow`: fast tests look at its layout in `shown`, and what is clicked does not depend on it
@pytest.fixture(params=[DESKTOP, pytest.param(PHONE, marks=pytest.mark.slow)], ids=NAMES)
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Opened]:
    """A page of its own for each test."""
    yield from on_screen(request.param, browser, page_file)


@pytest.fixture(scope="module", params=[DESKTOP, PHONE], ids=NAMES)
def shown(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Opened]:
    """One page for all tests that only read it, since Plotly's script takes seconds to start."""
    yield from on_screen(request.param, browser, page_file)


def test_it_begins_with_the_best_run(shown: Opened) -> None:
    assert shown.column("#runs") == ["b", EVIL, "a"]
    assert shown.sorted_by("#runs") == {"fd_digits": "ascending"}
    assert shown.column("#runs", 2) == ["1.000 at 6 kimg", "2.000 at 4 kimg", "3.000 at 4 kimg"]
    assert shown.page.locator("#runs td.top").first.inner_text().startswith("1.000")
    assert shown.page.locator("figcaption strong").all_inner_texts() == ["b", EVIL, "a"]


def test_sorting_by_pointer_and_by_keyboard(opened: Opened) -> None:
    page = opened.page
    by_name = page.get_by_role("button", name="Run", exact=True).first
    by_name.click()
    assert opened.column("#runs") == [EVIL, "a", "b"]
    assert opened.sorted_by("#runs") == {"Run": "ascending"}
    by_name.press("Enter")
    assert opened.column("#runs") == ["b", "a", EVIL]
    assert opened.sorted_by("#runs") == {"Run": "descending"}
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert opened.sorted_by("#runs") == {"accuracy_digits": "descending"}, "the best comes first"
    assert page.locator("figcaption strong").all_inner_texts() == opened.column("#runs")


def test_settings_are_sorted_numerically_and_filtered(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="seed").click()
    assert opened.column("#settings") == [EVIL, "b", "a"], "2, 9, 10"
    page.get_by_label("Keys with").fill("loss")
    heads = page.locator("#settings thead th").all_inner_texts()
    assert [" ".join(head.split()) for head in heads] == ["Run", "loss"]
    assert sorted(opened.column("#settings", 2)) == ["Hinge", "NonSaturating", "NonSaturating"]


def drawn(page: Any) -> list[dict[str, Any]]:
    """The traces that Plotly shows: their names, values and lines, and the axes' titles and types."""
    return page.evaluate("""() => document.querySelector("#chart")._fullData.map(
      ({ name, x, y, line, opacity, marker }) =>
        ({ name, x: [...x], y: [...y], line, opacity, best: [...marker.symbol].indexOf("circle-open") }))""")


def axes(page: Any) -> tuple[str, str]:
    """The title of the x axis and the type of the y axis."""
    chart = 'document.querySelector("#chart")._fullLayout'
    return tuple(page.evaluate(f"[{chart}.xaxis.title.text, {chart}.yaxis.type]"))


def test_curves_are_those_of_the_runs(shown: Opened) -> None:
    curves = {one["name"]: one for one in drawn(shown.page)}
    assert [len(curves), curves["a"]["x"]] == [3, [1, 2, 3, 4]]
    assert curves["a"]["y"] == [6, 5, 4, 3] and curves["b"]["y"] == [6, 5, 4, 3, 2, 1]
    assert curves["a"]["best"] == 3, "the lowest distance is marked"
    assert len({one["line"]["color"] for one in curves.values()}) == 3
    assert shown.page.locator("#chart path.js-line").count() == 3
    assert axes(shown.page) == ("kimg (thousands of real images shown)", "linear")


def test_choosing_the_metric_the_axis_and_the_scale(opened: Opened) -> None:
    page = opened.page
    chart = page.locator("#chart")
    assert chart.get_attribute("aria-label") == "metrics/fd_digits over kimg, 3 of 3 shown runs"
    page.get_by_role("combobox").select_option("loss/g")
    assert chart.get_attribute("aria-label") == "loss/g over kimg, 3 of 3 shown runs"
    assert {one["name"]: one["y"] for one in drawn(page)}["a"] == [1, 2, 3, 4]
    page.get_by_label("wall time").check()
    assert "over wall time" in chart.get_attribute("aria-label")
    assert next(one["x"] for one in drawn(page)) == [2, 4, 6, 8]
    assert len(drawn(page)) == 2, "the third run has no times"
    page.get_by_label("log scale").check()
    assert axes(page) == ("seconds of training", "log")


def test_reading_values_by_keyboard_and_by_pointer(opened: Opened) -> None:
    from playwright.sync_api import expect

    page = opened.page
    chart, readout, tip = (
        page.locator("#chart"),
        page.locator("#readout"),
        page.locator("#chart .hoverlayer"),
    )
    chart.focus()
    page.keyboard.press("End")
    assert readout.text_content() == "6 kimg, b 1"
    expect(tip).to_contain_text("6 kimg")
    page.keyboard.press("ArrowLeft")
    assert readout.text_content() == "5 kimg, b 2"
    page.keyboard.press("Home")
    # a falls from 3 + 3, b from 1 + 5, the last from 2 + 3
    assert readout.text_content() == f"1 kimg, {EVIL} 5, a 6, b 6"
    expect(tip).to_contain_text("1 kimg")
    page.locator("#metric").focus()
    expect(tip).to_be_empty()
    plot = page.locator("#chart .nsewdrag")
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] - 4, "y": box["height"] / 2})
    expect(tip).to_contain_text("6 kimg")
    assert "b : 1" in tip.text_content()
    page.locator("#chart-help").hover()
    expect(tip).to_be_empty()


def test_the_legend_hides_a_run_and_shows_it_again(opened: Opened) -> None:
    page = opened.page
    button = page.locator("#legend button").first
    assert button.inner_text() == "b" and button.get_attribute("aria-pressed") == "true"
    button.focus()
    assert {one["name"]: one["opacity"] for one in drawn(page)}["a"] < 1, "b stands out"
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert len(drawn(page)) == 2
    assert page.locator("figure:visible").count() == 2
    page.locator("#legend button", has_text="None").click()
    assert "No run that is shown" in page.locator("#chart").text_content()
    page.locator("#legend button", has_text="All").click()
    assert len(drawn(page)) == 3


def test_the_chart_is_downloaded_with_a_legend(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    page.locator("#chart .nsewdrag").hover()
    with page.expect_download() as download:
        page.locator('#chart [data-title="Download as PNG"]').click()
    download.value.save_as(tmp_path / "chart.png")
    with Image.open(tmp_path / "chart.png") as image:
        assert image.size == (2400, 1000)
    assert opened.page.locator("#chart .legend").count() == 0
    opened.requests = [url for url in opened.requests if not url.startswith("blob:")]


def test_dark_mode_can_change_while_the_page_is_open(opened: Opened) -> None:
    page = opened.page
    for scheme in ("light", "dark", "light"):
        page.emulate_media(color_scheme=scheme)
        wanted = page.evaluate(
            "getComputedStyle(document.documentElement).getPropertyValue('--c0')"
        )
        curve = page.locator(f'#chart path.js-line[style*="{rgb(wanted)}"]')
        curve.wait_for(state="attached")


def rgb(color: str) -> str:
    """ "#0063b2" as a browser writes it: "rgb(0, 99, 178)"."""
    return f"rgb({', '.join(str(int(color.strip()[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_samples_can_be_enlarged_and_missing_ones_are_explained(opened: Opened) -> None:
    page = opened.page
    assert page.locator("figure img").count() == 2
    widths = page.locator("figure:has(img)").evaluate_all(
        "all => all.map((f) => [f, f.firstChild].map((e) => e.clientWidth))"
    )
    assert all(button >= figure - 2 > 100 for figure, button in widths)
    assert all(
        img.evaluate("i => i.naturalWidth > 300") for img in page.locator("figure img").all()
    )
    assert "it has no checkpoint" in page.locator("figure", has_text=EVIL).inner_text()
    page.locator("figure button").first.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible() and dialog.locator("h2").inner_text() == "b"
    page.keyboard.press("Escape")
    assert dialog.is_hidden()


def test_evaluations_show_their_uncertainty(shown: Opened) -> None:
    assert shown.column("#evaluations") == ["a"]
    assert shown.column("#evaluations", 2) == ["7.250 ± 0.5 best"]


def test_every_control_has_a_name_and_text_has_contrast(shown: Opened) -> None:
    unnamed = shown.page.evaluate("""() => {
      const name = (e) => e.innerText || e.alt || e.labels?.length || e.getAttribute("aria-label");
      return [...document.querySelectorAll("button, select, input, img, [role=img]")]
        .filter((e) => e.checkVisibility() && !name(e)).map((e) => e.outerHTML.slice(0, 80));
    }""")
    assert unnamed == []
    low = shown.page.evaluate("""() => {
      const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
      const light = (c) => numbers(c).slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if ((numbers(c)[3] ?? 1) === 1) return c;
      } };
      const bad = [];
      for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility() || e.closest("script")) continue;
        const ours = getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"];
        const [a, b] = [light(ours), light(behind(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([e.outerHTML.slice(0, 80), (a + 0.05) / (b + 0.05)]);
      }
      return bad;
    }""")
    assert low == []


def test_curves_have_contrast(shown: Opened) -> None:
    """Every color of a run has the contrast of 3 to 1 that WCAG 2.2 requires of graphics (1.4.11)."""
    pairs = shown.page.evaluate("""() => {
      const value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      return [...Array(10).keys()].map((i) => [value(`--c${i}`), value("--bg")]);
    }""")
    assert len(pairs) == 10
    for color, behind in pairs:
        ours, theirs = sorted((luminance(color), luminance(behind)), reverse=True)
        assert (ours + 0.05) / (theirs + 0.05) >= 3, color


def luminance(color: str) -> float:
    """Relative luminance of "#rrggbb", WCAG 2.2."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return sum(v * w for v, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def test_a_run_without_any_metric(browser: Any, tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run("empty", checkpoint=False)
    (run / "metrics.jsonl").write_text("")
    assert launch("compare", [f"runs=[{run}]", f"out={tmp_path}"]) == 0
    context = browser.new_context(viewport={"width": 375, "height": 800})
    opened = Opened(context.new_page(), tmp_path / "compare.html")
    assert opened.column("#runs") == ["empty"]
    assert "No run that is shown" in opened.page.locator("#chart").text_content()
    opened.check()
    context.close()


def test_the_page_contains_its_data(page_file: Path) -> None:
    text = page_file.read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["runs"]) == 3
