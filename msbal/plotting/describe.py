"""Choose among the panels and describe them in rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msbal.errors import SpecError, suggest
from msbal.plotting.kinds import Look, Shown, kinds, run_kinds
from msbal.plotting.levels import describe_diagnosis
from msbal.plotting.panel import LevelLook, Panel
from msbal.plotting.series import GroupSeries, RunSeries, merge_names
from msbal.plotting.style import action_colors, level_colors, level_markers

WHAT = (
    "total", "ap", "lr", "losses", "weights", "probabilities", "rewards", "variance", "share", "gradients",
    "diagnosis",
)  # fmt: skip


def parse_what(text: str) -> tuple[str, ...]:
    """Return the names in ``losses,weights`` or ``all``, in the order of `WHAT`.

    Raises:
        SpecError: there are none, or an unknown one.
    """
    asked = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(asked - {"all", *WHAT})
    if unknown or not asked:
        found = f"found `{unknown[0]}`" if unknown else "found nothing"
        known = suggest(unknown[0] if unknown else "", [*WHAT, "all"])
        raise SpecError("--what", found, "all or a list of panels", known)
    return tuple(name for name in WHAT if "all" in asked or name in asked)


def make_look(
    runs: Sequence[RunSeries], palette: str = "paper", labelled: Sequence[GroupSeries] | None = None
) -> Look:
    """Return how everything in `runs` looks.

    Args:
        labelled: the groups whose levels without boxes are labelled as such; None for all of them.

    Raises:
        SpecError: an unknown palette.
    """
    groups = [group for run in runs for group in run.groups]
    levels, asked = merge_names(group.levels for group in groups), groups if labelled is None else labelled
    markers = level_markers(levels)

    def label(level: str) -> str:
        empty = [level in group.without_boxes() for group in asked if level in group.levels]
        return f"{level} (no boxes)" if empty and all(empty) else level

    looks = {n: LevelLook(label(n), color, markers[n]) for n, color in level_colors(levels, palette).items()}
    return Look(looks, action_colors(merge_names(group.actions for group in groups)))


@dataclass(frozen=True)
class Row:
    """A kind of panel, for a group of levels or the run as a whole.

    Attributes:
        alone: a panel for each run, None where a run has nothing to show.
        together: one panel of the runs that have, where there are several and the kind allows it.
    """

    alone: Sequence[Panel | None]
    together: Panel | None

    @property
    def panels(self) -> list[Panel]:
        return [panel for panel in self.alone if panel]


def describe_panels(runs: Sequence[RunSeries], what: Sequence[str], palette: str = "paper") -> list[Row]:
    """Describe the panels that at least one run can fill: of the runs as a whole, then group by group, as in `WHAT`.

    Raises:
        SpecError: no run can fill any, or an unknown palette.
    """
    rows = []
    for name in ("", *dict.fromkeys(group.name for run in runs for group in run.groups)):
        of_name = [run.group(name) if name else run.groups[0] for run in runs]
        shown = [
            Shown(n, run, group) for n, (run, group) in enumerate(zip(runs, of_name, strict=True)) if group
        ]
        peers = [one.group for one in shown]
        look = make_look(runs, palette, peers)
        for kind in (kind for kind in (kinds(peers) if name else run_kinds()) if kind.what in what):
            alone = {one.run: _placed(kind.describe([one], peers, look), name, [one]) for one in shown}
            some = [one for one in shown if alone[one.run]]
            together = kind.overlays and len(some) > 1
            row = Row(
                [alone.get(n) for n in range(len(runs))],
                _placed(kind.describe(some, peers, look), name, some) if together else None,
            )
            if row.panels:
                rows.append(row)
    if "diagnosis" in what:
        rows += _diagnosed(runs)
    if not rows:
        raise SpecError(
            "--what", f"found nothing of {', '.join(what)} in these runs", "panels that a run can fill",
            "probabilities and rewards come from strategies that choose, such as rlo, gradients from "
            "`balance.measure`, a diagnosis from `msbal diagnose`",
        )  # fmt: skip
    return rows


def _diagnosed(runs: Sequence[RunSeries]) -> list[Row]:
    """Describe what `msbal diagnose` measured, a row for each panel that a run has."""
    found = [
        {(panel.group, panel.key): panel for row in describe_diagnosis(run.diagnosis, n) for panel in row}
        if run.diagnosis
        else {}
        for n, run in enumerate(runs)
    ]
    return [
        Row([each.get(key) for each in found], None)
        for key in dict.fromkeys(key for each in found for key in each)
    ]


def _placed(panel: Panel | None, group: str, shown: Sequence[Shown]) -> Panel | None:
    """Return `panel` with its group, its runs and its range of iterations."""
    if panel is None:
        return None
    start, end = min(one.whole.span[0] for one in shown), max(one.whole.span[1] for one in shown)
    x = (start, end + 0.012 * (end - start))  # the last mark stands clear of the edge
    return replace(panel, group=group, runs=tuple(one.run for one in shown), x=x)
