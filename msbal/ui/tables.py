"""Tables that commands print once: settings, data, levels, the proof. They return renderables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msbal.ui.look import BAD, GOOD, QUIET, STRONG, level_colour
from msbal.ui.text import figure, one_line

if TYPE_CHECKING:
    from msbal.backend import Diagnosis, LevelGroup
    from msbal.proof import Proof


def print_table(console: Console, table: Table) -> None:
    """Print a table: as wide as the terminal allows, and never cut where the output is no terminal."""
    if console.is_terminal:
        console.print(table)
        return
    # Console.print caps the width at the console's own, which without a terminal is a mere guess.
    wide = console.options.update(width=10_000)
    options = wide.update(width=console.measure(table, options=wide).maximum)
    for line in console.render_lines(table, options, pad=False):
        text = "".join(segment.text for segment in line).rstrip()
        console.print(Text(text), soft_wrap=True, highlight=False)


def key_values(values: Mapping[str, Any] | Any, title: str = "") -> Table:
    """A row per key. Takes a mapping or a dataclass; nested ones become ``outer.inner`` rows."""
    table = _table(title, headers=False)
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _flat(values):
        table.add_row(key, value_text(value))
    return table


def data_table(summary: Mapping[str, Any], title: str = "data") -> Table:
    """A column per split, a row per figure.

    Args:
        summary: split name -> figures, a mapping or a dataclass: ``{"train": {"images": 160,
            "boxes per level": {"P3": 12, ...}}, "val": ...}``. Inner mappings become indented rows. A
            split without a figure shows ``-``.
    """
    splits = {name: _mapping(figures) for name, figures in summary.items()}
    table = _table(title)
    table.add_column("", no_wrap=True)
    for name in splits:
        table.add_column(Text(name), justify="right", overflow="fold")
    for key in _union(splits.values()):
        cells = [figures.get(key) for figures in splits.values()]
        inner = [_mapping(cell) for cell in cells if _is_nested(cell)]
        if not inner:
            table.add_row(Text(key), *(value_text(cell) for cell in cells))
            continue
        table.add_row(Text(key, style=QUIET), *("" for _ in cells))
        for name in _union(inner):
            row = [value_text(_mapping(c).get(name)) if _is_nested(c) else Text("-") for c in cells]
            table.add_row(Text(f"  {name}"), *row)
    return table


def levels_table(groups: Sequence[LevelGroup], title: str = "levels") -> Table:
    """A row per level: group, head, level, stride, terms."""
    table = _table(title)
    for name in ("group", "head", "level"):
        table.add_column(name, no_wrap=name != "head")
    table.add_column("stride", justify="right")
    table.add_column("terms")
    for group in groups:
        for i, (level, stride) in enumerate(zip(group.levels, group.strides, strict=True)):
            table.add_row(
                Text(group.name if i == 0 else "", style=STRONG),
                Text(group.head if i == 0 else ""),
                Text(level, style=level_colour(i)),
                str(stride),
                Text(", ".join(group.terms)),
            )
        table.add_section()
    return table


def losses_table(proof: Proof, groups: Sequence[LevelGroup], title: str = "losses of one batch") -> Table:
    """A row per level with each term's loss and their sum; below, what is not balanced, and the total."""
    terms = list(dict.fromkeys(term for rows in proof.losses.values() for term in rows))
    table = _table(title)
    table.add_column("group", no_wrap=True)
    table.add_column("level", no_wrap=True)
    for term in [*terms, "sum"]:
        table.add_column(Text(term), justify="right", no_wrap=True)
    for group in groups:
        rows = proof.losses[group.name]
        for i, level in enumerate(group.levels):
            table.add_row(
                Text(group.name if i == 0 else "", style=STRONG),
                Text(level, style=level_colour(i)),
                *(figure(rows[term][i]) if term in rows else "-" for term in terms),
                Text(figure(sum(row[i] for row in rows.values())), style=STRONG),
            )
        table.add_section()
    for name, value in proof.rest.items():
        table.add_row(Text("rest", style=QUIET), Text(name), *("" for _ in terms), figure(value))
    table.add_row(Text("total", style=STRONG), "", *("" for _ in terms), figure(proof.split_total))
    return table


def proof_table(proof: Proof, title: str = "proof") -> Table:
    """The three claims, what was measured for each, its tolerance, and whether it holds."""
    from msbal.proof import GRADIENT_TOLERANCE, VALUE_TOLERANCE

    table = _table(title)
    table.add_column("claim")
    table.add_column("measured", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("at most", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    claims = [
        (
            "the levels add up to the framework's loss",
            f"{proof.split_total:.7g} of {proof.framework_total:.7g}",
            proof.value_error,
            VALUE_TOLERANCE,
        ),
        (
            "unit weights leave the gradients as they are",
            "bit for bit"
            if proof.unit_gradient == 0
            else f"{proof.parameters:,} parameter tensors with a gradient",
            proof.unit_gradient,
            GRADIENT_TOLERANCE,
        ),
        (
            "other weights give the gradient of sum(w_i L_i)",
            "; ".join(f"{g}: {', '.join(f'{w:g}' for w in row)}" for g, row in proof.weights.items()),
            proof.weighted_gradient,
            GRADIENT_TOLERANCE,
        ),
    ]
    for claim, measured, error, most in claims:
        good = error <= most and proof.parameters > 0
        verdict = Text("holds", style=GOOD) if good else Text("FAILS", style=f"bold {BAD}")
        table.add_row(claim, Text(measured), f"{error:.1e}" if error else "0", f"{most:.0e}", verdict)
    return table


def backends_table(found: Mapping[str, tuple[str, Diagnosis]], title: str = "backends") -> Table:
    """A row per backend: ready or not, versions, then each problem with its remedy and the notes.

    Args:
        found: name -> (summary, diagnosis).
    """
    table = _table(title)
    table.add_column("backend", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, (summary, diagnosis) in found.items():
        state = Text("broken", style=BAD) if diagnosis.problems else Text("ready", style=GOOD)
        versions = ", ".join(f"{package} {version}" for package, version in diagnosis.versions.items())
        about = Text(one_line(summary))
        if versions:
            about.append(f"\n{versions}", style=QUIET)
        for i, problem in enumerate(diagnosis.problems):
            about.append(f"\n{one_line(problem)}", style=BAD)
            if i < len(diagnosis.remedies):
                about.append(f"\n  {diagnosis.remedies[i]}", style=STRONG)
        for note in diagnosis.notes:
            about.append(f"\n{one_line(note)}")
        table.add_row(Text(name, style=STRONG), state, about)
        table.add_section()
    return table


def value_text(value: Any) -> Text:
    """Any plain value as a person reads it: 1,234; 0.1234; yes; ``a, b, c``; ``-`` for None."""
    if value is None:
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return Text(", ".join(value_text(item).plain for item in items) or "-")
    return Text(one_line(str(value)))


def _table(title: str, headers: bool = True) -> Table:
    return Table(
        title=Text(title, style=STRONG) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_header=headers,
        header_style=QUIET,
        pad_edge=False,
        show_edge=False,
    )


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in _mapping(values).items():
        if _is_nested(value) and _mapping(value):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", None if _is_nested(value) else value))
    return rows


def _union(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))
