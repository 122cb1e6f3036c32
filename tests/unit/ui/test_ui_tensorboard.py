from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msbal.engine.record import IntervalRecord
from msbal.errors import SpecError
from msbal.ui.monitor import RunHeader, make_monitor
from msbal.ui.tensorboard import TensorBoardMonitor

Make = Callable[..., IntervalRecord]


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def monitor(tmp_path: Path) -> TensorBoardMonitor:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    return TensorBoardMonitor(tmp_path / "tb")


def test_scalars_are_those_of_the_record(
    monitor: TensorBoardMonitor, tmp_path: Path, one_group: Any, make_record: Make, metrics: dict[str, Any]
) -> None:
    record = make_record(2, one_group[0], bad=10)
    monitor.started(0, 1000, one_group)
    monitor.stepped(150, {"learning_rate": 0.01})
    monitor.stepped(151, {"learning_rate": 0.02})
    monitor.interval(record)
    monitor.evaluated(500, metrics)
    monitor.close()
    found = read(tmp_path / "tb")
    for i, level in enumerate(record.levels):
        assert found[f"loss/{level}"] == [(200, pytest.approx(record.loss[i] / 90))]
        assert found[f"loss/{level}/cls"] == [(200, pytest.approx(record.loss_by_term["cls"][i] / 90))]
        assert found[f"loss/{level}/bbox"] == [(200, pytest.approx(record.loss_by_term["bbox"][i] / 90))]
        assert found[f"variance/{level}"] == [(200, pytest.approx(record.variance[i]))]
        assert found[f"reduction/{level}"] == [(200, pytest.approx(record.variance_reduction[i], abs=1e-6))]
        assert found[f"weight/{level}"] == [(200, pytest.approx(record.weights[i]))]
    assert found["probability/avw"] == [(200, pytest.approx(0.31))]
    assert found["action"] == [(200, 2.0)], "max_loss is the third"
    assert found["reward"] == [(200, 1.0)]
    assert found["metrics/AP"] == [(500, pytest.approx(0.2314))]
    assert found["metrics/voc/mAP"] == [(500, pytest.approx(0.4444))]
    assert "metrics/AP_S" not in found and "metrics/iteration" not in found
    assert found["train/learning_rate"] == [(150, pytest.approx(0.01))], "at most one a second"


def test_groups_are_told_apart(
    monitor: TensorBoardMonitor, tmp_path: Path, two_groups: Any, make_record: Make
) -> None:
    monitor.started(0, 1000, two_groups)
    for group in two_groups:
        monitor.interval(make_record(1, group, "avw"))
    monitor.close()
    found = read(tmp_path / "tb")
    assert "rpn/loss/P6" in found and "roi/weight/P2" in found and "loss/P2" not in found
    assert not [tag for tag in found if "probability" in tag or "reward" in tag or "action" in tag]


def test_resume_hides_what_came_after_the_checkpoint(
    tmp_path: Path, one_group: Any, make_record: Make
) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    first = TensorBoardMonitor(tmp_path)
    first.started(0, 1000, one_group)
    for t in range(1, 6):
        first.interval(make_record(t, one_group[0]))
    first.close()
    second = TensorBoardMonitor(tmp_path)
    second.started(300, 1000, one_group)
    second.interval(make_record(4, one_group[0]))
    second.close()
    assert [step for step, _ in read(tmp_path)["weight/P3"]] == [100, 200, 300, 400]


def test_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, header: RunHeader, paper: Any
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SpecError, match=r"run `pip install 'msbal\[tensorboard\]'`") as caught:
        make_monitor("plain", paper(), header, tensorboard=tmp_path / "tb")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert not (tmp_path / "tb").exists()
