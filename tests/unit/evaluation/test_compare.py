from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from detection_scenes import make_scenes
from rich.console import Console

from msbal.data import subset
from msbal.evaluation import comparison_tables as tables
from msbal.evaluation.bootstrap import ALL_METRICS, Difference
from msbal.evaluation.compare import compare
from msbal.evaluation.complexity import BalancingCost, Complexity
from msbal.evaluation.runs import Evaluated, evaluate_entries, same_data
from msbal.ui.tables import print_whole

DATA, PREDICTIONS = make_scenes(41, images=24)
BASE = evaluate_entries("base", PREDICTIONS[::2], DATA)
MORE = evaluate_entries("more", PREDICTIONS, DATA)
RECORDED = Evaluated("recorded", {k: v for k, v in BASE.metrics.items() if k != "per_class"})


def test_differences_are_to_the_first_with_an_interval_next_to_each() -> None:
    ticks: list[None] = []
    found = compare([BASE, MORE, BASE], resamples=50, progress=lambda: ticks.append(None))
    assert len(ticks) == 150
    better, same = found.differences
    assert set(better) == set(ALL_METRICS)
    assert better["AP"] is not None and better["AP"].value == pytest.approx(
        MORE.metrics["AP"] - BASE.metrics["AP"]
    )
    assert better["mAP"] is not None
    assert better["mAP"].value == pytest.approx(MORE.metrics["voc"]["mAP"] - BASE.metrics["voc"]["mAP"])
    for difference in better.values():
        assert difference is not None and difference.low is not None and difference.high is not None
        assert difference.low <= difference.high
    assert same["AP"] == Difference(0.0, 0.0, 0.0, 0.5)
    assert set(found.class_differences[0]) == set(DATA.classes)
    assert found.class_differences[0]["class 4"] is None  # no box of it anywhere
    class_0 = found.class_differences[0]["class 0"]
    assert class_0 is not None and class_0.low is not None
    assert found.notes == ()


def test_the_same_seed_gives_the_same_intervals() -> None:
    one, two = (compare([BASE, MORE], resamples=20, seed=3) for _ in range(2))
    assert one.differences == two.differences
    assert one.differences != compare([BASE, MORE], resamples=20, seed=4).differences


def test_other_images_or_no_predictions_have_differences_without_intervals() -> None:
    part = subset(DATA, range(12))
    inside = {image.id for image in part.images}
    smaller = evaluate_entries("smaller", [p for p in PREDICTIONS if p["image_id"] in inside], part)
    assert not same_data(BASE, smaller) and not same_data(BASE, RECORDED)
    found = compare([BASE, smaller, RECORDED], resamples=10)
    for differences in found.differences:
        assert all(d is None or d.low is None for d in differences.values())
    assert found.resamples == 0
    assert found.notes == (
        "smaller and base were not evaluated on the same images here: no interval",
        "no predictions of recorded: no interval",
    )


def test_same_data_means_the_same_boxes() -> None:
    copy = replace(DATA, images=tuple(replace(image) for image in DATA.images))
    assert same_data(BASE, replace(BASE, data=copy))
    with_boxes = next(i for i, image in enumerate(DATA.images) if len(image.boxes))
    moved = [*DATA.images]
    moved[with_boxes] = replace(moved[with_boxes], boxes=moved[with_boxes].boxes + np.float32(0.25))
    assert not same_data(BASE, replace(BASE, data=replace(DATA, images=tuple(moved))))
    assert not same_data(BASE, replace(BASE, data=replace(DATA, classes=("other", *DATA.classes[1:]))))


def test_no_resamples_no_intervals() -> None:
    found = compare([BASE, MORE], resamples=0)
    assert found.resamples == 0 and found.notes == ()
    assert tables.overall(found).header == ("metric", "base", "more points", "more difference")


def test_table_by_hand() -> None:
    table = tables.overall(compare([BASE, MORE], resamples=20))
    of_more = [f"more {name}" for name in ("points", "difference", "95% interval", "above 0")]
    assert table.header == ("metric", "base", *of_more)
    names = [row[0] for row in table.rows]
    assert names == ["AP", *(f"{name} †" for name in (*ALL_METRICS[1:12], "VOC mAP", "VOC mAP 11-point"))]
    assert (
        table.rules == (1,) and table.notes[1].startswith("† Not corrected") and "AP is the" in table.notes[1]
    )
    first = table.rows[0]
    assert first[1] == f"{100 * BASE.metrics['AP']:.2f}"
    assert first[3] == f"{100 * (MORE.metrics['AP'] - BASE.metrics['AP']):+.2f}"
    assert table.title == f"Metrics in points on made up: 24 images, {DATA.box_count:,} boxes"
    assert "20 resamples, seed 0" in table.notes[0]


def test_per_class_tables() -> None:
    alone = tables.per_class(compare([BASE]))
    assert alone.header[:3] == ("class", "boxes", "AP")
    assert [row[0] for row in alone.rows] == list(DATA.classes)
    assert set(alone.rows[-1][2:]) == {"-"}
    several = tables.per_class(compare([BASE, MORE], resamples=20))
    names = [f"more {name}" for name in ("points", "difference", "95% interval †", "above 0")]
    assert several.header == ("class", "boxes", "base", *names)
    assert " .. " in several.rows[0][5] and several.rows[-1][2:] == ("-",) * 5


def test_markdown_is_a_table_whatever_the_names_are() -> None:
    odd = replace(BASE, name="a|b\n<script>")
    lines = tables.overall(compare([odd, MORE], resamples=0)).markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(ALL_METRICS)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
    assert "a\\|b &lt;script>" in rows[0]
    assert rows[1] == "| --- | ---: | ---: | ---: |"


@pytest.mark.parametrize("width", [66, 80, 120])
def test_no_number_is_cut_in_a_narrow_terminal(width: int) -> None:
    named = replace(MORE, name="a run with a rather long name")
    comparison = compare([BASE, named], resamples=20)
    for table in (tables.overall(comparison), tables.per_class(comparison)):
        out = StringIO()
        print_whole(Console(file=out, width=width, force_terminal=True, color_system=None), table)
        for row in table.rows:
            for cell in row[1:]:
                assert cell in out.getvalue()
        assert max(map(len, out.getvalue().splitlines())) <= width


def test_markup_in_names_is_text() -> None:
    out = StringIO()
    comparison = compare([replace(BASE, name="[red]x")])
    print_whole(Console(file=out, width=100), tables.overall(comparison))
    assert "[red]x" in out.getvalue()


def test_csv_has_a_row_for_each_run_class_and_metric_with_numbers_alone() -> None:
    rows = list(
        csv.DictReader(tables.as_csv(compare([BASE, MORE], resamples=20), by_class=True).splitlines())
    )
    overall = {(row["run"], row["metric"]): row for row in rows if not row["class"]}
    assert len(overall) == 2 * len(ALL_METRICS) < len(rows)
    ap, base = overall["more", "AP"], overall["base", "AP"]
    assert float(ap["value"]) == pytest.approx(100 * MORE.metrics["AP"])
    assert float(ap["difference"]) == pytest.approx(float(ap["value"]) - float(base["value"]))
    assert float(ap["low"]) <= float(ap["high"]) and 0 <= float(ap["share_above_0"]) <= 1
    assert {base[name] for name in ("difference", "low", "high", "share_above_0", "interval")} == {""}
    kinds = {row["metric"]: row["interval"] for row in rows if row["run"] == "more" and not row["class"]}
    assert kinds == {name: "headline" if name == "AP" else "uncorrected" for name in ALL_METRICS}
    of_class = {row["interval"] for row in rows if row["run"] == "more" and row["class"]}
    assert of_class <= {"uncorrected", ""}
    names = ("value", "difference", "low", "high", "share_above_0")
    assert all(not row[name] or math.isfinite(float(row[name])) for row in rows for name in names)


def test_json_holds_everything_in_full_and_is_json() -> None:
    comparison = compare([BASE, MORE], resamples=20, seed=5)
    cost = Complexity((1, 3, 8, 8), 10, 9, 100, 7)
    found = tables.as_json(comparison, [("base", cost, BalancingCost(5, 5, 0)), ("more", cost, None)])
    found = json.loads(json.dumps(found, allow_nan=False))
    assert found["data"] == {"name": "made up", "images": 24, "boxes": DATA.box_count}
    assert found["runs"][0]["metrics"]["AP"] == BASE.metrics["AP"]
    assert found["runs"][0]["complexity"]["operations"] == 200
    assert found["runs"][0]["complexity"]["balancer_parameters"] == 0
    assert "balancer_parameters" not in found["runs"][1]["complexity"]
    difference = found["differences"][0]
    assert (difference["run"], difference["to"]) == ("more", "base")
    assert set(difference["metrics"]["AP"]) == {"value", "low", "high", "above_zero", "interval"}
    assert difference["headline"] == "AP" and difference["metrics"]["AP"]["interval"] == "headline"
    assert (
        difference["metrics"]["mAP"]["interval"]
        == difference["per_class"]["class 0"]["interval"]
        == "uncorrected"
    )
    assert difference["only_seed_differs"] is False and difference["keys_that_differ"] is None
    assert any("by their training seeds alone" in note for note in found["notes"])
    assert difference["per_class"]["class 4"] is None
    assert found["bootstrap"] == {"resamples": 20, "seed": 5, "confidence": 0.95}


def run_of(found: Evaluated, name: str, **spec: object) -> Evaluated:
    whole = {"seed": 0, "balance": {"strategy": "rlo", "seed": None}, "output": name, "device": "cpu", **spec}
    return replace(found, name=name, spec=whole)


EQUAL = {"strategy": "equal", "seed": None}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            run_of(MORE, "b", seed=1, balance={"strategy": "rlo", "seed": 7}),
            "b and a differ in nothing but the seed: their difference is seed noise, not the effect of a setting.",
        ),
        (
            run_of(MORE, "b"),
            "b and a have the same spec, seed included: they differ by chance in the computation.",
        ),
        (run_of(BASE, "b"), "b and a have the same metrics to the last digit."),
        (
            run_of(BASE, "b", balance=EQUAL),
            "b and a have the same metrics to the last digit, although their specs differ in balance.strategy.",
        ),
        (run_of(MORE, "b", seed=1, balance=EQUAL), None),
        (replace(MORE, name="b"), None),
    ],
)
def test_what_two_runs_have_in_common_is_said(other: Evaluated, said: str | None) -> None:
    for resamples in (0, 5):
        found = compare([run_of(BASE, "a"), other], resamples)
        for notes in (tables.overall(found).notes, tables.as_json(found)["notes"]):
            assert [note for note in notes if note.startswith("b and a")] == ([said] if said else [])
            assert sum("training seeds alone" in note for note in notes) == 1
    assert found.relations[0].only_seed == bool(said and "but the seed" in said)


def test_few_images_give_no_interval_and_say_why() -> None:
    few = subset(DATA, range(3))
    inside = {image.id for image in few.images}
    one, two = (
        evaluate_entries(name, [p for p in found if p["image_id"] in inside], few)
        for name, found in (("one", PREDICTIONS[::2]), ("two", PREDICTIONS))
    )
    table = tables.overall(compare([one, two], resamples=20))
    assert not any("†" in row[0] for row in table.rows) and "above 0" not in table.header
    assert not any("bootstrap" in note or "conclude from" in note for note in table.notes)
    assert (
        "There is no interval where fewer than 5 images have boxes of the metric's size or class."
        in table.notes
    )


def test_several_runs_are_said_to_be_compared_each_for_itself() -> None:
    found = compare([BASE, MORE, MORE], resamples=5)
    assert any(
        note.startswith("2 runs are compared to base, each for itself")
        for note in tables.overall(found).notes
    )
    assert not any("each for itself" in note for note in tables.overall(found.only(1)).notes)
    assert tables.overall(compare([BASE])).notes == ()


def test_cost_table_says_what_is_counted() -> None:
    cost = Complexity((1, 3, 800, 1333), 37_970_000, 37_740_000, 249_520_000_000, 820_000_000)
    table = tables.complexity([("rlo", cost, BalancingCost(7, 7, 0))])
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["input"] == "1 x 3 x 800 x 1333"
    assert cells["multiply-adds, G"] == "249.52" and cells["operations, G"] == "499.04"
    assert cells["as MMDetection counts, G"] == "250.34"
    assert cells["balancing adds, G"] == "+0.00" and cells["balancing adds, parameters"] == "+0"
    turned = table.transposed()
    assert turned.header == ("run", "rlo") and turned.rows[0] == ("input", "1 x 3 x 800 x 1333")
