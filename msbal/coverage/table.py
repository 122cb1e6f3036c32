"""The coverage as tables: by head, by reason, by status; for a terminal and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msbal.coverage.outcome import FAILED, MEANING, NO_MODEL, REFUSED, SUPPORTED, UNUSABLE, Outcome, one_line

STYLES = {SUPPORTED: "green", REFUSED: "cyan", FAILED: "bold red", UNUSABLE: "yellow", NO_MODEL: "dim"}


Heads = Counter[tuple[str, str, str, str]]
Others = Counter[tuple[str, str, str]]


def coverage_table(outcomes: Sequence[Outcome]) -> RenderableType:
    """Counts by status; for the supported the heads with their levels and terms, for the rest the reasons."""
    parts: list[RenderableType] = []
    supported, others = _supported(outcomes), _others(outcomes)
    if supported:
        table = _table("configs", "head", "group", "levels", "terms")
        for head, count in supported:
            table.add_row(str(count), *head)
        parts.append(table)
    if others:
        table = _table("configs", "result", "model", "reason")
        for (status, model, reason), count in others:
            table.add_row(str(count), Text(status, STYLES[status]), Text(model), Text(reason))
        parts.append(table)
    total = _table("configs", "result", "meaning")
    for status, count in _counts(outcomes):
        total.add_row(str(count), Text(status, STYLES[status]), MEANING[status])
    total.add_row(str(len(outcomes)), "all", "")
    parts.append(total)
    return Group(*parts)


def coverage_markdown(title: str, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> str:
    """The same as a page of Markdown.

    Args:
        versions: of the packages that were covered.
    """
    installed = ", ".join(f"{package} {version}" for package, version in versions.items())
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[object]]]] = [
        ("", ("configs", "result", "meaning"), [(c, s, MEANING[s]) for s, c in _counts(outcomes)]),
        (
            "## Supported: the proof holds",
            ("configs", "head", "group", "levels", "terms"),
            [(count, *head) for head, count in _supported(outcomes)],
        ),
        (
            "## The others",
            ("configs", "result", "model", "reason"),
            [(count, *other) for other, count in _others(outcomes)],
        ),
    ]
    parts = [f"# {title}", "", installed]
    for heading, columns, rows in tables:
        if rows:
            parts += ["", *([heading, ""] if heading else []), _line(columns)]
            parts += ["|" + " --- |" * len(columns), *map(_line, rows)]
    return "\n".join(parts) + "\n"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _counts(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    counts = Counter(outcome.status for outcome in outcomes)
    return [(status, counts[status]) for status in MEANING if counts[status]]


def _supported(outcomes: Sequence[Outcome]) -> list[tuple[tuple[str, str, str, str], int]]:
    found: Heads = Counter(
        (head["head"], group, ", ".join(head["levels"]), ", ".join(head["terms"]))
        for outcome in outcomes
        if outcome.status == SUPPORTED
        for group, head in outcome.heads.items()
    )
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _others(outcomes: Sequence[Outcome]) -> list[tuple[tuple[str, str, str], int]]:
    found: Others = Counter(
        (outcome.status, outcome.detector or outcome.config, one_line(outcome.reason))
        for outcome in outcomes
        if outcome.status != SUPPORTED
    )
    order = list(MEANING)
    return sorted(found.items(), key=lambda item: (order.index(item[0][0]), -item[1], item[0]))


def _table(*columns: str) -> Table:
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if i else "right")
    return table
