"""A `Table` as LaTeX (booktabs), HTML and CSV; Markdown and the terminal's it does itself."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterable

from msbal.ablation.reporting.spanned import SpannedTable
from msbal.evaluation.tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$", "|": r"\textbar{}", "✓": r"$\checkmark$",
    '"': r"\textquotedbl{}", "≥": r"$\geq$", "·": r"$\cdot$",
}  # fmt: skip
_SIZED = re.compile(r"\b(A[PR])\\_([SML])\b")
WIDE = 7  # columns
_SHRUNK = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
_TRAILING_PLAIN = ("verdict",)


def latex(table: Table) -> str:
    """A ``table`` (a wide one: ``table*``); needs the packages booktabs, T1 fontenc,
    graphicx for wide ones, and amssymb for ticks.

    Columns that share a heading get a second line of headings; the notes follow the rules.
    """
    spanned = _spanned(table)
    columns = "".join("l" if _is_text(spanned, i) else "r" for i in range(len(table.header)))
    wide = len(table.header) > WIDE
    # A wide table stands over both columns of a paper, and shrinks to their width.
    environment = "table*" if wide else "table"
    begin, end = (rf"\resizebox{{{_SHRUNK}}}{{!}}{{%", "}") if wide else ("", "")
    lines = [
        rf"\begin{{{environment}}}[t]",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        begin,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_latex_heads(spanned),
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number in spanned.rules:
            lines.append(r"\midrule")
        lines.append(_row(row))
    lines += [
        r"\bottomrule",
        rf"\end{{tabular}}{end}",
        *(rf"\\[2pt]{{\footnotesize {escaped(note)}}}" for note in table.notes),
        rf"\end{{{environment}}}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def html_table(table: Table, name: str = "") -> str:
    """A ``table`` element with its caption; the notes follow it as paragraphs."""
    spanned = _spanned(table)
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(_html_cell(spanned, place, cell) for place, cell in enumerate(row))
        rows.append(f'<tr class="rule">{cells}</tr>' if number in spanned.rules else f"<tr>{cells}</tr>")
    identity = f' id="table-{html.escape(name)}"' if name else ""
    notes = "".join(f'<p class="soft">{html.escape(note)}</p>' for note in table.notes)
    # A box that scrolls has to be reached by the keyboard too.
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{html.escape(table.title)}">'
        f"<table{identity}><caption>{_html_text(table.title)}</caption>"
        f"<thead>{_html_heads(spanned)}</thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def csv_text(table: Table) -> str:
    """RFC 4180, but with plain newlines; a cell that a spreadsheet would take for a formula stays text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(cell) for cell in table.header])
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def escaped(text: str) -> str:
    """`text` for LaTeX; a minus before a digit becomes a true one, and ``AP_S`` has a subscript."""
    safe = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    safe = _SIZED.sub(r"\1$_{\2}$", safe)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", safe)


def _spanned(table: Table) -> SpannedTable:
    if isinstance(table, SpannedTable):
        return table
    return SpannedTable(table.title, table.header, table.rows, table.notes)


def _is_text(table: SpannedTable, column: int) -> bool:
    return column < table.texts or table.header[column] in _TRAILING_PLAIN


def _latex_heads(table: SpannedTable) -> list[str]:
    if not table.spans:
        return [_row(table.header)]
    cells, rules, at = [], [], 0
    for name, first, width in table.spans:
        cells += [""] * (first - at) + [rf"\multicolumn{{{width}}}{{c}}{{{escaped(name)}}}"]
        rules.append(rf"\cmidrule(lr){{{first + 1}-{first + width}}}")
        at = first + width
    cells += [""] * (len(table.header) - at)
    return [" & ".join(cells) + r" \\", " ".join(rules), _row(table.below)]


def _html_heads(table: SpannedTable) -> str:
    if not table.spans:
        return _html_row(table, range(len(table.header)), table.header)
    shared = {first: (name, width) for name, first, width in table.spans}
    under = [place for place in range(len(table.header)) if table.above[place]]
    top = []
    for place, name in enumerate(table.header):
        if place in shared:
            above, width = shared[place]
            top.append(f'<th colspan="{width}" scope="colgroup" class="span">{_html_text(above)}</th>')
        elif place not in under:
            top.append(f'<th rowspan="2" scope="col"{_side(table, place)}>{_html_text(name)}</th>')
    return f"<tr>{''.join(top)}</tr>" + _html_row(table, under, table.below)


def _html_row(table: SpannedTable, places: Iterable[int], names: tuple[str, ...]) -> str:
    cells = (f'<th scope="col"{_side(table, place)}>{_html_text(names[place])}</th>' for place in places)
    return f"<tr>{''.join(cells)}</tr>"


def _html_cell(table: SpannedTable, place: int, cell: str) -> str:
    side = _side(table, place)
    if place == 0:
        return f'<th scope="row"{side}>{html.escape(cell)}</th>'
    if table.header[place] == "verdict" and cell not in ("-", "baseline"):
        return f'<td{side}><span class="verdict" data-verdict="{html.escape(cell)}">{html.escape(cell)}</span></td>'
    return f"<td{side}>{html.escape(cell)}</td>"


def _side(table: SpannedTable, place: int) -> str:
    return ' class="text"' if _is_text(table, place) else ""


def _html_text(text: str) -> str:
    return re.sub(r"\b(A[PR])_([SML])\b", r"\1<sub>\2</sub>", html.escape(text))


def _row(cells: tuple[str, ...]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"


def _harmless(cell: str) -> str:
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", cell)
    return f"'{cell}" if cell[:1] in "=+-@" and not number and cell != "-" else cell
