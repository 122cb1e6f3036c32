"""The panels, one module each, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence

from msbal.errors import SpecError, suggest
from msbal.plotting.panels import losses, probabilities, rewards, share, variance, weights
from msbal.plotting.panels.panel import Curves, Look, Panel
from msbal.plotting.series import RunSeries

WHAT = ("losses", "weights", "probabilities", "rewards", "variance", "share")


def parse_what(text: str) -> tuple[str, ...]:
    """``losses,weights`` or ``all`` -> the names, in the order of :data:`WHAT`."""
    asked = {name.strip() for name in text.split(",") if name.strip()}
    for name in sorted(asked - {"all", *WHAT}):
        raise SpecError("--what", f"found `{name}`", "all or a list of panels", suggest(name, [*WHAT, "all"]))
    if not asked:
        raise SpecError("--what", "found nothing", "all or a list of panels", suggest("", [*WHAT, "all"]))
    return tuple(name for name in WHAT if "all" in asked or name in asked)


def choose_panels(runs: Sequence[RunSeries], what: Sequence[str]) -> list[Panel]:
    """The panels that at least one of the runs can fill, group by group, in the order of :data:`WHAT`.

    Raises:
        SpecError: there are none.
    """
    chosen = []
    for group in dict.fromkeys(group.name for run in runs for group in run.groups):
        members = [member for run in runs if (member := run.group(group)) is not None]
        terms = tuple(dict.fromkeys(term for member in members for term in member.terms))
        candidates = [
            *losses.panels(group, terms),
            *weights.panels(group),
            *probabilities.panels(group),
            *rewards.panels(group),
            *variance.panels(group),
            *share.panels(group, members),
        ]
        chosen += [
            panel
            for panel in candidates
            if panel.what in what and any(panel.has_data(member) for member in members)
        ]
    if not chosen:
        raise SpecError(
            "--what", f"found nothing of {', '.join(what)} in these runs", "panels that a run can fill",
            "probabilities and rewards come from strategies that choose, such as rlo",
        )  # fmt: skip
    return chosen


__all__ = ["WHAT", "Curves", "Look", "Panel", "choose_panels", "parse_what"]
