"""The page of `msbal plot-losses --html`, made by the command from records of `msbal replay`, in a browser.

Chromium runs headless and sees a file alone. Any console message fails a test, and so does any request
that would leave the page.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("plotly", reason="the page needs the extra `plots`")
pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")

from headless import browser_in, complaints, open_page, wait
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from browser_in(tmp_path_factory.mktemp("chromium"))


def msbal(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from msbal.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``one``: RLO over five levels. ``three``: three runs, one of them damaged, one with a hostile name."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    fall = 0.2 + np.exp(-np.arange(2000) / 400)[:, None] * 0.6 ** np.arange(5)
    losses = fall * rng.gamma(4.0, 0.25, fall.shape)
    np.savetxt(folder / "l.csv", losses, delimiter=",", header="P3,P4,P5,P6,P7", comments="", fmt="%.6f")
    names = {"rlo": "rlo", "avw": "avw <img src=x onerror=console.error(1)>", "equal": "equal"}
    for strategy, name in names.items():
        records = folder / f"{name}.jsonl"
        msbal("replay", str(folder / "l.csv"), "--strategy", strategy, "--interval", "20", "-o", str(records))
    rows = (folder / "equal.jsonl").read_text().splitlines(keepends=True)
    rows[10:14] = ["damaged\n"]
    (folder / "equal.jsonl").write_text("".join(rows)[:-100])
    files = [str(folder / f"{name}.jsonl") for name in names.values()]
    msbal("plot-losses", files[0], "--html", str(folder / "one.html"))
    msbal("plot-losses", *files, "--html", str(folder / "three.html"), "--smooth", "5")
    return {"one": folder / "one.html", "three": folder / "three.html", "records": folder / "rlo.jsonl"}


def plots(browser: Any, panel: str = "") -> list[Any]:
    chosen = f".plot[data-panel*='{panel}']" if panel else ".plot"
    return [plot for plot in browser.find_elements(By.CSS_SELECTOR, chosen) if plot.is_displayed()]


def drawn(browser: Any, plot: Any) -> Any:
    """Scrolls a plot into sight, waits for its curves, and gives plotly's own data back."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    wait(browser, lambda: plot.get_attribute("data-drawn") and plot.find_elements(By.CSS_SELECTOR, "svg"))
    return browser.execute_script(
        "return arguments[0]._fullData.filter(t => t.visible === true && t.hoverinfo !== 'skip').map(t => "
        "({name: t.name, x: arguments[0].calcdata[t.index].map(p => p.x), y: Array.from(t.y), line: t.line}))", plot,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["one", "three"])
def test_all_panels_are_drawn_without_a_word_in_the_console(
    browser: Any, pages: dict[str, Path], name: str
) -> None:
    open_page(browser, pages[name])
    found = wait(browser, lambda: plots(browser))
    # three: 3 runs times total, loss, weights, 2 of variance, 2 of share; probabilities and rewards of RLO alone.
    assert len(found) == {"one": 9, "three": 3 * 7 + 2}[name]
    for plot in found:
        assert drawn(browser, plot)
    assert complaints(browser) == []


def test_the_check_sees_what_goes_wrong(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    """A page with an error, and one that reaches for the network, do not pass for good."""
    text = pages["one"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace('"figures":', '"lost":', 1), encoding="utf-8")
    open_page(browser, broken)
    wait(browser, lambda: any("SEVERE" in said for said in complaints(browser)))
    curious = tmp_path / "curious.html"
    outside = "<script src='http://msbal.invalid/x.js'></script></body>"
    curious.write_text(text.replace("</body>", outside), encoding="utf-8")
    open_page(browser, curious)
    # Its own policy stops it before a packet leaves.
    wait(browser, lambda: any("Content Security Policy" in said for said in complaints(browser)))


def test_curves_are_the_records(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["one"])
    records = [json.loads(row) for row in pages["records"].read_text().splitlines()]
    (loss,) = plots(browser, "loss")
    curves = drawn(browser, loss)
    assert [curve["name"] for curve in curves] == ["P3", "P4", "P5", "P6", "P7"]
    for place, curve in enumerate(curves):
        assert curve["x"] == [record["iteration"] for record in records]
        assert curve["y"] == pytest.approx([record["loss"][place] / 20 for record in records], rel=1e-5)
    for weighted, plot in zip((False, True), plots(browser, "share"), strict=True):
        parts = np.array([curve["y"][1:] for curve in drawn(browser, plot)]).T
        held = np.array([r["previous_weights"] if weighted else [1] * 5 for r in records])
        weighed = np.array([record["loss"] for record in records]) * held
        assert parts == pytest.approx(weighed / weighed.sum(axis=1, keepdims=True), rel=1e-4)
    (total,) = drawn(browser, plots(browser, "total")[0])
    assert total["y"] == pytest.approx([sum(record["loss"]) / 20 for record in records], rel=1e-5)
    assert complaints(browser) == []


def test_the_mouse_shows_values(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["one"])
    for panel in ("loss", "weights", "probabilities"):
        (plot,) = plots(browser, panel)
        drawn(browser, plot)
        ActionChains(browser).move_to_element_with_offset(plot, 30, 15).perform()
        label = wait(
            browser, lambda plot=plot: plot.find_elements(By.CSS_SELECTOR, ".hoverlayer .legend text")
        )
        text = " ".join(part.text for part in label)
        assert "iteration" in text
        assert ("avw" if panel == "probabilities" else "P3") in text
        ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    assert complaints(browser) == []


def test_a_zoom_is_followed_by_all_panels_and_undone_by_a_double_click(
    browser: Any, pages: dict[str, Path]
) -> None:
    open_page(browser, pages["one"])
    (loss,), (variance, _) = plots(browser, "loss"), plots(browser, "variance")
    drawn(browser, variance)
    drawn(browser, loss)

    def window(plot: Any) -> list[float]:
        script = "return Array.from(arguments[0]._fullLayout.xaxis.range)"
        return browser.execute_script(script, plot)  # type: ignore[no-any-return]

    whole = window(loss)
    assert window(variance) == whole
    drag = ActionChains(browser).move_to_element_with_offset(loss, -80, 0).click_and_hold()
    drag.move_by_offset(70, 0).pause(0.1).move_by_offset(60, 0).release().perform()
    near = wait(browser, lambda: (now := window(loss)) != whole and now)
    assert whole[0] < near[0] < near[1] < whole[1]
    wait(browser, lambda: window(variance) == near)

    def undone() -> bool:
        if window(loss) == window(variance) == whole:
            return True
        # Again until it is one: on a busy machine the two clicks can be too far apart.
        ActionChains(browser).move_to_element_with_offset(loss, 20, 0).double_click().perform()
        return False

    wait(browser, undone)
    assert complaints(browser) == []


def test_levels_runs_and_layout_can_be_chosen(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["three"])
    wait(browser, lambda: plots(browser))
    losses = plots(browser, "loss")
    assert len(losses) == 3

    browser.find_elements(By.CSS_SELECTOR, "#levels .chip")[1].click()
    wait(browser, lambda: {curve["name"] for curve in drawn(browser, losses[0])} == {"P3", "P5", "P6", "P7"})

    browser.find_elements(By.CSS_SELECTOR, "#runs .chip")[2].click()
    wait(browser, lambda: len(plots(browser, "loss")) == 2)

    Select(browser.find_element(By.ID, "layout")).select_by_value("overlay")
    wait(browser, lambda: len(plots(browser, "loss")) == 1)
    curves = drawn(browser, plots(browser, "loss")[0])
    assert len(curves) == 4 * 2
    assert {curve["line"]["dash"] for curve in curves} == {"solid", "dash"}
    assert complaints(browser) == []


def test_a_runs_name_is_never_read_as_html(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["three"])
    wait(browser, lambda: plots(browser))
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert "avw <img src=x" in browser.find_element(By.ID, "runs").text
    Select(browser.find_element(By.ID, "layout")).select_by_value("overlay")
    plot = wait(browser, lambda: plots(browser, "loss"))[0]
    drawn(browser, plot)
    ActionChains(browser).move_to_element_with_offset(plot, 30, 15).perform()
    wait(browser, lambda: plot.find_elements(By.CSS_SELECTOR, ".hoverlayer .legend text"))
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert complaints(browser) == []


def test_damage_is_told_on_the_page(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["three"])
    notes = wait(browser, lambda: [note.text for note in browser.find_elements(By.CSS_SELECTOR, ".note")])
    assert any("equal: 1 damaged lines skipped" in note for note in notes)
    assert any("4 intervals are missing" in note for note in notes)


def test_dark_and_light(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["one"])
    (plot,) = plots(browser, "loss")

    def colors() -> tuple[str, str, str]:
        drawn(browser, plot)
        return (
            browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"),
            plot.find_element(By.CSS_SELECTOR, ".gridlayer path").value_of_css_property("stroke"),
            plot.find_element(By.CSS_SELECTOR, ".xtick text").value_of_css_property("fill"),
        )

    before = colors()
    browser.find_element(By.ID, "theme").click()
    after = wait(browser, lambda: (now := colors())[0] != before[0] and now[1] != before[1] and now)
    assert after[2] != before[2]
    browser.find_element(By.ID, "theme").click()
    wait(browser, lambda: colors() == before)
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_it_fits_windows_of_any_width(browser: Any, pages: dict[str, Path], width: int) -> None:
    before = browser.get_window_size()
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        open_page(browser, pages["one"])
        drawn(browser, wait(browser, lambda: plots(browser))[0])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(before["width"], before["height"])
