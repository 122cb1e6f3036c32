"""The coverage as a page: counts by result; for the supported the heads with their levels and terms, for the rest the
reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from zoo.outcome import MEANING, SUPPORTED, Outcome, one_line

Heads = Counter[tuple[str, str, str, str]]
Others = Counter[tuple[str, str, str]]


def coverage_markdown(title: str, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> str:
    """The page.

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
