"""Runs to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_runs import lines, simulate

from msbal.records import IntervalRecord


@pytest.fixture
def records() -> Callable[..., list[IntervalRecord]]:
    return simulate


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """``write_run("name", intervals=20, ...)``: a run directory with simulated records."""

    def write(name: str = "run", text: str | None = None, **options: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        content = lines(simulate(**options)) if text is None else text  # type: ignore[arg-type]
        (folder / "intervals.jsonl").write_text(content, encoding="utf-8")
        return folder

    return write
