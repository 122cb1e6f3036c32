"""Comparisons as tables: in the terminal, in Markdown, as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from msbal.evaluation.bootstrap import ALL_METRICS, Difference
from msbal.evaluation.coco import CLASS_METRICS
from msbal.evaluation.compare import Comparison, flat
from msbal.evaluation.complexity import BalancingCost, Complexity

if TYPE_CHECKING:
    from rich.table import Table as RichTable

FULL_NAMES = {"mAP": "VOC mAP", "mAP_11": "VOC mAP 11-point"}


@dataclass(frozen=True)
class Table:
    """A table before it is drawn.

    Attributes:
        title: what it shows.
        header: a name per column; the first column is text, the others are numbers.
        rows: a cell per column.
        notes: sentences under it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def transposed(self) -> Table:
        """The same with a row for each column."""
        columns = list(zip(self.header, *self.rows, strict=True))
        return Table(self.title, tuple(columns[0]), tuple(columns[1:]), self.notes)

    def markdown(self) -> str:
        """The table in Markdown, pipes and line breaks in names escaped."""
        lines = [f"**{_escape(self.title)}**", "", _line(self.header)]
        lines.append("|" + "|".join([" --- ", *[" ---: "] * (len(self.header) - 1)]) + "|")
        lines += [_line(row) for row in self.rows]
        lines += [part for note in self.notes for part in ("", _escape(note))]
        return "\n".join(lines) + "\n"

    def rich(self) -> RichTable:
        """The table for a terminal."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        if self.notes:
            table.caption, table.caption_justify = Text("\n".join(self.notes)), "left"
        for number, name in enumerate(self.header):
            lines = "\n".join(textwrap.wrap(name, 14)) if number else name
            justify: Literal["left", "right"] = "right" if number else "left"
            # Where it is too wide a cell may break at a space, never within a number.
            words = [word for text in (lines, *(row[number] for row in self.rows)) for word in text.split()]
            longest = max((len(word) for word in words), default=0)
            room = longest if number else min(16, longest)
            table.add_column(Text(lines), justify=justify, min_width=room, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
        return table


def overall(comparison: Comparison) -> Table:
    """Every metric of every run, in per cent, each difference with its interval."""
    runs = comparison.runs
    header, rows = ["%", runs[0].name], []
    for run in runs[1:]:
        header += [run.name, *_difference_header(comparison)]
    for name in ALL_METRICS:
        row = [FULL_NAMES.get(name, name), percent(flat(runs[0])[name])]
        for run, differences in zip(runs[1:], comparison.differences, strict=True):
            row += [percent(flat(run)[name]), *_difference_cells(differences[name], comparison)]
        rows.append(tuple(row))
    data = runs[0].data
    title = (
        f"{data.name}: {len(data):,} images, {data.box_count:,} boxes" if data is not None else "as recorded"
    )
    return Table(title, tuple(header), tuple(rows), _notes(comparison))


def per_class(comparison: Comparison) -> Table:
    """One row a class: all metrics of a single run, or the AP of several runs with differences."""
    runs = comparison.runs
    first = runs[0].metrics.get("per_class", {})
    if len(runs) == 1:
        header = ("class", "boxes", *CLASS_METRICS, "VOC AP", "VOC AP 11-point")
        rows = [
            (
                name,
                f"{found['boxes']:,}",
                *(percent(found[metric]) for metric in CLASS_METRICS),
                percent(found["voc"]["AP"]),
                percent(found["voc"]["AP_11"]),
            )
            for name, found in first.items()
        ]
        return Table("per class, %", header, tuple(rows))
    columns = ["class", "boxes", runs[0].name]
    for run in runs[1:]:
        columns += [run.name, *_difference_header(comparison)]
    rows = []
    for name, found in first.items():
        row = [name, f"{found['boxes']:,}", percent(found["AP"])]
        for run, differences in zip(runs[1:], comparison.class_differences, strict=True):
            other = run.metrics.get("per_class", {}).get(name, {})
            row += [percent(other.get("AP")), *_difference_cells(differences[name], comparison)]
        rows.append(tuple(row))
    return Table("AP per class, %", tuple(columns), tuple(rows), _notes(comparison))


def complexity(rows: list[tuple[str, Complexity, BalancingCost | None]]) -> Table:
    """Parameters and operations, as in the paper's Table 1."""
    cells = []
    for name, cost, balancing in rows:
        added = "-" if balancing is None else f"{(balancing.split - balancing.plain) / 1e9:+.2f}"
        parameters = "-" if balancing is None else f"{balancing.parameters:+,}"
        cells.append(
            (
                name,
                " x ".join(str(side) for side in cost.input),
                f"{cost.parameters / 1e6:.2f}",
                f"{cost.trainable / 1e6:.2f}",
                f"{cost.multiply_adds / 1e9:.2f}",
                f"{cost.operations / 1e9:.2f}",
                f"{cost.as_mmdetection / 1e9:.2f}",
                added,
                parameters,
            )
        )
    header = (
        "run", "input", "parameters, M", "trainable, M", "multiply-adds, G", "operations, G",
        "as MMDetection counts, G", "balancing adds, G", "balancing adds, parameters",
    )  # fmt: skip
    notes = (
        "Of one image's forward pass. Multiply-adds are those of convolutions and matrix products (what papers "
        "call FLOPs); operations count a multiplication and an addition each. MMDetection's tool counts "
        "multiply-adds, and normalisation, activations, biases and pooling: the metric in the paper's Table 1.",
        "What balancing adds is counted over the forward pass of a training step, at the spec's own image size; "
        "nothing of it is left in the trained model.",
    )
    return Table("cost of the model", header, tuple(cells), notes)


def as_json(
    comparison: Comparison, costs: list[tuple[str, Complexity, BalancingCost | None]] | None = None
) -> dict[str, Any]:
    """Everything in the tables, in full precision, metrics in 0..1."""
    data = comparison.runs[0].data
    first = comparison.runs[0].name
    described = [
        {
            "name": run.name,
            "metrics": run.metrics,
            "remarks": list(run.remarks),
            "data_remarks": list(run.data_remarks),
        }
        for run in comparison.runs
    ]
    for run, (_, cost, balancing) in zip(described, costs or (), strict=False):
        run["complexity"] = {**cost.to_json(), **(balancing.to_json() if balancing else {})}
    return {
        "data": None if data is None else {"name": data.name, "images": len(data), "boxes": data.box_count},
        "runs": described,
        "differences": [
            {
                "run": run.name,
                "to": first,
                "metrics": {name: _plain(value) for name, value in differences.items()},
                "per_class": {name: _plain(value) for name, value in classes.items()},
            }
            for run, differences, classes in zip(
                comparison.runs[1:], comparison.differences, comparison.class_differences, strict=True
            )
        ],
        "bootstrap": {
            "resamples": comparison.resamples,
            "seed": comparison.seed,
            "confidence": comparison.confidence,
        }
        if comparison.resamples
        else None,
        "notes": list(comparison.notes),
    }


def percent(value: float | None) -> str:
    """A metric in 0..1 as per cent with two decimals, ``-`` where undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def _difference_header(comparison: Comparison) -> tuple[str, ...]:
    if not comparison.resamples:
        return ("difference",)
    return ("difference", f"{100 * comparison.confidence:g}% interval", "above 0")


def _difference_cells(difference: Difference | None, comparison: Comparison) -> tuple[str, ...]:
    width = len(_difference_header(comparison))
    if difference is None:
        return ("-",) * width
    value = f"{100 * difference.value:+.2f}"
    if difference.low is None or difference.high is None or difference.above_zero is None:
        return (value, *("-",) * (width - 1))
    bounds = f"{100 * difference.low:+.2f} .. {100 * difference.high:+.2f}"
    return (value, bounds, f"{100 * difference.above_zero:.1f}%")


def _notes(comparison: Comparison) -> tuple[str, ...]:
    if not comparison.resamples:
        return comparison.notes
    return (
        f"Differences are to {comparison.runs[0].name}. Intervals and the share above 0 come from a paired "
        f"bootstrap over images ({comparison.resamples:,} resamples, seed {comparison.seed}): what other images "
        "could have shown. How much another training seed changes is not in them; `msbal ablate` measures that.",
        *comparison.notes,
    )


def _plain(difference: Difference | None) -> dict[str, float | None] | None:
    return None if difference is None else asdict(difference)


def _style(cell: str) -> str:
    """Green where an interval lies above zero, red where it lies below."""
    low, separator, high = cell.partition(" .. ")
    if not separator:
        return ""
    if low.startswith("+") and float(low) > 0:
        return "green"
    return "red" if high.startswith("-") and float(high) < 0 else ""


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
