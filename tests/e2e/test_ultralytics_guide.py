"""The guide's snippets and examples run as they stand, but for the size of the images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

from tiny_yolo import make_data

from msbal.spec import parse_spec

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "backends" / "ultralytics" / "README.md").read_text(encoding="utf-8")
SCRIPT, LOOP = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_one_call_in_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = str(tmp_path / "runs")
    small = f"imgsz=64, batch=2, workers=0, device='cpu', plots=False, val=False, project={project!r}, name='train'"
    script = SCRIPT.replace('"mine.yaml"', repr(str(make_data(tmp_path))))
    script = script.replace("epochs=3", f"epochs=1, {small}")
    exec(compile(script.replace("interval=100", "interval=2"), "guide", "exec"), {})
    run = tmp_path / "runs" / "train"
    records = [json.loads(line) for line in (run / "intervals.jsonl").read_text().splitlines()]
    assert [record["levels"] for record in records] == [["P3", "P4", "P5"]] * len(records) and records
    assert (run / "results.csv").exists() and (run / "losses.csv").exists()


def test_a_loop_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(LOOP, "guide", "exec"), names)
    for balanced in (names["balanced"], names["alone"]):
        assert [group.levels for group in balanced.groups] == [("P3", "P4", "P5")]


def test_its_specs_are_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    example = (ROOT / "examples" / "ultralytics" / "yolov8n_rlo.yaml").read_text(encoding="utf-8")
    for spec in (text, example):
        assert parse_spec({**yaml.safe_load(spec), "output": "runs/x"}).backend == "ultralytics"


@pytest.mark.release
def test_the_example_script_is_balanced(tmp_path: Path) -> None:
    script = ROOT / "examples" / "ultralytics" / "own_script.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--epochs", "1"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "balanced all: P3, P4, P5" in done.stdout
    assert len((tmp_path / "run" / "intervals.jsonl").read_text().splitlines()) == 2  # of 4 batches
