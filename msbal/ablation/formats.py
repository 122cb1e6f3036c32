"""A `Table` as LaTeX (booktabs) and as CSV; Markdown and the terminal's it does itself."""

from __future__ import annotations

import csv
import io
import re

from msbal.evaluation.tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "×": r"$\times$", "|": r"\textbar{}",
}  # fmt: skip


def latex(table: Table) -> str:
    """A ``table`` environment; needs ``\\usepackage{booktabs}``. The notes follow the rules."""
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        _row(table.header),
        r"\midrule",
        *(_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\\[2pt]{{\footnotesize {escaped(note)}}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(table: Table) -> str:
    """RFC 4180, but with plain newlines; a cell that a spreadsheet would take for a formula stays text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_harmless(cell) for cell in table.header])
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def escaped(text: str) -> str:
    """`text` for LaTeX; a minus before a digit becomes a true one."""
    safe = "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", safe)


def _row(cells: tuple[str, ...]) -> str:
    return " & ".join(escaped(cell) for cell in cells) + r" \\"


def _harmless(cell: str) -> str:
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", cell)
    return f"'{cell}" if cell[:1] in "=+-@" and not number and cell != "-" else cell
