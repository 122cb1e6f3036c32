"""What an ablation comes to, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from msbal.ablation.statistics import Conclusion
from msbal.evaluation.tables import FULL_NAMES


def headline(conclusions: Mapping[str, Conclusion], metric: str) -> str:
    """Which arms differ, by name; an arm that is within seed noise is never said to be equal."""
    by_verdict: dict[str, list[str]] = {}
    for conclusion in conclusions.values():
        by_verdict.setdefault(conclusion.verdict, []).append(conclusion.arm)
    if not conclusions:
        return "There is only the baseline: nothing is compared."
    name = FULL_NAMES.get(metric, metric)
    said = []
    for verdict in ("better", "worse"):
        if verdict in by_verdict:
            said.append(f"{verdict.capitalize()} in {name}: {', '.join(by_verdict[verdict])}.")
    noise = by_verdict.get("within seed noise", [])
    if noise:
        if not said:
            arms = "the arm" if len(conclusions) == 1 else "any arm"
            said.append(
                f"No difference in {name} between {arms} and its baseline stands out of the seeds' noise."
            )
        else:
            said.append(f"Within seed noise: {', '.join(noise)}.")
    if "unknown" in by_verdict:
        said.append(f"Not to be told yet: {', '.join(by_verdict['unknown'])}.")
    return " ".join(said)
