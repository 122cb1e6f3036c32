"""Chromium without a window, which sees a file alone and tells everything that it complains about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from needed import absent

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")

from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1000"
)
PATIENCE = 90  # seconds; only a machine that does nothing at all runs into it


def browser_in(folder: Path) -> Iterator[Any]:
    """Chromium, with its profile in a new folder; what a module's fixture `browser` yields from."""
    missing = [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if found is None]
    if missing:
        absent(f"not on the PATH: {', '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={folder}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def open_page(browser: Any, page: Path) -> None:
    for log in ("browser", "performance"):
        browser.get_log(log)  # what earlier pages said
    browser.get(page.as_uri())


def wait(browser: Any, condition: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, PATIENCE).until(lambda _: condition())


def complaints(browser: Any) -> list[str]:
    """Everything in the console, and every address that was asked for but the page's own."""
    said = [f"{entry['level']}: {entry['message']}" for entry in browser.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return said + [url[:200] for url in asked if not url.startswith(("file:", "data:", "blob:"))]
