"""A run is continued only as the run that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the specs here are the torchvision backend's")

from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.spec import RunSpec, parse_spec, save_spec
from msbal.training.resume import check_same_run


def spec(tmp_path: Path, **changes: object) -> RunSpec:
    raw = {
        "backend": "torchvision",
        "model": {"name": "retinanet"},
        "data": {"format": "generated"},
        "schedule": {"iterations": 200, "batch_size": 2},
        "output": str(tmp_path),
    }
    return parse_spec({**raw, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    save_spec(spec(tmp_path), directory.spec_file)
    return directory


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": {"iterations": 300, "batch_size": 2, "workers": 3}},
        {"device": "cpu"},
        {"evaluate": {"every": 5}},
        {"log": {"tensorboard": True}},
        {"balance": {"measure": 50}},
    ],
)
def test_what_may_differ(run: RunDirectory, tmp_path: Path, changes: dict[str, object]) -> None:
    check_same_run(spec(tmp_path, **changes), run)


def test_what_a_strategy_decides_by_may_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    save_spec(spec(tmp_path, balance={"strategy": "grad_norm"}), run.spec_file)
    with pytest.raises(SpecError, match=r"balance.measure: 50"):
        check_same_run(spec(tmp_path, balance={"strategy": "grad_norm", "measure": 50}), run)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"balance": {"strategy": "avw"}}, "balance"),
        ({"balance": {"interval": 50}}, "balance.interval"),
        ({"schedule": {"iterations": 200, "batch_size": 4}}, "schedule.batch_size"),
        ({"model": {"name": "fcos"}}, "model.name"),
        ({"data": {"format": "generated", "size": 128}}, "data.size"),
    ],
)
def test_what_may_not(run: RunDirectory, tmp_path: Path, changes: dict[str, object], key: str) -> None:
    with pytest.raises(SpecError, match=key):
        check_same_run(spec(tmp_path, **changes), run)
