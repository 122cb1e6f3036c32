"""docs/strategies.md, run as it stands: from an empty folder to `msbal train`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")

SPEC = """
backend: torchvision
model: {name: retinanet, backbone: resnet18, pretrained: false, fpn_channels: 32}
data: {format: generated, train_images: 4, val_images: 2, size: 96}
schedule: {iterations: 4, batch_size: 1}
balance: {strategy: rlo, interval: 2}
evaluate: {enabled: false}
device: cpu
"""


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for found, text in fences if found == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, installed; beside this environment rather than into it."""
    folder = tmp_path_factory.mktemp("laggard")
    names = re.findall(r"^`([\w.]+)`(?:, beside the file)?:\n\n```", TEXT, re.MULTILINE)
    assert names == ["laggard.py", "test_laggard.py", "pyproject.toml"]
    code = iter(blocks("python"))
    for name in names:
        (folder / name).write_text(next(code) if name.endswith(".py") else blocks("toml")[0])
    assert "pip install -e .\n" in blocks("")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", folder / "site",
         folder],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "data.yaml").write_text(SPEC)
    rows = [f"{1 / (m + 1):.4f},{2 / (m + 2):.4f},0.5" for m in range(60)]
    (folder / "losses.csv").write_text("\n".join(["P3,P4,P5", *rows]) + "\n")
    return folder


def run(folder: Path, command: str, *more: str) -> str:
    """A command of the page, as printed."""
    program, *arguments = command.split()
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments, *more],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(starting: str) -> str:
    (found,) = [block.strip() for block in blocks("") if block.startswith(starting)]
    return found


def test_it_keeps_the_contract(folder: Path) -> None:
    assert re.search(r"\d\d+ passed", run(folder, command("pytest"), "-p", "no:cacheprovider"))


def test_replay_and_training_know_it(folder: Path) -> None:
    run(folder, command("msbal replay"))
    records = [json.loads(line) for line in (folder / "laggard.jsonl").read_text().splitlines()]
    assert len(records) == 3 and {record["action"] for record in records} == {"laggard"}
    # The third level has not fallen at all.
    assert records[-1]["weights"][2] == max(records[-1]["weights"]) > 1.5
    assert sum(records[-1]["weights"]) == pytest.approx(3)

    run(folder, command("msbal train"), "--set", f"output={folder}/run", "--plain")
    lines = (folder / "run" / "intervals.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["laggard", "laggard"]


def test_the_table_names_what_a_strategy_may_look_at() -> None:
    from dataclasses import fields

    from msbal.engine import IntervalStatistics

    table = TEXT.split("| `statistics.` | what |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:]))) == {
        field.name for field in fields(IntervalStatistics)
    }
