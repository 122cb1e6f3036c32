"""The report on a grid: sentences first, then tables, as Markdown, LaTeX, CSV, JSON and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.paper_layout import layout_of_published
from msbal.ablation.reporting.arm_tables import (
    comparison_table,
    over_table,
    runs_table,
    sizes_table,
    weights_table,
)
from msbal.ablation.reporting.paper_table import paper_table
from msbal.ablation.reporting.report_page import render_page
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics.conclude import conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.detectors import OverGroups, over_groups
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.samples import summarize
from msbal.ablation.statistics.words import headline, question, scope_of, tone, verdict_first
from msbal.ablation.study import course, study_of
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.evaluation.complexity import Complexity
from msbal.records.atomic import write_json, write_text
from msbal.table import Table


@dataclass(frozen=True)
class Report:
    """Everything that a report says of a grid.

    Attributes:
        title: its name.
        plan: what was planned, and what was changed later, in sentences.
        headline: all conclusions in one sentence.
        sentences: a conclusion over the groups, where there are several, and one for each comparison.
        tables: by file name.
        data: all of it in full precision, for JSON.
        page: the whole report with drawings, in HTML.
    """

    title: str
    plan: tuple[str, ...]
    headline: str
    sentences: tuple[str, ...]
    tables: dict[str, Table]
    data: dict[str, Any]
    page: str

    def markdown(self) -> str:
        """Return the whole report."""
        said = ("- **{}** {}".format(*verdict_first(sentence)).rstrip() for sentence in self.sentences)
        parts = (f"# {self.title}", *self.plan, f"**{self.headline}**", "\n".join(said))
        return "\n\n".join([*filter(None, parts), *(table.markdown() for table in self.tables.values())])

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
    """Say what may be concluded from every comparison that was planned.

    Args:
        images: by comparison, the interval over seeds and images.
        notes: to stand below the comparison's table.
        smoke: the runs were shrunk to see whether everything works: nothing is concluded from them.
        costs: by arm, for a layout with a column of GFLOPs.
        planned: what has been changed since the plan, and how far the report is from it, in sentences.
        crashed: by arm, the seeds whose run has failed.
    """
    metric, costs = ablation.metric, costs or {}
    summaries = {arm: summarize(values) for arm, values in outcomes.values(metric).items()}
    study = study_of(ablation, grid, summaries, outcomes.metrics, crashed, images, smoke)
    conclusions = conclude(study)
    over = () if smoke else over_groups(grid.treatments, conclusions, ablation.gain, len(study.looks))
    title = f"Ablation {grid.output.name}{' (smoke run)' if smoke else ''}"
    # Whatever the spec says now was not planned if there is something to say on the plan.
    plan = (question(study, "Asked" if planned else "Planned"), *planned)
    said = headline(conclusions, study, grid.baselines, over)
    progress = course(study, conclusions, grid)
    notes = (*progress, *notes)
    shown = {"over": over_table(over, ablation.gain)} if over else {}
    shown["comparison"] = comparison_table(grid, study, conclusions, notes)
    name, layout = "table", ablation.table
    if layout is None and ablation.published:
        name, layout = "published", layout_of_published(ablation.published, grid.arms)
    if layout is not None:
        shown[name] = paper_table(layout, grid, outcomes, study, conclusions, costs)
    shown["sizes"] = sizes_table(grid, outcomes)
    if (weights := weights_table(grid, outcomes)) is not None:
        shown["weights"] = weights
    shown["runs"] = runs_table(grid, outcomes)
    if smoke:
        shown = {name: replace(table, title=f"{table.title} (smoke run)") for name, table in shown.items()}
    data = {
        "smoke": smoke,
        "headline": said,
        "metric": metric,
        "gain": ablation.gain,
        "plan": list(plan),
        "looks": list(study.looks),
        "baseline": grid.baseline,
        "baselines": dict(grid.baselines),
        "seeds": list(grid.seeds),
        "over_groups": [_over_data(each) for each in over],
        "arms": {
            arm: {
                "summary": {**asdict(summary), "values": dict(summary.values)},
                "weights": outcomes.weights.get(arm, {}),
                "chosen": outcomes.chosen.get(arm, {}),
                "conclusion": _conclusion_data(
                    conclusions.get(Comparison(arm, grid.baselines[arm])), ablation.gain
                ),
                "complexity": costs[arm].to_json() if arm in costs else None,
                "metrics": {
                    str(seed): {name: metric_in(found, name) for name in ALL_METRICS}
                    for seed, found in outcomes.metrics[arm].items()
                },
            }
            for arm, summary in summaries.items()
        },
        "contrasts": [_conclusion_data(conclusions[each], ablation.gain) for each in grid.contrasts],
        "notes": list(notes),
    }
    verdicts = [(tone(each.verdict), each.words) for each in over]
    if not smoke:  # there the headline says it once for all
        verdicts += [(tone(each.verdict), each.words) for each in conclusions.values()]
    page = render_page(
        ablation, grid, outcomes, study, conclusions, shown, layout, title, plan, progress, said, verdicts
    )
    return Report(title, plan, said, tuple(words for _, words in verdicts), shown, data, page)


def _conclusion_data(conclusion: Conclusion | None, gain: float) -> dict[str, Any] | None:
    if conclusion is None:
        return None
    paired, tested, images = conclusion.paired, conclusion.tested, conclusion.images
    return {
        "arm": conclusion.comparison.arm,
        "to": conclusion.comparison.to,
        "verdict": conclusion.verdict,
        "scope": scope_of(conclusion, gain),
        "reason": conclusion.reason,
        "words": conclusion.words,
        "method": conclusion.method,
        "noise_agrees": conclusion.noise_agrees,
        "tested": None if tested is None else asdict(tested),
        "paired": {
            "pairs": paired.n,
            "differences": dict(paired.differences),
            "mean": paired.mean,
            "sd": paired.sd,
            "interval": None if paired.low is None else [paired.low, paired.high],
            "p": paired.p,
        },
        "better_on": conclusion.better_on,
        "images": None if images is None else asdict(images),
        "crashed": {arm: list(seeds) for arm, seeds in conclusion.crashed.items()},
        "unpaired": list(conclusion.unpaired),
        "odd": {arm: list(seeds) for arm, seeds in conclusion.odd.items()},
        "mean_without_odd": conclusion.mean_without_odd,
        "seeds_needed": conclusion.seeds_needed,
        "needed_range": conclusion.needed_range,
    }


def _over_data(found: OverGroups) -> dict[str, Any]:
    return {
        "change": found.treatment.name,
        "over": found.treatment.over,
        "means": [{"arm": each.arm, "to": each.to, "mean": mean} for each, mean in found.means.items()],
        "missing": [each.arm for each in found.missing],
        "tested": None if found.tested is None else asdict(found.tested),
        "verdict": found.verdict,
        "others": found.others,
        "better_in": found.better_in,
        "words": found.words,
    }
