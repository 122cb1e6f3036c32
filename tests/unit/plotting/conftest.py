"""Runs to draw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from simulated_runs import lines, simulate

from msbal.records import IntervalRecord


@pytest.fixture
def records() -> Callable[..., list[IntervalRecord]]:
    return simulate


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """``write_run("name", intervals=20, ...)``: a run directory with simulated records.

    ``aps={40: 0.1}`` also writes a metrics.json: by iteration the AP; AP50 is twice as high.
    """

    def write(
        name: str = "run", text: str | None = None, aps: Mapping[int, float] | None = None, **options: object
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        content = lines(simulate(**options)) if text is None else text  # type: ignore[arg-type]
        (folder / "intervals.jsonl").write_text(content, encoding="utf-8")
        if aps:
            entries = [{"iteration": at, "AP": ap, "AP50": 2 * ap} for at, ap in aps.items()]
            (folder / "metrics.json").write_text(json.dumps({"evaluations": entries, "final": None}))
        return folder

    return write
