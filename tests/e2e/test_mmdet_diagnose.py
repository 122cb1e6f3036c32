"""`msbal diagnose` of a run with mmdet."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="mmdet is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import msbal_process
from mmdet_specs import write_spec
from msbal_process import finish, start

from msbal.records.diagnosis import read_diagnosis

msbal_process.PRELOAD += ["msbal_mmdet.splitters", "msbal_mmdet.training.runner"]


def test_a_run_and_a_spec_that_starts_from_its_weights(tmp_path: Path) -> None:
    write_spec(tmp_path, evaluate={"enabled": True})
    finish(start(tmp_path, "train", "spec.yaml", "-o", "run", "--plain"), tmp_path)
    finish(start(tmp_path, "diagnose", "run", "--batches", "2"), tmp_path)
    found = read_diagnosis(tmp_path / "run" / "diagnosis.json")
    assert [state.iteration for state in found.states] == [0, 8, 9]
    last = found.states[-1]
    (group,) = last.groups
    assert group.levels == ("P3", "P4", "P5", "P6", "P7")
    assert set(group.norm) == {"backbone", "neck", "head", "shared"}
    assert group.positives is not None and sum(each.mean for each in group.positives) > 0
    assert len(group.ap) == 5 and last.metrics and sum(found.boxes["all"]) > 0
    # mmengine loads the weights to start from only when it trains.
    weights = f"model.weights={tmp_path / 'run' / 'checkpoints' / 'iteration_00000009.pth'}"
    finish(
        start(tmp_path, "diagnose", "spec.yaml", "--set", weights, "--batches", "2", "-o", "from"), tmp_path
    )
    (state,) = read_diagnosis(tmp_path / "from" / "diagnosis.json").states
    assert state.groups[0].loss == group.loss and state.groups[0].norm == group.norm
    assert state.metrics == last.metrics
