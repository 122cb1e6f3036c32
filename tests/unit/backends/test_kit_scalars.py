"""The names under which TensorBoard shows an interval."""

from __future__ import annotations

from dataclasses import replace

from msbal.backend import LevelGroup
from msbal.backend.kit.script_records import interval_scalars
from msbal.engine.record import IntervalRecord

RECORD = IntervalRecord(
    interval=1, iteration=4, levels=("P3", "P4"), loss=(8.0, 4.0), loss_by_term={"cls": (8.0, 4.0)},
    variance=(1.0, 2.0), variance_reduction=(0.0, -1.0), weights=(1.5, 0.5), reward=-1, action="avw",
    probabilities={"avw": 0.75, "min_loss": 0.25}, group="all", count=4,
)  # fmt: skip
RPN, ROI = (LevelGroup(name, "Head", ("P3", "P4"), (8, 16), ("cls",)) for name in ("rpn", "roi"))


def test_one_group_needs_no_name() -> None:
    assert interval_scalars(RECORD, [replace(RPN, name="all")]) == {
        "msbal/weight/P3": 1.5, "msbal/weight/P4": 0.5, "msbal/variance/P3": 1.0, "msbal/variance/P4": 2.0,
        "msbal/value/P3/cls": 2.0, "msbal/value/P4/cls": 1.0, "msbal/probability/avw": 0.75,
        "msbal/probability/min": 0.25, "msbal/reward": -1.0,
    }  # fmt: skip


def test_gradients_by_part_and_level_and_cosines_by_pair() -> None:
    norms = {"head": (3.0, 4.0), "shared": (5.0, 6.0)}
    record = replace(
        RECORD, gradient_norm=norms, gradient_cosine=((1.0, -0.5), (-0.5, 1.0)), gradient_count=1
    )
    found = interval_scalars(record, [replace(RPN, name="all")])
    assert {name: value for name, value in found.items() if "gradient" in name or "cosine" in name} == {
        "msbal/gradient/head/P3": 3.0, "msbal/gradient/head/P4": 4.0, "msbal/gradient/shared/P3": 5.0,
        "msbal/gradient/shared/P4": 6.0, "msbal/cosine/P3-P4": -0.5,
    }  # fmt: skip


def test_several_groups_and_terms_are_told_apart() -> None:
    of_two = interval_scalars(replace(RECORD, group="roi"), [RPN, ROI])
    assert of_two["msbal/roi/weight/P4"] == 0.5
    of_a_term = interval_scalars(replace(RECORD, group="cls"), [RPN])
    of_both = interval_scalars(replace(RECORD, group="rpn:cls"), [RPN, ROI])
    assert "msbal/cls/weight/P3" in of_a_term and "msbal/rpn/cls/weight/P3" in of_both


def test_no_name_has_loss_in_it() -> None:
    record = replace(RECORD, probabilities={"max_loss": 1.0}, loss_by_term={"loss_mask": (1.0, 1.0)})
    names = list(interval_scalars(record, [RPN]))
    assert not any("loss" in name for name in names)
    assert len(names) == 8
