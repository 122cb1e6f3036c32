"""The report on a grid: sentences first, then tables, as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msbal.ablation.cells import figure_in
from msbal.ablation.collect import Interval, Outcomes
from msbal.ablation.formats import csv_text, latex
from msbal.ablation.grid import Grid
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics import Conclusion, Paired, Summary, conclude, pair, summarize
from msbal.evaluation.bootstrap import ALL_FIGURES
from msbal.evaluation.tables import FULL_NAMES, Table
from msbal.records.atomic import write_json, write_text

SIZES = ("AP", "AP_S", "AP_M", "AP_L")


@dataclass(frozen=True)
class Report:
    """Everything that is said of a grid.

    Attributes:
        sentences: a conclusion for each arm but the baseline.
        tables: by file name.
        data: all of it in full precision, for JSON.
    """

    sentences: tuple[str, ...]
    tables: dict[str, Table]
    data: dict[str, Any]

    def markdown(self) -> str:
        """The whole report."""
        said = "\n".join(f"- {sentence}" for sentence in self.sentences)
        return "\n".join(["# Ablation", "", said, "", *(t.markdown() for t in self.tables.values())])

    def write(self, folder: Path) -> None:
        """Write report.md, report.json and a .tex and .csv file for each table."""
        write_text(folder / "report.md", self.markdown())
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
) -> Report:
    """Compare every arm to the baseline.

    Args:
        images: by arm, the bootstrap's interval over seeds and images.
        notes: to stand under the first table.
        smoke: the runs were shrunk: published figures are no match for them.
    """
    figure = ablation.figure
    summaries = {arm: summarize(values) for arm, values in outcomes.values(figure).items()}
    conclusions = conclude(summaries, grid.baseline, ablation.gain, images)
    missing = len(grid.cells) - sum(len(runs) for runs in outcomes.figures.values())
    if missing:
        notes = (f"{missing} of {len(grid.cells)} runs are not finished and are left out.", *notes)
    tables = {
        "comparison": _comparison(figure, grid, summaries, conclusions, notes),
        "sizes": _sizes(grid, outcomes),
        "runs": _runs(grid, outcomes),
    }
    if ablation.published:
        tables["published"] = _published(ablation, grid, outcomes, smoke)
    data = {
        "figure": figure,
        "baseline": grid.baseline,
        "seeds": list(grid.seeds),
        "smoke": smoke,
        "arms": {
            arm: {
                "summary": {**asdict(summary), "values": dict(summary.values)},
                "weights": outcomes.weights.get(arm, {}),
                "conclusion": _conclusion_data(conclusions.get(arm)),
                "figures": {
                    str(seed): {name: figure_in(found, name) for name in ALL_FIGURES}
                    for seed, found in outcomes.figures[arm].items()
                },
            }
            for arm, summary in summaries.items()
        },
        "notes": list(notes),
    }
    return Report(tuple(c.words for c in conclusions.values()), tables, data)


def _comparison(
    figure: str,
    grid: Grid,
    summaries: dict[str, Summary],
    conclusions: dict[str, Conclusion],
    notes: tuple[str, ...],
) -> Table:
    """Mean, spread and verdict of each arm in the one figure."""
    boot = any(conclusion.images is not None for conclusion in conclusions.values())
    header = [
        "arm", "n", f"{FULL_NAMES.get(figure, figure)}, %", "sd", "difference", "95 % interval", "p (Holm)",
        *(["seeds and images"] if boot else []), "seeds needed", "verdict",
    ]  # fmt: skip
    rows = []
    for arm in grid.arms:
        summary, found = summaries[arm], conclusions.get(arm)
        row = [arm, str(summary.n), points(summary.mean), points(summary.sd)]
        if found is None:
            row += ["-"] * (len(header) - len(row) - 1) + ["baseline"]
        else:
            row += [
                signed(found.paired.mean),
                span(found.paired.low, found.paired.high),
                "-" if found.p is None else f"{found.p:.2g}",
                *([span(*(found.images or (None, None)))] if boot else []),
                "-" if found.seeds_needed is None else str(found.seeds_needed),
                found.verdict,
            ]
        rows.append(tuple(row))
    return Table(
        f"Each arm against {grid.baseline}",
        tuple(header),
        tuple(rows),
        (
            "Differences are paired by seed; their interval is Student's t over the seeds, p is two-sided and "
            "corrected for the number of arms (Holm).",
            *(
                ("`seeds and images` draws both anew (bootstrap); with few seeds it is too narrow.",)
                if boot
                else ()
            ),
            *notes,
        ),
    )


def _sizes(grid: Grid, outcomes: Outcomes) -> Table:
    """The figures by object size, beside the weights that the levels got."""
    levels = list(dict.fromkeys(level for weights in outcomes.weights.values() for level in weights))
    by_figure = {
        figure: {arm: summarize(values) for arm, values in outcomes.values(figure).items()}
        for figure in SIZES
    }
    rows = []
    for arm in grid.arms:
        row = [arm]
        for figure in SIZES:
            row.append(mean_and_sd(by_figure[figure][arm]))
            if figure != "AP":
                baseline = by_figure[figure][grid.baseline]
                difference = pair(baseline, by_figure[figure][arm]) if arm != grid.baseline else Paired({})
                row.append(signed(difference.mean))
        weights = outcomes.weights.get(arm, {})
        row += [f"{weights[level]:.3f}" if level in weights else "-" for level in levels]
        rows.append(tuple(row))
    header = ["arm", "AP"]
    for figure in SIZES[1:]:
        header += [figure, "difference"]
    header += [f"weight {level}" for level in levels]
    return Table(
        "By object size, %, and the mean weight of each level",
        tuple(header),
        tuple(rows),
        ("Mean ± standard deviation over the seeds. These differences are not tested: the verdict is on one "
         "figure, chosen beforehand.",),
    )  # fmt: skip


def _runs(grid: Grid, outcomes: Outcomes) -> Table:
    """Every finished run's figures."""
    rows = [
        (arm, str(seed), *(points(figure_in(found, name)) for name in ALL_FIGURES))
        for arm in grid.arms
        for seed, found in outcomes.figures[arm].items()
    ]
    return Table("All runs, %", ("arm", "seed", *(FULL_NAMES.get(n, n) for n in ALL_FIGURES)), tuple(rows))


def _published(ablation: AblationSpec, grid: Grid, outcomes: Outcomes, smoke: bool) -> Table:
    """A paper's figures beside the measured ones."""
    names = list(dict.fromkeys(name for row in ablation.published.values() for name in row))
    measured = {
        name: {arm: summarize(values) for arm, values in outcomes.values(name).items()}
        for name in names
        if name in ALL_FIGURES
    }
    rows = []
    for arm in grid.arms:
        row = [arm]
        for name in names:
            there = ablation.published.get(arm, {}).get(name)
            row.append("-" if there is None else f"{there:g}")
            row.append(mean_and_sd(measured[name][arm]) if name in measured else "-")
        rows.append(tuple(row))
    header = ["arm"]
    for name in names:
        header += [f"{name} published", f"{name} measured"]
    notes = ("A smoke run: the measured figures are not meant to match.",) if smoke else ()
    return Table("Published and measured, %", tuple(header), tuple(rows), notes)


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


def points(value: float | None) -> str:
    """A figure in 0..1 as per cent."""
    return "-" if value is None else f"{100 * value:.2f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return "-" if value is None else f"{100 * value:+.2f}"


def span(low: float | None, high: float | None) -> str:
    """An interval of differences."""
    return "-" if low is None or high is None else f"{signed(low)} .. {signed(high)}"


def mean_and_sd(summary: Summary) -> str:
    """``36.90 ± 0.21``, without the second for a single run."""
    return points(summary.mean) + ("" if summary.sd is None else f" ± {points(summary.sd)}")
