from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from msbal.errors import SpecError
from msbal.table import Column, Table, columns
from msbal.ui.printing import error_line
from msbal.ui.tables import print_whole
from msbal.ui.text import (
    condensed,
    duration,
    encodable,
    number,
    one_line,
    signed,
    size_of,
    sparkline,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.12345, "0.1235"), (1.23456, "1.235"), (12.3456, "12.35"), (1234.5, "1234"),
        (99999.0, "99999"), (123456.0, "1.2e+05"), (1.234e-6, "1.2e-06"), (math.nan, "nan"), (None, "-"),
        (0.00012, "0.0001"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats(min_value=0, max_value=1e30))
def test_number_is_short_and_near(value: float) -> None:
    text = number(value)
    assert len(text) <= 7
    assert float(text) == pytest.approx(value, rel=0.05, abs=5e-5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "+0.12"), (-0.3, "-0.30"), (-40.21, "-40.2"), (-4123.0, "-4e+03"), (0.0, "+0.00"), (-998.6, "-999"),
     (9.999, "+10.0"), (99.97, "+100")],
)  # fmt: skip
def test_signed(value: float, text: str) -> None:
    assert signed(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_signed_fits_its_column(value: float) -> None:
    assert len(signed(value)) <= 7


def test_durations_and_sizes() -> None:
    assert duration(252) == "0:04:12"
    assert duration(59.6) == "0:01:00"
    assert duration(93784) == "1d 02:03:04"
    assert duration(None) == duration(math.nan) == "-"
    assert size_of(512) == "512 B"
    assert size_of(6.2 * 2**30) == "6.2 GiB"
    assert size_of(3 * 2**40) == "3.0 TiB"


def test_sparkline_scales_between_the_shown_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([100, 7, 0], 2) == "█▁", "only the last values count"
    assert sparkline([2, 2, 2], 5) == "▄▄▄"
    assert sparkline([0, math.nan, 1], 3) == "▁ █"
    assert sparkline([math.nan], 3) == " "
    assert sparkline([], 3) == sparkline([1.0], 0) == ""
    assert sparkline([-1.7e308, 1.7e308], 2) == "▁█", "a span beyond the largest float"


@given(st.lists(st.floats(), max_size=50), st.integers(0, 20))
def test_sparkline_never_fails_and_never_overflows(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_condensed_means() -> None:
    assert condensed([1, 3, 5, 7], 2) == [2, 6]
    assert condensed([1, 2], 5) == [1, 2]
    assert condensed([math.nan, 4, math.nan, math.nan], 2)[0] == 4
    assert math.isnan(condensed([1, 1, math.nan, math.nan], 2)[1])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(1, 60))
def test_condensed_keeps_the_width_and_the_range(values: list[float], width: int) -> None:
    short = condensed(values, width)
    assert len(short) == min(len(values), width)
    assert min(values) - 1e-6 <= min(short) <= max(short) <= max(values) + 1e-6


def test_one_line_leaves_no_control_characters() -> None:
    assert one_line("a\n\tb\x1b[31mred\x1b]0;title\x07 c\r") == "a b[31mred]0;title c"


def test_our_marks_have_look_alikes_in_ascii() -> None:
    assert encodable("■ P3 ▲▼ ━━╾─ ▁█ ● grüße …", "ascii") == "* P3 ^v ==-- _# o gr??e ~"
    assert encodable("■ grüße 猫", "latin-1") == "* grüße ?"


def test_error_line_is_one_line() -> None:
    file = io.StringIO()
    error_line(
        SpecError("balance.interval", "-3\n(int)", "at least 2", "[bold]set it[/bold] " + "x" * 300), file
    )
    text = file.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    assert text.startswith("error: balance.interval: -3 (int); expected at least 2; [bold]set it[/bold] xxx")
    assert "\x1b" not in text


def test_error_line_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    error_line(ValueError(""))
    assert capsys.readouterr() == ("", "error: ValueError\n")


@pytest.mark.parametrize(("width", "parts"), [(40, 5), (80, 2), (200, 1)])
def test_a_table_is_printed_in_parts_that_fit_the_terminal(width: int, parts: int) -> None:
    header = (
        *columns("arm", *(f"metric {i}" for i in range(12))),
        Column("long", "many"),
        Column("headed", "many"),
    )
    rows = tuple(
        (arm, *(f"{arm[0]}{i:07}" for i in range(12)), "1.20 .. 3.40", "2") for arm in ("equal", "rlo")
    )
    table = Table("all", header, rows, ("a note",))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_whole(console, table)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, printed.splitlines())) <= width
    assert all(printed.count(f"{arm[0]}{i:07}") == 1 for arm in ("equal", "rlo") for i in range(12))
    assert printed.count("equal") == printed.count("arm") == parts
    assert printed.split()[0] == "all" and printed.count("a note") == 1
    # Neither an interval nor the columns under one heading are torn apart, and no part is a small rest.
    assert printed.count("1.20 .. 3.40") == 2
    rows = [line for line in printed.splitlines() if line.startswith(" equal")]
    assert [line for line in rows if ".." in line] == [line for line in rows if line.split()[-1] == "2"]
    assert min(map(len, rows)) > max(map(len, rows)) / 2
