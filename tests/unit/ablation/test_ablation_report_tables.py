"""Tables in the shape of a paper's, their formats, and what models cost."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_grid import finished, report_of
from needed import need_programs

from msbal.ablation.cells import findings_of
from msbal.ablation.collect import collect
from msbal.ablation.report import make_report
from msbal.ablation.reporting import costs as costs_module
from msbal.ablation.reporting.costs import arm_costs
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.errors import SpecError
from msbal.evaluation.complexity import Complexity
from msbal.table import Table, columns

ACTIONS = {
    "equal": {"balance.strategy": "equal"},
    "avw": {"balance.strategy": "avw"},
    "both": {"balance.strategy": "rlo", "balance.actions": ["min_loss", "max_loss"]},
    "rlo": {"balance.strategy": "rlo"},
}
FIRST: dict[str, Any] = {
    "title": "Effect of each action",
    "ticks": True,
    "columns": ["AP", "GFLOPs"],
    "rows": [
        {"arm": "equal", "published": [36.1, 250.34]},
        {"arm": "avw", "published": [36.6, 250.34]},
        {"arm": "both", "published": [36.0, None]},
        {"arm": "rlo", "published": [36.9, None]},
    ],
}
SECOND: dict[str, Any] = {
    "title": "Detectors",
    "labels": ["Method", "Backbone"],
    "columns": ["AP", "AP_S"],
    "rows": [
        {"labels": ["YOLOF", "ResNet-50"], "published": [37.5, 19.0]},
        {"arm": "small,equal", "labels": ["Small", "ResNet-18"], "published": [36.1, 19.8]},
        {"arm": "small,rlo", "labels": ["Small + RLO", "ResNet-18"], "published": [36.9, 20.8]},
        {"arm": "large,equal", "labels": ["Large", "ResNet-18"], "published": [39.0, 23.2]},
        {"arm": "large,rlo", "labels": ["Large + RLO", "ResNet-18"], "published": [39.9, 23.4]},
    ],
}
DETECTORS: dict[str, Any] = {
    "arms": {"small": {"model.fpn_channels": 8}, "large": {"model.fpn_channels": 16}},
    "axes": {"balance.strategy": ["equal", "rlo"]},
    "baseline": {"balance.strategy": "equal"},
    "gains": {"large,rlo": 0.01},
    "table": SECOND,
}
COST = Complexity((1, 3, 800, 1344), 38_000_000, 37_000_000, 250_000_000_000, 1_310_000_000)


def table_of(report: Any, name: str = "table") -> Table:
    table: Table = report.tables[name]
    return table


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Any:
    ablation, grid = finished(tmp_path_factory.mktemp("first"), arms=ACTIONS, table=FIRST, intervals=3)
    return report_of(ablation, grid, costs=dict.fromkeys(ACTIONS, COST))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Any:
    ablation, grid = finished(tmp_path_factory.mktemp("second"), intervals=3, **DETECTORS)
    return report_of(ablation, grid)


def test_ticks_are_the_actions_that_an_arm_has(first: Any) -> None:
    table = table_of(first)
    assert table.header[:4] == ("action avw", "action min_loss", "action max_loss", "action equal")
    assert [column.text for column in table.columns[:5]] == [True] * 4 + [False]
    assert [tuple(bool(cell) for cell in row[:4]) for row in table.rows] == [
        (False, False, False, True),
        (True, False, False, False),
        (False, True, True, False),
        (True, True, True, True),
    ]


def test_gflops_stand_beside_the_published_ones(first: Any) -> None:
    table = table_of(first)
    at = table.header.index("GFLOPs published")
    assert [row[at : at + 2] for row in table.rows] == [("250.34", "251.31")] * 2 + [("-", "251.31")] * 2
    assert any("it has 1344 x 800" in note for note in table.notes)
    assert first.data["arms"]["rlo"]["complexity"]["flops_as_mmdetection"] == 251_310_000_000


def test_the_comparison_has_means_over_pairs_contrasts_and_both_intervals(tmp_path: Path) -> None:
    ablation, grid = finished(tmp_path, intervals=3, compare=[["rlo", "avw"]])
    outcomes = collect(grid.arms, [f for f in findings_of(grid) if (f.cell.arm, f.cell.seed) != ("avw", 1)])
    report = make_report(
        ablation, grid, outcomes, planned=("It was changed.",), crashed={"avw": (1,)},
        images={each: SeedsAndImages(-0.1, 0.1, 0.25, (-0.1, 0.1), 0.001, 99) for each in grid.comparisons},
    )  # fmt: skip
    table = table_of(report, "comparison")
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["arm"] for row in rows] == ["equal", "avw", "rlo", "lr-0", "rlo vs avw"]
    assert [row["pairs"] for row in rows] == ["5", "4", "5", "5", "4"] and table.rules == (4,)
    values = report.data["arms"]["rlo"]["summary"]["values"]
    assert rows[2]["AP"] == f"{20 * sum(values.values()):.2f}"
    assert (
        rows[4]["AP"] == f"{25 * sum(v for seed, v in values.items() if seed != 1):.2f}"
    )  # avw lacks seed 1
    assert "The means of an arm are over its pairs, that of equal is over all runs." in table.notes
    assert report.plan[0].startswith("Asked: AP") and report.plan[1:] == ("It was changed.",)
    assert report.data["plan"] == list(report.plan)
    found = report.data["arms"]["avw"]["conclusion"]
    assert found["crashed"] == {"avw": [1]} and found["words"].endswith("Left out: seed 1, where avw failed.")
    (contrast,) = report.data["contrasts"]
    assert (contrast["arm"], contrast["to"]) == ("rlo", "avw")
    (_, _, _, _, last), heading = list(csv.DictReader(table.csv().splitlines())), table.latex()
    numbers = [float(last[key]) / 100 for key in ("low", "high", "low_uncorrected", "high_uncorrected")]
    assert numbers == pytest.approx(
        [*contrast["tested"]["interval"], *contrast["paired"]["interval"]], abs=1e-9
    )
    assert "seeds and images" in heading and rows[2]["share of seeds"].endswith(" %")
    assert json.loads(json.dumps(report.data))["contrasts"][0]["verdict"] == contrast["verdict"]


def test_a_smoke_run_has_differences_and_concludes_nothing_from_them(tmp_path: Path) -> None:
    ablation, grid = finished(tmp_path, seeds=2, intervals=3)
    report, real = (report_of(ablation, grid, smoke=smoke) for smoke in (True, False))
    assert report.title == "Ablation out (smoke run)" and report.sentences == ()
    assert all(table.title.endswith("(smoke run)") for table in report.tables.values())
    table = table_of(report, "comparison")
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows[1:]]
    assert {(row["95 % interval"], row["p"], row["verdict"]) for row in rows} == {
        ("-", "-", "nothing to conclude")
    }
    assert all(re.fullmatch(r"[+-]\d+\.\d\d", row["difference"]) for row in rows)

    def bars(page: str) -> int:
        section = page.split('aria-labelledby="h-differences"')[1].split('aria-labelledby="h-metrics"')[0]
        return section.count('class="interval') + section.count('class="corrected')

    assert bars(report.page) == 0 < bars(real.page)


def test_each_detector_is_compared_to_itself(second: Any) -> None:
    table = table_of(second)
    assert table.header == (
        "Method", "Backbone", "AP published", "AP measured", "AP_S published", "AP_S measured",
        "difference in AP published", "difference in AP measured", "difference in AP 95 % interval", "verdict",
    )  # fmt: skip
    assert table.rows[0] == ("YOLOF", "ResNet-50", "37.5", "-", "19.0", "-", *["-"] * 4)
    assert [row[6] for row in table.rows] == ["-", "-", "+0.8", "-", "+0.9"]
    values = {arm: found["summary"]["values"] for arm, found in second.data["arms"].items()}
    mean = sum(values["large,rlo"][s] - values["large,equal"][s] for s in range(5)) / 5
    assert table.rows[4][7] == f"{100 * mean:+.2f}" and table.rows[4][9] == "better by at least 0.5"
    assert table.rules == (1, 3)  # the cited rows, then a block a detector
    assert second.data["baselines"]["large,rlo"] == "large,equal"
    comparison = table_of(second, "comparison")
    assert [row[0] for row in comparison.rows] == ["small,equal", "small,rlo", "large,equal", "large,rlo"]
    assert comparison.rules == (2,)
    assert [row[0] for row in table_of(second, "over").rows] == ["rlo"]
    assert second.headline == (
        "AP: over all 2 detectors, rlo is better than the baselines, though perhaps by less than 0.5 points; small,rlo "
        "does not differ from its baseline by 0.5 points or more; large,rlo is better than its baseline by at least "
        "0.5 points."
    )
    sizes = table_of(second, "sizes")
    assert sizes.rows[2][3] == "-" and re.fullmatch(r"[+-]\d\.\d\d", sizes.rows[3][3])


def test_a_column_that_the_paper_does_not_have_is_measured_only(tmp_path: Path) -> None:
    rows = [{"arm": "equal"}, {"arm": "rlo", "published": [None, 80.1]}]
    table = {"title": "VOC", "columns": ["mAP", "mAP_11"], "rows": rows}
    ablation, grid = finished(tmp_path, table=table, metric="mAP_11", seeds=2, intervals=3)
    made = table_of(report_of(ablation, grid))
    # The baseline has no published metric either: no published difference.
    assert made.header == (
        "VOC mAP", "VOC mAP 11-point published", "VOC mAP 11-point measured",
        "difference in VOC mAP 11-point measured", "difference in VOC mAP 11-point 95 % interval", "verdict",
    )  # fmt: skip
    assert made.rows[1][1] == "80.1" and made.rows[0][1] == "-"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": ["APx"]}, "`APx` is unknown; did you mean `AP`"),
        ({"rows": [{"arm": "none"}]}, "table.rows, row 1: `none` is no arm"),
        ({"rows": [{"arm": "equal"}, {"arm": "equal"}]}, "two rows are of arm `equal`"),
        ({"rows": [{"arm": "equal", "labels": ["x"]}]}, "row 1 should have 0 labels. Found ['x']"),
        ({"rows": [{"arm": "equal", "published": [1.0]}]}, "row 1 should have 2 published metrics"),
        ({"rows": []}, "table.rows"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    grid: Callable[..., Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        grid(arms=ACTIONS, table={**FIRST, **changes})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_published_metrics_are_given_once_and_known(ablation: Callable[..., Any]) -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        ablation(arms=ACTIONS, table=FIRST, published={"equal": {"AP": 1.0}})
    with pytest.raises(SpecError, match=r"`GFLOPS` is not a metric; did you mean `GFLOPs`"):
        ablation(arms=ACTIONS, published={"equal": {"GFLOPS": 1.0}})


def test_latex_has_two_lines_of_headings_and_rules_between_blocks(second: Any) -> None:
    text = table_of(second).latex()
    assert (
        r"\multicolumn{2}{c}{AP} & \multicolumn{2}{c}{AP$_{S}$} & \multicolumn{3}{c}{difference in AP} & "
        in text
    )
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-6} \cmidrule(lr){7-9}" in text
    assert r"Method & Backbone & published & measured & published" in text
    assert text.count(r"\midrule") == 3  # under the headings, and two blocks
    assert r"\begin{tabular}{llrrrrrrrl}" in text
    assert text.count("table*") == 2


def columns_of(line: str) -> int:
    spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return line.count(" & ") + 1 + sum(spans) - len(spans)


def test_every_line_of_latex_has_all_columns(first: Any, second: Any) -> None:
    for report in (first, second):
        for table in report.tables.values():
            body = table.latex().split(r"\toprule")[1].split(r"\bottomrule")[0]
            lines = [line for line in body.splitlines() if line.endswith(r"\\")]
            assert {columns_of(line) for line in lines} == {len(table.header)}


@pytest.mark.release
def test_latex_compiles(first: Any, second: Any, tmp_path: Path) -> None:
    need_programs("pdflatex")
    awkward = Table('50 % & "more" \\ {x} ~^', columns("a_b", "#1"), (("<x|y>", "-1.2 ± 0.3"), ("✓", "$2")))
    tables = [*first.tables.values(), *second.tables.values(), awkward]
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{amssymb}\usepackage{graphicx}"
    body = "\n".join(table.latex() for table in tables)
    text = rf"\documentclass[twocolumn]{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


class Cells(html.parser.HTMLParser):
    """A table's columns, line by line, spans taken into account."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []
        self.below = 0
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.lines.append(self.below)
            self.below = 0
        if tag in ("th", "td"):
            self.lines[-1] += int(dict(attrs).get("colspan") or 1)
            self.below += int(dict(attrs).get("rowspan") or 1) - 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_every_table_with_all_columns_in_every_line(first: Any, second: Any) -> None:
    for report in (first, second):
        found = re.findall(r'<table id="table-(\w+)">.*?</table>', report.page, re.DOTALL)
        assert sorted(found) == sorted(report.tables)
        for name, table in report.tables.items():
            markup = re.search(rf'<table id="table-{name}">.*?</table>', report.page, re.DOTALL)
            assert markup
            cells = Cells()
            cells.feed(markup[0])
            assert set(cells.lines) == {len(table.header)} and not cells.open


def test_csv_has_numbers_alone_and_markdown_whole_headings(second: Any) -> None:
    table = second.tables["table"]
    rows = list(csv.reader(table.csv().splitlines()))
    assert rows[0][:5] == ["Method", "Backbone", "AP_published", "AP", "AP_sd"]
    assert rows[3][rows[0].index("difference_published")] == "0.8"
    numbers = rows[0][2:-1]
    assert all(not cell or float(cell) < 100 for row in rows[1:] for cell in row[2 : 2 + len(numbers)])
    assert "| Method | Backbone | AP published | AP measured |" in table.markdown()
    assert second.markdown().startswith(f"# Ablation out\n\n{second.plan[0]}\n\n**{second.headline}**\n")


def test_a_model_is_counted_once_and_remembered(
    grid: Callable[..., Any], ablation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"arms": {**ACTIONS, "wide": {"model.fpn_channels": 16}}, "seeds": 1}
    layout = ablation(**keys, table={**FIRST, "rows": [{"arm": arm} for arm in keys["arms"]]}).table
    made = grid(**keys)
    measured = []
    real = costs_module._measure
    monkeypatch.setattr(costs_module, "_measure", lambda spec: measured.append(spec) or real(spec))
    found, notes = arm_costs(layout, made)
    assert len(measured) == 2 and notes == ()
    assert found["equal"] == found["rlo"] != found["wide"]
    assert found["equal"].multiply_adds > 0 and found["equal"].input[2:] == (64, 64)
    again, _ = arm_costs(layout, made)
    assert again == found and len(measured) == 2
    file = made.output / costs_module.FILE
    file.write_text(json.dumps({"damaged": 1}))
    assert arm_costs(layout, made)[0] == found and len(measured) == 4


def test_nothing_is_counted_for_nothing_and_failures_are_notes(
    grid: Callable[..., Any], ablation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grid(arms=ACTIONS, seeds=1)

    def fails(spec: Any) -> Complexity:
        raise SpecError("model", "cannot be built")

    monkeypatch.setattr(costs_module, "_measure", fails)
    assert arm_costs(None, made) == ({}, ())
    assert arm_costs(ablation(arms=ACTIONS, table={**FIRST, "columns": ["AP", "AP_S"]}).table, made) == (
        {},
        (),
    )
    found, notes = arm_costs(ablation(arms=ACTIONS, table=FIRST).table, made)
    assert found == {} and notes == ("equal: no GFLOPs: model: cannot be built",)


@pytest.mark.parametrize("width", [40, 66, 100, 125])
def test_a_terminal_that_is_too_narrow_cuts_nothing(first: Any, width: int) -> None:
    from rich.console import Console

    from msbal.ui.tables import print_whole

    for table in first.tables.values():
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        print_whole(console, table)
        printed = console.file.getvalue().split()
        entries = [
            column for column in zip(table.header, *table.rows, strict=True) if {*column[1:]} - {"", "-"}
        ]
        for part in (*table.notes, *(cell for column in entries for cell in column)):
            assert set(part.split()) <= set(printed), part
        assert console.width == width


def test_every_part_of_a_table_that_is_too_wide_says_which_row_it_is(first: Any) -> None:
    from rich.console import Console

    from msbal.ui.tables import print_whole

    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_whole(console, table_of(first))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    # The row of `rlo` has all four ticks, those of `equal` and `avw` one, that of `both` two; so has each part.
    assert printed.count("✓") % 8 == 0 and printed.count("✓") > 8
    (verdict,) = [line for line in printed.splitlines() if line.split()[-1:] == ["better"]]
    assert verdict.count("✓") == 4
