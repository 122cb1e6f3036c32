"""A diagnosis as tables: for each state of the model and each group a row a level."""

from __future__ import annotations

import math
from collections.abc import Iterator

from msbal.engine.gradients import SHARED
from msbal.metric_text import points
from msbal.records.diagnosis import Finding, GroupState, LevelDiagnosis, ModelState, Spread
from msbal.table import Cell, Column, Table, columns

BEST = "best.pth"


def tables(diagnosis: LevelDiagnosis, cosines: bool = False) -> Iterator[Table]:
    """Yield the tables of all states.

    Args:
        cosines: also those that show no conflict.
    """
    opposed = {
        (finding.group, level)
        for finding in diagnosis.findings
        if finding.kind == "conflict"
        for level in finding.levels
    }
    for state in diagnosis.states:
        for group in state.groups:
            yield level_table(diagnosis, state, group)
            if cosines or any((group.group, level) in opposed for level in group.levels):
                yield cosine_table(diagnosis, state, group)


def level_table(diagnosis: LevelDiagnosis, state: ModelState, group: GroupState) -> Table:
    """Return one group's levels at one moment."""
    tones = _tones(diagnosis.findings, group)
    header = [Column("level", text=True)]
    cells: list[list[str]] = [[Cell(level, tones.get(level, "")) for level in group.levels]]

    def add(name: str, entries: list[str], above: str = "") -> None:
        header.append(Column(name, above))
        cells.append(entries)

    if state is diagnosis.states[0]:  # the later ones are of the same data
        for split, counts in (("train", diagnosis.boxes), ("val", diagnosis.boxes_val)):
            if group.group in counts:
                add(split, [f"{count:,}" for count in counts[group.group]], "boxes")
    if group.positives:
        add("positives", [_number(each.mean) for each in group.positives])
    for term, losses in group.loss.items():
        add(term, [_number(each.mean) for each in losses], "loss")
    for part, norms in group.norm.items():
        last = part == SHARED
        add(part, [_with_reach(n) if last else _number(n.mean) for n in norms], "gradient norm on")
    add("share of it", [_share(each) for each in group.share])
    if group.signal:
        add("signal", ["-" if part is None else f"{100 * max(part, 0.0):.0f} %" for part in group.signal])
    add("equal at", [f"×{weight:.2g}" for weight in group.equal_norms])
    if group.ap:
        add("boxes", [f"{count:,}" for count in group.evaluated], "validation")
        add("AP", [points(value, 1) for value in group.ap], "validation")
        add("recall", [points(value, 1) for value in group.recall], "validation")
    title = f"Levels {state.when}{_details(state, group)}"
    return Table(title, tuple(header), tuple(zip(*cells, strict=True)), _metrics(diagnosis, state))


def cosine_table(diagnosis: LevelDiagnosis, state: ModelState, group: GroupState) -> Table:
    """Return the cosines of the levels' gradients on the parameters that they share; below, those without noise."""
    levels = range(len(group.levels))
    known = {
        (j, k): group.signal_cosine[j][k] for j in levels for k in range(j) if diagnosis.tells(group, j, k)
    }
    told = {place: _cosine(cosine) for place, cosine in known.items() if cosine is not None}
    rows = tuple(
        (group.levels[j], *(_cosine(group.cosine[j][k]) if k > j else told.get((j, k), "") for k in levels))
        for j in levels
    )
    title = f"Cosines of the gradients {state.when}{_details(state, group)}"
    notes = (
        ("below the diagonal: without the noise of batches, where their signal is enough",) if told else ()
    )
    return Table(title, columns("", *group.levels), rows if told else rows[:-1], notes)


def legend(diagnosis: LevelDiagnosis) -> str:
    """Return what the tables' numbers are, in a sentence or two."""
    return (
        f"Means over {diagnosis.batches} batches of {diagnosis.batch_size}, with 95 % intervals over batches. "
        "shared: the parameters that two levels or more have a gradient for; share: of the sum of the levels' norms "
        "there; signal: how much of a norm there, squared, is common to all batches, where the rest is noise; equal "
        "at: the weights that would make these norms equal."
    )


def _details(state: ModelState, group: GroupState) -> str:
    best = " (the best)" if state.checkpoint == BEST else ""
    return best + (f", group {group.group}" if group.group != "all" else "")


def _metrics(diagnosis: LevelDiagnosis, state: ModelState) -> tuple[str, ...]:
    if not state.metrics:
        return ()
    told = "  ".join(f"{name} {points(value, 1)}" for name, value in state.metrics.items())
    return (f"{told}  on {diagnosis.images_val:,} validation images",)


def _tones(findings: tuple[Finding, ...], group: GroupState) -> dict[str, str]:
    found: dict[str, str] = {}
    for finding in findings:
        if finding.group == group.group and finding.kind in ("dominates", "starves"):
            found |= dict.fromkeys(finding.levels, "better" if finding.kind == "dominates" else "worse")
    return found


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if abs(value) < 1000:
        return f"{value:.3g}" if abs(value) >= 1e-3 or not value else f"{value:.0e}"
    return f"{value:,.0f}"


def _with_reach(spread: Spread) -> str:
    reach = max(spread.high - spread.mean, spread.mean - spread.low)
    told = f"{reach:.2g}" if reach < 100 else f"{reach:,.0f}"
    return _number(spread.mean) + f" ±{told}" * math.isfinite(reach)


def _share(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return "-"
    interval = f" ({100 * spread.low:.0f}-{100 * spread.high:.0f})" if math.isfinite(spread.low) else ""
    return f"{100 * spread.mean:.0f} %{interval}"


def _cosine(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return "-"
    text = f"{spread.mean:+.2f}"
    if not math.isfinite(spread.low):
        return text
    tone = "worse" if spread.high < 0 else "better" if spread.low > 0 else ""
    return Cell(f"{text} ({spread.low:+.2f} to {spread.high:+.2f})", tone)
