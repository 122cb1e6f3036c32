"""A diagnosis on the terminal."""

from __future__ import annotations

from dataclasses import replace

from msbal.diagnosis.tables import tables
from msbal.records.diagnosis import Finding, GroupState, LevelDiagnosis, ModelState, Spread
from msbal.table import Table

UNKNOWN = Spread(float("nan"), float("nan"), float("nan"))
ONE_BATCH = Spread(0.25, float("nan"), float("nan"))


def group(name: str = "all") -> GroupState:
    return GroupState(
        name,
        ("P3", "P4"),
        {"cls": (Spread(1234.5, 1200, 1300), Spread(1e-7, 0, 1e-6))},
        None,
        {
            "backbone": (Spread(2, 1, 3), Spread(1, 1, 1)),
            "shared": (Spread(5000, 4000, 6000), Spread(1.25, 1, 1.5)),
        },
        (Spread(0.75, 0.7, 0.8), ONE_BATCH),
        ((Spread(1, 1, 1), Spread(-0.5, -0.6, -0.4)), (Spread(-0.5, -0.6, -0.4), UNKNOWN)),
        (0.004, 1.996),
        ap=(0.3, None),
        recall=(0.5, None),
        evaluated=(12, 0),
    )


def diagnosis(*groups: GroupState) -> LevelDiagnosis:
    states = (
        ModelState(0, tuple(replace(each, ap=(), recall=(), evaluated=()) for each in groups)),
        ModelState(750, groups, {"AP": 0.25, "AP_S": None}, checkpoint="best.pth"),
    )
    boxes = {groups[0].group: (880, 0)}
    return LevelDiagnosis("retinanet", "torchvision", 8, 2, boxes, boxes, states, images_val=64)


def column(table: Table, heading: str) -> list[str]:
    return [str(row[table.header.index(heading)]) for row in table.rows]


def test_a_row_a_level_and_a_table_a_state() -> None:
    start, last = tables(diagnosis(group()))
    assert [table.title for table in (start, last)] == [
        "Levels at the start",
        "Levels after 750 iterations (the best)",
    ]
    assert column(start, "boxes train") == ["880", "0"] and "boxes train" not in last.header
    assert column(last, "loss cls") == ["1,234", "1e-07"]
    assert column(last, "gradient norm on backbone") == ["2", "1"]
    assert column(last, "gradient norm on shared") == ["5,000 ±1,000", "1.25 ±0.25"]
    assert column(last, "share of it") == ["75 % (70-80)", "25 %"]  # of one batch there is no interval
    assert column(last, "validation AP") == ["30.0", "-"] and "validation AP" not in start.header
    assert last.notes == ("AP 25.0  AP_S -  on 64 validation images",) and not start.notes


def test_cosines_where_levels_conflict_or_where_asked_for() -> None:
    of_both = diagnosis(group("rpn"), group("roi"))
    assert sum("Cosines" in table.title for table in tables(of_both)) == 0
    assert sum("Cosines" in table.title for table in tables(of_both, cosines=True)) == 4
    found = Finding("conflict", "roi", ("P3", "P4"), "they conflict")
    shown = [table for table in tables(replace(of_both, findings=(found,))) if "Cosines" in table.title]
    assert [table.title for table in shown] == [
        "Cosines of the gradients at the start, group roi",
        "Cosines of the gradients after 750 iterations (the best), group roi",
    ]
    assert shown[0].rows == (("P3", "", "-0.50 (-0.60 to -0.40)"),)


def test_signal_and_the_cosines_without_noise() -> None:
    cosine, one = Spread(-0.9, -1, -0.8), Spread(1, 1, 1)
    known = replace(group(), signal=(0.9, 0.5), signal_cosine=((one, cosine), (cosine, one)))
    start, cosines, *_ = tables(diagnosis(known), cosines=True)
    assert column(start, "signal") == ["90 %", "50 %"]
    assert [row[1] for row in cosines.rows] == ["", "-0.90 (-1.00 to -0.80)"] and cosines.notes
    little = replace(known, signal=(0.9, -0.01))
    start, cosines, *_ = tables(diagnosis(little), cosines=True)
    assert column(start, "signal") == ["90 %", "0 %"]
    assert len(cosines.rows) == 1 and not cosines.notes


def test_who_dominates_and_who_starves_has_a_colour() -> None:
    found = (Finding("dominates", "all", ("P3",), ""), Finding("starves", "all", ("P4",), ""))
    table, _ = tables(replace(diagnosis(group()), findings=found))
    assert [getattr(row[0], "tone", "") for row in table.rows] == ["better", "worse"]


def test_a_group_without_shared_parameters_has_no_shares() -> None:
    alone = replace(group(), share=(UNKNOWN, UNKNOWN))
    table, _ = tables(diagnosis(alone))
    assert "share of it" in table.header
    assert [row[table.header.index("share of it")] for row in table.rows] == ["-", "-"]
