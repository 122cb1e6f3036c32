from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from msbal.backend import Diagnosis
from msbal.ui.tables import (
    backends_table,
    data_table,
    key_values,
    levels_table,
    losses_table,
    print_table,
    proof_table,
    value_text,
)

Paper = Callable[..., Console]


def printed(console: Console, table: Any) -> list[str]:
    print_table(console, table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def cells(lines: list[str], first: str) -> list[str]:
    return next(line for line in lines if line.split()[:1] == [first]).split()


@dataclass(frozen=True)
class Inner:
    lr: float
    milestones: tuple[float, ...]


@dataclass(frozen=True)
class Settings:
    name: str
    optimizer: Inner
    resume: bool = False


def test_key_values_flatten(paper: Paper) -> None:
    lines = printed(paper(), key_values(Settings("[x] run", Inner(0.00123456, (0.6, 0.9)))))
    assert [line.split(maxsplit=1) for line in lines if line] == [
        ["name", "[x] run"], ["optimizer.lr", "0.001235"], ["optimizer.milestones", "0.6, 0.9"], ["resume", "no"],
    ]  # fmt: skip


def test_values() -> None:
    assert [value_text(v).plain for v in (None, True, 12345, 0.123456, {"b", "a"}, [], "a\nb")] == [
        "-", "yes", "12,345", "0.1235", "a, b", "-", "a b",
    ]  # fmt: skip


def test_data_table(paper: Paper) -> None:
    summary = {
        "train": {"images": 16000, "boxes per level": {"P3": 12, "P4": 345}, "dropped": 2},
        "val": {"images": 80, "boxes per level": {"P4": 7}},
    }
    lines = printed(paper(), data_table(summary))
    assert cells(lines, "images") == ["images", "16,000", "80"]
    assert cells(lines, "P3") == ["P3", "12", "-"]
    assert cells(lines, "P4") == ["P4", "345", "7"]
    assert cells(lines, "dropped") == ["dropped", "2", "-"]


def test_levels_table(paper: Paper, two_groups: Any) -> None:
    lines = printed(paper(), levels_table(two_groups))
    assert cells(lines, "rpn") == ["rpn", "RPN", "P2", "4", "cls,", "bbox"]
    assert cells(lines, "roi") == ["roi", "RoIHeads", "P2", "4", "cls,", "bbox"]
    assert [line.split()[0] for line in lines if "cls" in line] == [
        "rpn",
        "P3",
        "P4",
        "P5",
        "P6",
        "roi",
        "P3",
        "P4",
        "P5",
    ]


def make_proof(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "framework_total": 2.5000001, "split_total": 2.5, "value_error": 4e-8, "unit_gradient": 0.0,
        "weighted_gradient": 3e-6, "parameters": 17, "weights": {"all": (1.25, 0.6)},
        "losses": {"all": {"cls": (1.0, 0.5), "bbox": (0.25, 0.125)}}, "rest": {"loss_mask": 0.625},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def test_proof_table(paper: Paper) -> None:
    pytest.importorskip("torch", reason="the tolerances are msbal.proof's")
    lines = printed(paper(), proof_table(make_proof()))
    assert sum("holds" in line for line in lines) == 3 and not any("FAILS" in line for line in lines)
    assert any("2.5 of 2.5" in line and "4.0e-08" in line and "1e-05" in line for line in lines)
    assert any("bit for bit" in line for line in lines)
    assert any("all: 1.25, 0.6" in line and "3.0e-06" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [({"value_error": 2e-5}, 1), ({"unit_gradient": 1.0, "weighted_gradient": 1.0}, 2), ({"parameters": 0}, 3),
     ({"weighted_gradient": float("nan")}, 1)],
)  # fmt: skip
def test_proof_that_fails_says_so(paper: Paper, changes: dict[str, Any], failing: int) -> None:
    pytest.importorskip("torch", reason="the tolerances are msbal.proof's")
    lines = printed(paper(), proof_table(make_proof(**changes)))
    assert sum("FAILS" in line for line in lines) == failing


def test_losses_table(paper: Paper) -> None:
    group = SimpleNamespace(name="all", levels=("P3", "P4"), strides=(8, 16), head="H", terms=("cls", "bbox"))
    lines = printed(paper(), losses_table(make_proof(), [group]))  # type: ignore[list-item]
    assert cells(lines, "all") == ["all", "P3", "1.000", "0.2500", "1.250"]
    assert cells(lines, "P4") == ["P4", "0.5000", "0.1250", "0.6250"]
    assert cells(lines, "rest") == ["rest", "loss_mask", "0.6250"]
    assert cells(lines, "total") == ["total", "2.500"]


def test_backends_table(paper: Paper) -> None:
    found = {
        "torchvision": ("the default", Diagnosis({"torchvision": "0.26"})),
        "mmdet": (
            "MMDetection",
            Diagnosis({}, ["mmcv is missing"], ["msbal backends install mmdet"], ["a note"]),
        ),
    }
    text = "\n".join(printed(paper(), backends_table(found)))
    assert "torchvision 0.26" in text and "ready" in text
    for line in ("broken", "mmcv is missing", "msbal backends install mmdet", "a note"):
        assert line in text


def test_tables_are_never_cut_without_a_terminal(paper: Paper) -> None:
    long = "x" * 300
    lines = printed(paper(40), key_values({"path": long}))
    assert any(long in line for line in lines)
    data = printed(paper(30), data_table({f"split{i}": {"images": 10**9 + i} for i in range(9)}))
    assert any("1,000,000,008" in line for line in data)
