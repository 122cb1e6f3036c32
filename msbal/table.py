"""One table for every place that shows one: built once, then written as Markdown, LaTeX or CSV.

`msbal.ui.tables` draws it for the terminal, and the template of the ablation's page as HTML.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

LATEX_WIDE = 7  # columns; a table with more stands over both columns of a paper
_SHRINK = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$", "|": r"\textbar{}", "✓": r"$\checkmark$",
    '"': r"\textquotedbl{}", "≥": r"$\geq$", "·": r"$\cdot$",
}  # fmt: skip


class Cell(str):
    """A cell's text, with a tone and the numbers in it.

    Attributes:
        tone: a verdict, e.g. ``better`` or ``worse``, which screens show as a colour.
        values: the numbers in the text, which a CSV file has in a column each; None where there is none.
    """

    tone: str
    values: tuple[float | None, ...]

    def __new__(cls, text: str, tone: str = "", values: tuple[float | None, ...] = ()) -> Cell:
        cell = super().__new__(cls, text)
        cell.tone, cell.values = tone, values
        return cell

    def toned(self, tone: str) -> Cell:
        """Return the same cell with a tone."""
        return Cell(self, tone, self.values)


@dataclass(frozen=True)
class Column:
    """A column's heading.

    Attributes:
        name: its own heading.
        above: the heading that it shares with its neighbours, if any.
        text: it holds text and is aligned to the left; numbers are aligned to the right.
        csv: its headings in a CSV file, one for each number in a cell; by default `heading` as one word.
    """

    name: str
    above: str = ""
    text: bool = False
    csv: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Both headings in one line."""
        return f"{self.above} {self.name}".strip()

    @property
    def csv_headings(self) -> tuple[str, ...]:
        """Its headings in a CSV file."""
        return self.csv or (re.sub(r"\W+", "_", self.heading).strip("_"),)


def columns(first: str, *others: str) -> tuple[Column, ...]:
    """Return the columns of most tables: one of text, then numbers."""
    return (Column(first, text=True), *map(Column, others))


@dataclass(frozen=True)
class Table:
    """A table before it is drawn.

    Attributes:
        title: what it shows.
        columns: the headings.
        rows: a cell for each column; a `Cell` has a tone.
        notes: sentences below it.
        rules: the rows that begin a new block, counted from 0.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    rules: tuple[int, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """The headings in one line."""
        return tuple(column.heading for column in self.columns)

    @property
    def spans(self) -> list[tuple[str, list[Column]]]:
        """The columns, those below a shared heading together."""
        grouped = itertools.groupby(self.columns, key=lambda column: column.above)
        return [(above, list(below)) for above, below in grouped]

    def transposed(self) -> Table:
        """Return the same with a row for each column."""
        first, *rows = zip(self.header, *self.rows, strict=True)
        return Table(self.title, columns(*first), tuple(rows), self.notes)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"**{_markdown(self.title)}**", "", _markdown_row(self.header)]
        lines.append("|" + "|".join(" --- " if column.text else " ---: " for column in self.columns) + "|")
        lines += [_markdown_row(row) for row in self.rows]
        lines += [part for note in self.notes for part in ("", _markdown(note))]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Return the table for programs: each number in a column of its own, and nothing where there is none."""
        headings = [column.csv_headings for column in self.columns]
        rows = [
            [field for cell, names in zip(row, headings, strict=True) for field in _fields(cell, len(names))]
            for row in self.rows
        ]
        return csv_text([[name for names in headings for name in names], *rows])

    def latex(self) -> str:
        """Return a ``table``, or a ``table*`` that shrinks to the page where it is wide.

        It needs the packages booktabs and fontenc (T1), graphicx where it is wide, and amssymb for ticks.
        """
        wide = len(self.columns) > LATEX_WIDE
        environment = "table*" if wide else "table"
        sides = "".join("l" if column.text else "r" for column in self.columns)
        body = [(r"\midrule" + "\n") * (n in self.rules) + latex_row(row) for n, row in enumerate(self.rows)]
        lines = [
            rf"\begin{{{environment}}}[t]",
            r"\centering",
            rf"\caption{{{latex_text(self.title)}}}",
            *([rf"\resizebox{{{_SHRINK}}}{{!}}{{%"] if wide else []),
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            *self._latex_headings(),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}" + "}" * wide,
            *(rf"\\[2pt]{{\footnotesize {latex_text(note)}}}" for note in self.notes),
            rf"\end{{{environment}}}",
        ]
        return "\n".join(lines) + "\n"

    def _latex_headings(self) -> list[str]:
        if not any(column.above for column in self.columns):
            return [latex_row(self.header)]
        cells, rules, first = [], [], 1
        for above, below in self.spans:
            end = first + len(below) - 1
            if above:
                cells.append(rf"\multicolumn{{{len(below)}}}{{c}}{{{latex_text(above)}}}")
                rules.append(rf"\cmidrule(lr){{{first}-{end}}}")
            else:
                cells += [""] * len(below)
            first = end + 1
        return [
            " & ".join(cells) + r" \\",
            " ".join(rules),
            latex_row(column.name for column in self.columns),
        ]

    def filled(self) -> list[int]:
        """Return the places of the first column and of those with an entry."""
        return [
            n for n in range(len(self.columns)) if not n or any(row[n] not in ("", "-") for row in self.rows)
        ]


def latex_text(text: str) -> str:
    """Return `text` for LaTeX; a minus before a digit becomes a true one, and ``AP_S`` has a subscript."""
    safe = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    safe = re.sub(r"\b(A[PR])\\_([SML])\b", r"\1$_{\2}$", safe)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", safe)


def latex_row(cells: Iterable[str]) -> str:
    """Return one line of a tabular."""
    return " & ".join(map(latex_text, cells)) + r" \\"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_markdown, cells)) + " |"


def _markdown(text: str) -> str:
    """Return `text` with pipes, backslashes, tags and line breaks escaped."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    """Return RFC 4180 with plain newlines; a cell that a spreadsheet would take for a formula stays text."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [f"'{cell}" if _is_formula(cell) else cell for cell in row] for row in rows
    )
    return out.getvalue()


def csv_number(value: float | None) -> str:
    """Return a number as a CSV file has it, and nothing for None."""
    return "" if value is None else f"{value:.10g}"


def _fields(cell: str, count: int) -> list[str]:
    """Return a cell as `count` fields of a CSV file."""
    values = [csv_number(value) for value in getattr(cell, "values", ())]
    if not values:
        values = ["" if cell == "-" else str(cell)]
    return values + [""] * (count - len(values))


def _is_formula(cell: str) -> bool:
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?", cell)
    return cell.startswith(("=", "+", "-", "@")) and not number and cell != "-"
