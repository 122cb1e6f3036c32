"""`msbal diagnose` of a run with detectron2."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

import msbal_process
from detectron2_specs import FASTER, write_spec
from msbal_process import finish, start

from msbal.records.diagnosis import read_diagnosis

msbal_process.PRELOAD += ["msbal_detectron2.splitters", "msbal_detectron2.detector"]


def test_both_groups_of_a_run(tmp_path: Path) -> None:
    write_spec(tmp_path, FASTER, balance={"scope": ["rpn", "roi"]})
    finish(start(tmp_path, "train", "spec.yaml", "-o", "run", "--plain"), tmp_path)
    printed = finish(start(tmp_path, "diagnose", "run", "--batches", "2"), tmp_path)
    found = read_diagnosis(tmp_path / "run" / "diagnosis.json")
    assert [state.iteration for state in found.states][0::2] == [0] and len(found.states) == 2
    last = found.states[-1]
    assert [group.group for group in last.groups] == ["rpn", "roi"]
    for group in last.groups:
        assert set(group.norm) == {"backbone", "neck", "head", "shared"}
        assert (
            len(group.ap) == len(group.levels) and f"{last.when} (the best), group {group.group}" in printed
        )
    rpn, roi = last.groups
    assert rpn.loss != found.states[0].groups[0].loss
    assert sum(share.mean for share in rpn.share) == pytest.approx(1)
    # In images this small all RoIs come from the finest level, which shares no gradient with another.
    assert roi.norm["backbone"][0].mean > 0 and all(math.isnan(share.mean) for share in roi.share)
