"""`msbal diagnose` of a run with ultralytics."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

import msbal_process
import yaml
from msbal_process import finish, start
from ultralytics_shrunk import shrunk

from msbal.records.diagnosis import read_diagnosis

msbal_process.PRELOAD += ["msbal_ultralytics.diagnosis"]


def test_both_heads_of_a_run(tmp_path: Path) -> None:
    """A head with one target a box sees the features detached: its gradient ends before the backbone."""
    spec = {
        "backend": "ultralytics",
        "model": {"config": shrunk("yolo26"), "overrides": {"imgsz": 64}},
        "schedule": {"iterations": 4, "batch_size": 2, "workers": 0},
        "data": {"format": "generated", "root": "data", "train_images": 6, "val_images": 2, "size": 64},
        "balance": {"strategy": "rlo", "interval": 2},
        "device": "cpu",
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    finish(start(tmp_path, "train", "spec.yaml", "-o", "run", "--plain"), tmp_path)
    finish(start(tmp_path, "diagnose", "run", "--batches", "2"), tmp_path)
    found = read_diagnosis(tmp_path / "run" / "diagnosis.json")
    assert [state.iteration for state in found.states] == [0, 4]
    many, one = found.states[-1].groups
    assert (many.group, one.group) == ("o2m", "o2o")
    assert all(norm.mean > 0 for part in ("backbone", "neck", "head") for norm in many.norm[part])
    assert all(norm.mean == 0 for norm in one.norm["backbone"]) and one.norm["head"][0].mean > 0
    assert {len(group.ap) for group in (many, one)} == {3}
    assert any("of data.train" in note for note in found.notes) or set(found.boxes) == {"o2m", "o2o"}
