"""The tables of docs/yolov5-balance.md are what docs/yolov5_balance.py makes of the runs that are kept."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("yolov5_balance", DOCS / "yolov5_balance.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def runs(writer: ModuleType, aps: dict[str, list[float]]) -> list[Any]:
    """A run for each arm and seed, with these APs."""
    return [
        writer.Run(
            arm, seed, "cells", 20, {"ultralytics": "8.4"}, ["P3", "P4", "P5"], ap, 2 * ap, [6.0, 3.0, 1.0],
            {"cls": [3.0, 1.0, 0.0], "bbox": [3.0, 2.0, 1.0]}, [2.0, 0.75, 0.25], [90, 9, 1],
        )
        for arm, values in aps.items()
        for seed, ap in enumerate(values, start=1)
    ]  # fmt: skip


def test_the_page_has_the_tables_of_what_is_kept(writer: ModuleType) -> None:
    text = writer.PAGE.read_text(encoding="utf-8")
    assert writer.page(text, writer.kept()) == text


def test_the_arms_have_the_same_seeds_and_photographs(writer: ModuleType) -> None:
    arms = writer.complete(writer.kept())
    assert writer.BASELINE in arms and len(arms) >= 3
    found = [run for each in arms.values() for run in each]
    assert len({run.seed for run in found}) >= 3
    assert len({(run.images, tuple(run.levels), tuple(run.versions.items())) for run in found}) == 1


def test_an_arm_without_all_seeds_waits(writer: ModuleType) -> None:
    text = writer.measured(runs(writer, {"equal": [0.3, 0.4], "autobalance": [0.3, 0.5], "rlo": [0.4]}))
    assert text.startswith("4 runs") and "| autobalance |" in text and "| rlo |" not in text


def test_shares_and_weights(writer: ModuleType) -> None:
    text = writer.measured(runs(writer, {"equal": [0.3, 0.4, 0.35], "rlo": [0.31, 0.4, 0.36]}))
    assert "| equal | 2.000 | 0.750 | 0.250 | 60.0 % | 30.0 % | 10.0 % |" in text
    assert "| cls | 75.0 % | 25.0 % | 0.0 % |" in text
    assert "| anchors with a box | 90.0 % | 9.0 % | 1.0 % |" in text
    assert "| equal | 70.0 | 35.00 ± 5.00 |" in text


@pytest.mark.parametrize(
    ("rlo", "says"),
    [
        ([0.301, 0.399, 0.352], "no difference from `equal` is shown"),
        ([0.4, 0.502, 0.451], "a difference is shown for `rlo`"),
    ],
)
def test_it_says_a_difference_only_where_the_seeds_show_one(
    writer: ModuleType, rlo: list[float], says: str
) -> None:
    assert says in writer.measured(runs(writer, {"equal": [0.3, 0.4, 0.35], "rlo": rlo}))


def test_tables_of_other_runs_are_printed_and_the_page_stays(
    writer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, before = tmp_path / "mine.jsonl", writer.PAGE.read_text(encoding="utf-8")
    lines = [json.dumps(run._asdict()) for run in runs(writer, {"equal": [0.3, 0.4], "rlo": [0.3, 0.5]})]
    mine.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["yolov5_balance.py", "--runs", str(mine)])
    writer.main()
    assert capsys.readouterr().out.startswith("4 runs of yolov8n")
    assert writer.PAGE.read_text(encoding="utf-8") == before
