"""The page of `msbal ablate`, made by the command from finished runs, in a browser."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("msbal_torchvision", reason="the grid's specs are validated with the torchvision backend")
pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")

# The makers of finished grids stand beside the unit tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "ablation"))

from finished_grid import STRATEGIES, finished
from headless import browser_in, complaints, open_page, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from msbal.cli.app import run

pytestmark = pytest.mark.release

HOSTILE = "avw <img src=x onerror=console.error(1)>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser_in(tmp_path_factory.mktemp("chromium"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    keys = {"published": {"equal": {"AP": 36.1}, "rlo": {"AP": 36.9}}}
    ablation, _ = finished(folder, intervals=90, **keys)
    spec = ablation.model_dump(mode="json", exclude_none=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    # No predictions are there to draw images anew from.
    assert run(["ablate", str(folder / "mine.yaml"), "--report-only", "--quiet", "--resamples", "0"]) == 0
    return folder / "out" / "report" / "report.html"


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    open_page(browser, page)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".drawing"))
    return browser


def find(browser: Any, chosen: str) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, chosen)  # type: ignore[no-any-return]


def test_the_verdict_is_read_first_and_nothing_is_complained_about(opened: Any) -> None:
    order = opened.execute_script(
        "return [...document.querySelectorAll('main h2')].map((heading) => heading.textContent)"
    )
    assert order[0] == (
        "AP: avw does not differ from equal by 0.5 points or more; rlo is better than equal, though perhaps by less "
        "than 0.5 points; lr-0 is worse than equal by at least 0.5 points."
    )
    assert [item.get_attribute("data-verdict") for item in find(opened, ".verdicts li")] == [
        "equal", "better", "worse"
    ]  # fmt: skip
    assert find(opened, ".plan")[0].text.startswith("Asked: AP, in which a difference of 0.5 points matters")
    # The runs were made by hand, so that nothing was written down before them.
    assert "Nothing was planned" in find(opened, "main .note")[0].text
    assert "AP: differences" in order and "Weights over the iterations" in order
    assert complaints(opened) == []


def test_every_run_is_a_dot_at_its_place(opened: Any) -> None:
    (plot,) = find(opened, "section[aria-labelledby=h-metrics] .drawing")
    dots = plot.find_elements(By.CSS_SELECTOR, ".seed")
    # lr-0 is far beyond the others: an arrow, no dots.
    assert len(dots) == 3 * 5
    assert len(plot.find_elements(By.CSS_SELECTOR, ".published")) == 2
    places = {}
    for dot in dots:
        title = dot.find_element(By.TAG_NAME, "title").get_attribute("textContent")
        value = float(re.search(r": ([\d.]+)$", title)[1])  # type: ignore[index]
        places[value] = dot.rect["x"]
    ordered = sorted(places)
    assert [places[value] for value in ordered] == sorted(places.values())
    # A linear scale: the middle value lies where it should between the first and the last.
    first, middle, last = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    share = (places[middle] - places[first]) / (places[last] - places[first])
    assert share == pytest.approx((middle - first) / (last - first), abs=0.02)


def test_an_interval_that_holds_zero_reaches_over_the_line(opened: Any) -> None:
    (plot,) = find(opened, "section[aria-labelledby=h-differences] .drawing")
    zero = plot.find_element(By.CSS_SELECTOR, ".zero").rect["x"]
    equal, better, band = (
        plot.find_element(By.CSS_SELECTOR, kind).rect
        for kind in (".corrected.v-equal", ".corrected.v-better", ".gain")
    )
    assert equal["x"] < zero < equal["x"] + equal["width"]
    # It is smaller than the gain.
    assert band["x"] < equal["x"] and equal["x"] + equal["width"] < band["x"] + band["width"]
    assert zero < better["x"] < band["x"] + band["width"] < better["x"] + better["width"]


def test_weights_of_the_arms_that_move_them(opened: Any) -> None:
    (section,) = find(opened, "section[aria-labelledby=h-histories]")
    cards = section.find_elements(By.CSS_SELECTOR, ".card")
    assert [card.find_element(By.TAG_NAME, "h3").text for card in cards] == ["avw", "rlo"]
    assert all(len(card.find_elements(By.CSS_SELECTOR, "polyline.history")) == 5 for card in cards)
    assert "equal: constant, 1." in section.text


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_and_its_texts_are_legible(opened: Any, width: int, theme: str) -> None:
    try:
        opened.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        opened.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
        for table in find(opened, ".table"):  # no table has to be scrolled to the side
            assert (
                opened.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth", table)
                <= 0
            )
        for text in find(opened, ".drawing text"):
            assert float(text.value_of_css_property("font-size").removesuffix("px")) >= 11
        chosen = "main p.soft, .verdict, .drawing .name, .drawing .tick, caption, thead th"
        assert worst_contrast(opened, chosen) >= 4.5
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def worst_contrast(browser: Any, chosen: str) -> float:
    """The least contrast ratio (WCAG 2) of these texts to what is behind them."""
    script = """
        const parts = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((part) => Number(part) / 255);
        const light = (color) => parts(color).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if (!/, 0\\)$/.test(color)) return color;
          }
          return "rgb(255, 255, 255)";
        };
        return Math.min(...[...document.querySelectorAll(arguments[0])].map((element) => {
          const style = getComputedStyle(element);
          const [a, b] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }));
    """
    return float(browser.execute_script(script, chosen))


def test_the_keyboard_reaches_everything(opened: Any) -> None:
    reached = []
    body = opened.find_element(By.TAG_NAME, "body")
    for _ in range(12):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        element = opened.switch_to.active_element
        if element == body:
            break
        reached.append(element.get_attribute("id") or element.get_attribute("class") or element.tag_name)
    assert reached[0] == "theme" and "summary" in reached
    assert reached.count("table") == 4  # the fifth is in the closed details
    before = opened.execute_script("return document.documentElement.dataset.theme")
    opened.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    assert opened.execute_script("return document.documentElement.dataset.theme") != before
    opened.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert opened.find_element(By.ID, "table-runs").is_displayed()
    assert complaints(opened) == []


def test_it_prints_in_light_colours_with_all_runs(opened: Any) -> None:
    opened.execute_script("document.documentElement.dataset.theme = 'dark'")
    opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.execute_script("return document.documentElement.dataset.theme") == "light"
    assert opened.find_element(By.ID, "table-runs").is_displayed()
    opened.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert opened.execute_script("return document.documentElement.dataset.theme") == "dark"
    assert not opened.find_element(By.ID, "table-runs").is_displayed()
    assert opened.execute_cdp_cmd("Page.printToPDF", {})["data"]


def test_a_name_is_never_read_as_html(browser: Any, tmp_path: Path) -> None:
    """Arms become file names, labels and titles do not."""
    from finished_grid import report_of

    rows = [{"arm": arm, "labels": [HOSTILE]} for arm in STRATEGIES]
    table = {"title": HOSTILE, "labels": [HOSTILE], "rows": rows}
    ablation, grid = finished(tmp_path, seeds=2, intervals=3, table=table)
    report_of(ablation, grid, notes=(HOSTILE,)).write(tmp_path)
    open_page(browser, tmp_path / "report.html")
    assert find(browser, "img") == []
    assert "<img src=x" in browser.find_element(By.ID, "table-table").text
    assert complaints(browser) == []
