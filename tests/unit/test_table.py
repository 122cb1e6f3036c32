"""One table in all its forms, whatever its cells hold."""

from __future__ import annotations

import csv
import io

from rich.console import Console

from msbal.table import Cell, Column, Table, columns, latex_text
from msbal.ui.tables import print_whole

AWKWARD = Table(
    "50 % & more",
    columns("arm", "a_b"),
    (("x|y", "-1.20 .. +0.30"), ("=1+1", "3.1 ± 0.2"), ("<b>", "")),
    ("a#b\nc",),
)
SPANNED = Table(
    "spans",
    (Column("arm", text=True), Column("one", "AP_S"), Column("two", "AP_S"), Column("verdict", text=True)),
    (("a", "1", "2", Cell("better", "better")), ("b", "3", "4", Cell("worse", "worse"))),
    rules=(1,),
)


def test_latex_of_awkward_cells() -> None:
    text = AWKWARD.latex()
    assert r"\toprule" in text and r"\bottomrule" in text
    assert r"50 \% \& more" in text and r"a\_b" in text and r"a\#b c" in text
    assert r"$-$1.20 .. +0.30" in text and r"3.1 $\pm$ 0.2" in text
    assert latex_text("{\\}") == r"\{\textbackslash{}\}"


def test_csv_of_awkward_cells() -> None:
    rows = list(csv.reader(AWKWARD.csv().splitlines()))
    assert rows[1] == ["x|y", "'-1.20 .. +0.30"]
    assert rows[2][0] == "'=1+1"
    assert rows[3] == ["<b>", ""]  # an empty cell stays empty
    table = Table("", columns("a", "b"), (("x", "-1.2"), ("y", "-"), ("z", Cell("0.0", values=(-1e-7,)))))
    assert table.csv() == "a,b\nx,-1.2\ny,\nz,-1e-07\n"


def test_csv_has_each_number_of_a_cell_in_a_column_of_its_own() -> None:
    header = (
        *columns("arm"),
        Column("AP", csv=("AP", "AP_sd")),
        Column("95 % interval", "all", csv=("low", "high")),
    )
    interval = Cell("-1.20 .. +0.30", values=(-1.2, 0.3)).toned("better")
    rows = (
        ("a", Cell("3.1 ± 0.2", values=(3.1234567, 0.2)), interval),
        ("b", Cell("3.1", values=(3.1, None)), "-"),
    )
    assert Table("", header, rows).csv().splitlines() == [
        "arm,AP,AP_sd,low,high", "a,3.1234567,0.2,-1.2,0.3", "b,3.1,,,",
    ]  # fmt: skip
    assert Column("seeds needed", "all of it").csv_headings == ("all_of_it_seeds_needed",)


def test_markdown_of_awkward_cells() -> None:
    lines = AWKWARD.markdown().splitlines()
    assert lines[0] == "**50 % & more**" and lines[-1] == "a#b c"
    assert lines[2:5] == ["| arm | a_b |", "| --- | ---: |", "| x\\|y | -1.20 .. +0.30 |"]
    assert lines[6] == "| &lt;b> |  |"


def test_shared_headings_blocks_and_sides() -> None:
    assert SPANNED.header == ("arm", "AP_S one", "AP_S two", "verdict")
    assert "| --- | ---: | ---: | --- |" in SPANNED.markdown()
    latex = SPANNED.latex()
    assert r" & \multicolumn{2}{c}{AP$_{S}$} &  \\" in latex and r"\cmidrule(lr){2-3}" in latex
    assert r"\begin{tabular}{lrrl}" in latex and latex.count(r"\midrule") == 2
    turned = SPANNED.transposed()
    assert turned.header == ("arm", "a", "b") and turned.rows[2] == ("verdict", "better", "worse")


def test_the_terminal_shows_a_tone_as_a_colour() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=60)
    print_whole(console, SPANNED)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[32mbetter" in printed and "\x1b[31mworse" in printed
