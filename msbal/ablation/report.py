"""The report on a grid: sentences first, then tables, as Markdown, LaTeX, CSV, JSON and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.paper_layout import layout_of_published
from msbal.ablation.reporting.arm_tables import comparison_table, runs_table, sizes_table, weights_table
from msbal.ablation.reporting.paper_table import paper_table
from msbal.ablation.reporting.report_page import render_page
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics.conclude import conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.samples import summarize
from msbal.ablation.statistics.words import verdict_text
from msbal.ablation.study import course, study_of
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.evaluation.complexity import Complexity
from msbal.metric_text import full_name
from msbal.records.atomic import write_json, write_text
from msbal.table import Table


@dataclass(frozen=True)
class Report:
    """Everything that a report says of a grid.

    Attributes:
        sentences: a conclusion for each arm but the baseline.
        tables: by file name.
        data: all of it in full precision, for JSON.
        headline: all conclusions in one sentence.
        page: the whole report with drawings, in HTML.
    """

    sentences: tuple[str, ...]
    tables: dict[str, Table]
    data: dict[str, Any]
    headline: str
    page: str

    def markdown(self) -> str:
        """Return the whole report."""
        said = "\n".join(f"- {sentence}" for sentence in self.sentences)
        return "\n".join(
            ["# Ablation", "", self.headline, "", said, "", *(t.markdown() for t in self.tables.values())]
        )

    def write(self, folder: Path) -> None:
        """Write report.md, report.html, report.json and a .tex and .csv file for each table."""
        write_text(folder / "report.md", self.markdown())
        write_text(folder / "report.html", self.page)
        write_json(folder / "report.json", self.data, indent=1)
        for name, table in self.tables.items():
            write_text(folder / f"{name}.tex", table.latex())
            write_text(folder / f"{name}.csv", table.csv())


def make_report(
    ablation: AblationSpec,
    grid: Grid,
    outcomes: Outcomes,
    images: Mapping[Comparison, SeedsAndImages | None] | None = None,
    notes: tuple[str, ...] = (),
    smoke: bool = False,
    costs: Mapping[str, Complexity] | None = None,
    planned: Sequence[str] = (),
    crashed: Mapping[str, tuple[int, ...]] | None = None,
) -> Report:
    """Compare every arm to its baseline.

    Args:
        images: by comparison, the interval over seeds and images.
        notes: to stand below the first table.
        smoke: the runs were shrunk, so that published metrics cannot be compared to theirs.
        costs: by arm, for a layout with a column of GFLOPs.
        planned: what has been changed since the plan, and how far the report is from it, in sentences.
        crashed: by arm, the seeds whose run has failed.
    """
    metric, costs = ablation.metric, costs or {}
    summaries = {arm: summarize(values) for arm, values in outcomes.values(metric).items()}
    study = study_of(ablation, grid, summaries, outcomes.metrics, crashed, images)
    conclusions = conclude(study)
    notes = (*course(study, conclusions, grid), *notes)
    shown = {"comparison": comparison_table(metric, grid, summaries, conclusions, ablation.gain, notes)}
    name, layout = "table", ablation.table
    if layout is None and ablation.published:
        name, layout = "published", layout_of_published(ablation.published, grid.arms)
    if layout is not None:
        shown[name] = paper_table(layout, grid, outcomes, metric, conclusions, costs, smoke)
    shown["sizes"] = sizes_table(grid, outcomes)
    if (weights := weights_table(grid, outcomes)) is not None:
        shown["weights"] = weights
    shown["runs"] = runs_table(grid, outcomes)
    data = {
        "metric": metric,
        "baseline": grid.baseline,
        "baselines": dict(grid.baselines),
        "seeds": list(grid.seeds),
        "smoke": smoke,
        "arms": {
            arm: {
                "summary": {**asdict(summary), "values": dict(summary.values)},
                "weights": outcomes.weights.get(arm, {}),
                "chosen": outcomes.chosen.get(arm, {}),
                "conclusion": _conclusion_data(conclusions.get(Comparison(arm, grid.baselines[arm]))),
                "complexity": costs[arm].to_json() if arm in costs else None,
                "metrics": {
                    str(seed): {name: metric_in(found, name) for name in ALL_METRICS}
                    for seed, found in outcomes.metrics[arm].items()
                },
            }
            for arm, summary in summaries.items()
        },
        "notes": list(notes),
    }
    said = headline(conclusions, metric, ablation.gain)
    page = render_page(ablation, grid, outcomes, summaries, conclusions, shown, layout, smoke, said)
    return Report(tuple(c.words for c in conclusions.values()), shown, data, said, page)


def headline(conclusions: Mapping[Comparison, Conclusion], metric: str, gain: float) -> str:
    """Return by name which arms differ; an arm that is within seed noise is never called equal."""
    if not conclusions:
        return "There is only the baseline: nothing is compared."
    arms: dict[str, list[str]] = {}
    for conclusion in conclusions.values():
        arms.setdefault(verdict_text(conclusion.verdict, gain), []).append(conclusion.comparison.arm)
    return (
        f"{full_name(metric)}: "
        + "; ".join(f"{text}: {', '.join(names)}" for text, names in arms.items())
        + "."
    )


def _conclusion_data(conclusion: Conclusion | None) -> dict[str, Any] | None:
    if conclusion is None:
        return None
    paired, tested, images = conclusion.paired, conclusion.tested, conclusion.images
    return {
        "verdict": conclusion.verdict,
        "words": conclusion.words,
        "method": conclusion.method,
        "difference": paired.mean,
        "sd": paired.sd,
        "interval": None if paired.low is None else [paired.low, paired.high],
        "p": paired.p,
        "pairs": paired.n,
        "tested": None if tested is None else asdict(tested),
        "images": None if images is None else asdict(images),
        "seeds_needed": conclusion.seeds_needed,
    }
