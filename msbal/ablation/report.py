"""The report on a grid: sentences first, then tables, as Markdown, LaTeX, CSV, JSON and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Interval, Outcomes
from msbal.ablation.formats import csv_text, latex
from msbal.ablation.grid import Grid
from msbal.ablation.reporting import tables
from msbal.ablation.reporting.layout import layout_of_published
from msbal.ablation.reporting.page import render_page
from msbal.ablation.reporting.paper import paper_table
from msbal.ablation.reporting.words import headline
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics import Conclusion, conclude, summarize
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.evaluation.complexity import Complexity
from msbal.evaluation.tables import Table
from msbal.records.atomic import write_json, write_text


@dataclass(frozen=True)
class Report:
    """Everything that is said of a grid.

    Attributes:
        sentences: a conclusion for each arm but the baseline.
        tables: by file name.
        data: all of it in full precision, for JSON.
        headline: all conclusions in one sentence.
        page: the whole report with plots, in HTML.
    """

    sentences: tuple[str, ...]
    tables: dict[str, Table]
    data: dict[str, Any]
    headline: str
    page: str

    def markdown(self) -> str:
        """The whole report."""
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
            write_text(folder / f"{name}.tex", latex(table))
            write_text(folder / f"{name}.csv", csv_text(table))


def make_report(
    ablation: AblationSpec,
    grid: Grid,
    outcomes: Outcomes,
    images: dict[str, Interval | None] | None = None,
    notes: tuple[str, ...] = (),
    smoke: bool = False,
    costs: Mapping[str, Complexity] | None = None,
) -> Report:
    """Compare every arm to its baseline.

    Args:
        images: by arm, the bootstrap's interval over seeds and images.
        notes: to stand under the first table.
        smoke: the runs were shrunk: published metrics are no match for them.
        costs: by arm, for a layout with a column of GFLOPs.
    """
    metric, costs = ablation.metric, costs or {}
    summaries = {arm: summarize(values) for arm, values in outcomes.values(metric).items()}
    conclusions = conclude(summaries, grid.baselines, ablation.gain, images)
    missing = len(grid.cells) - sum(len(runs) for runs in outcomes.metrics.values())
    if missing:
        notes = (f"{missing} of {len(grid.cells)} runs are not finished and are left out.", *notes)
    shown = {"comparison": tables.comparison(metric, grid, summaries, conclusions, ablation.gain, notes)}
    name, layout = "table", ablation.table
    if layout is None and ablation.published:
        name, layout = "published", layout_of_published(ablation.published, grid.arms)
    if layout is not None:
        shown[name] = paper_table(layout, grid, outcomes, metric, conclusions, costs, smoke)
    shown["sizes"] = tables.sizes(grid, outcomes)
    shown["runs"] = tables.runs(grid, outcomes)
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
                "conclusion": _conclusion_data(conclusions.get(arm)),
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
    page = render_page(ablation, grid, outcomes, summaries, conclusions, shown, layout, smoke)
    sentences = tuple(c.words for c in conclusions.values())
    return Report(sentences, shown, data, headline(conclusions, metric), page)


def _conclusion_data(conclusion: Conclusion | None) -> dict[str, Any] | None:
    if conclusion is None:
        return None
    paired = conclusion.paired
    return {
        "verdict": conclusion.verdict,
        "words": conclusion.words,
        "difference": paired.mean,
        "sd": paired.sd,
        "interval": None if paired.low is None else [paired.low, paired.high],
        "p": paired.p,
        "p_holm": conclusion.p,
        "pairs": paired.n,
        "images_interval": conclusion.images,
        "seeds_needed": conclusion.seeds_needed,
    }
