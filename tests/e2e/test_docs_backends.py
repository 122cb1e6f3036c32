"""docs/backends.md, run as it stands: from an empty folder to a green contract and a trained model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
NAMES = ("toyframe.py", "msbal_toy.py", "test_toy.py", "pyproject.toml", "toy.yaml")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for found, text in fences if found == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, installed; beside this environment rather than into it."""
    folder = tmp_path_factory.mktemp("toy")
    for name in NAMES:
        assert f"`{name}`" in TEXT
    written = [*blocks("python"), *blocks("toml"), *blocks("yaml")]
    for name, text in zip(NAMES, written, strict=True):
        (folder / name).write_text(text, encoding="utf-8")
    assert "pip install -e .\n" in blocks("")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", folder / "site",
         folder],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, starting: str, *more: str) -> str:
    """The page's command that starts so, as printed."""
    (command,) = [block.strip() for block in blocks("") if block.startswith(starting)]
    program, *arguments = command.split()
    environment = {
        **os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1", "MSBAL_CACHE": str(folder / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(folder: Path) -> None:
    assert re.search(r"2\d passed", run(folder, "pytest", "-p", "no:cacheprovider"))


def test_inspect_proves_it_and_training_learns(folder: Path) -> None:
    shown = run(folder, "msbal inspect")
    assert shown.count("ok") >= 3 and "bit for bit" in shown and "loss_count" in shown
    run(folder, "msbal train", "--plain", "--set", "device=cpu")
    records = [json.loads(line) for line in (folder / "run" / "intervals.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records] == [10, 20, 30, 40]
    assert sum(records[-1]["loss"]) < sum(records[0]["loss"])
    assert "AP" in (folder / "run" / "metrics.json").read_text()


def test_the_page_names_what_can_be_honoured() -> None:
    from msbal.backend import HONOURED

    (text,) = re.findall(r"^- \*\*`honours`\*\* (.*?)\. Begin", TEXT, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", text)) == HONOURED
