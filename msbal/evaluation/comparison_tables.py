"""What `msbal eval` shows of a comparison: as tables in points, as CSV, and as JSON in full precision, from 0 to 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from msbal.data.files import listed
from msbal.evaluation.bootstrap import ALL_METRICS, Difference
from msbal.evaluation.coco_metrics import CLASS_METRICS
from msbal.evaluation.compare import HEADLINE, Comparison, Differences, flat
from msbal.evaluation.complexity import BalancingCost, Complexity
from msbal.evaluation.runs import Evaluated
from msbal.metric_text import full_name, points, signed, span
from msbal.table import Column, Table, columns, csv_number, csv_text

_UNCORRECTED = " †"
_OTHER_SEEDS = (
    "Two runs can differ by their training seeds alone, which intervals over images do not cover; `msbal ablate` "
    "measures it over several seeds."
)

Cost = tuple[str, Complexity, BalancingCost | None]


def overall(comparison: Comparison) -> Table:
    """Return every metric of every run, each difference with its interval."""
    first = comparison.runs[0]
    rows = []
    for name in ALL_METRICS:
        alone = name == HEADLINE
        mark = "" if alone or not comparison.has_intervals else _UNCORRECTED
        row = [full_name(name) + mark, points(flat(first)[name])]
        for run, differences in _others(comparison):
            row += [points(flat(run)[name]), *_difference(differences[name], comparison, alone)]
        rows.append(tuple(row))
    data = first.data
    on = "as recorded" if data is None else f"on {data.name}: {len(data):,} images, {data.box_count:,} boxes"
    header = (*columns("metric"), *_run_columns(comparison))
    rules = (1,) if comparison.has_intervals else ()
    return Table(f"Metrics in points {on}", header, tuple(rows), _notes(comparison), rules)


def per_class(comparison: Comparison) -> Table:
    """Return a row for each class: all metrics of a single run, or the AP of several with differences."""
    several = len(comparison.runs) > 1
    rows = []
    for name, found in comparison.runs[0].metrics.get("per_class", {}).items():
        row = [name, f"{found['boxes']:,}"]
        if several:
            row.append(points(found["AP"]))
        else:
            row += [points(found[metric]) for metric in CLASS_METRICS]
            row += [points(found["voc"][metric]) for metric in ("AP", "AP_11")]
        for run, differences in _others(comparison, by_class=True):
            ap = run.metrics.get("per_class", {}).get(name, {}).get("AP")
            row += [points(ap), *_difference(differences[name], comparison)]
        rows.append(tuple(row))
    if several:
        header = (*columns("class", "boxes"), *_run_columns(comparison, _UNCORRECTED))
        return Table("AP of each class in points", header, tuple(rows), _notes(comparison))
    header = columns("class", "boxes", *CLASS_METRICS, "VOC AP", "VOC AP 11-point")
    return Table("Metrics of each class in points", header, tuple(rows))


def as_csv(comparison: Comparison, by_class: bool) -> str:
    """Return a row for each run and metric, in points, with the difference to the first run where there is one.

    Args:
        by_class: also a row for each run, class and metric of a class.
    """
    heads = ("run", "class", "metric", "value", "difference", "low", "high", "share_above_0", "interval")
    rows: list[tuple[str, ...]] = [heads]

    def add(run: str, class_: str, metric: str, value: float | None, found: Difference | None = None) -> None:
        numbers: list[float | None] = [None] * 4
        if found is not None:
            numbers = [*points(found.value).values, *span(found.low, found.high).values, found.above_zero]
        kind = _kind(found, metric == HEADLINE and not class_)
        rows.append((run, class_, metric, *map(csv_number, [*points(value).values, *numbers]), kind or ""))

    for index, run in enumerate(comparison.runs):
        differences = comparison.differences[index - 1] if index else {}
        for metric, value in flat(run).items():
            add(run.name, "", metric, value, differences.get(metric))
        of_class = comparison.class_differences[index - 1] if index else {}
        for class_, found in run.metrics.get("per_class", {}).items() if by_class else ():
            for metric in CLASS_METRICS:
                add(run.name, class_, metric, found[metric], of_class.get(class_) if metric == "AP" else None)
            for metric, key in (("mAP", "AP"), ("mAP_11", "AP_11")):
                add(run.name, class_, metric, found["voc"][key])
    return csv_text(rows)


def complexity(costs: Sequence[Cost]) -> Table:
    """Return parameters and operations, as in the paper's Table 1."""
    rows = [
        (
            name,
            " x ".join(str(side) for side in cost.input),
            f"{cost.parameters / 1e6:.2f}",
            f"{cost.trainable / 1e6:.2f}",
            f"{cost.multiply_adds / 1e9:.2f}",
            f"{cost.operations / 1e9:.2f}",
            f"{cost.as_mmdetection / 1e9:.2f}",
            "-" if balancing is None else f"{(balancing.split - balancing.plain) / 1e9:+.2f}",
            "-" if balancing is None else f"{balancing.parameters:+,}",
        )
        for name, cost, balancing in costs
    ]
    header = columns(
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
    return Table("Cost of the model", header, tuple(rows), notes)


def as_json(comparison: Comparison, costs: Sequence[Cost] = ()) -> dict[str, Any]:
    """Return everything in the tables in full precision, metrics in 0..1."""
    first = comparison.runs[0]
    runs: list[dict[str, Any]] = [
        {"name": r.name, "metrics": r.metrics, "remarks": [*r.remarks], "data_remarks": [*r.data_remarks]}
        for r in comparison.runs
    ]
    for run, (_, cost, balancing) in zip(runs, costs, strict=False):
        run["complexity"] = {**cost.to_json(), **(balancing.to_json() if balancing else {})}

    def plain(differences: Differences, headline: str = "") -> dict[str, Any]:
        return {
            name: None if found is None else {**asdict(found), "interval": _kind(found, name == headline)}
            for name, found in differences.items()
        }

    bootstrap = {key: getattr(comparison, key) for key in ("resamples", "seed", "confidence")}
    data = first.data
    return {
        "data": None if data is None else {"name": data.name, "images": len(data), "boxes": data.box_count},
        "runs": runs,
        "differences": [
            {
                "run": run.name, "to": first.name, "headline": HEADLINE, "only_seed_differs": relation.only_seed,
                "same_metrics": relation.same, "keys_that_differ": relation.keys,
                "metrics": plain(metrics, HEADLINE), "per_class": plain(classes),
            }
            for (run, metrics), (_, classes), relation in zip(
                _others(comparison), _others(comparison, by_class=True), comparison.relations, strict=True
            )
        ],
        "bootstrap": bootstrap if comparison.resamples else None,
        "notes": [*_remarks(comparison)],
    }  # fmt: skip


def _others(comparison: Comparison, by_class: bool = False) -> Iterator[tuple[Evaluated, Differences]]:
    """Yield every run after the first with its differences to it."""
    differences = comparison.class_differences if by_class else comparison.differences
    return zip(comparison.runs[1:], differences, strict=True)


def _run_columns(comparison: Comparison, mark: str = "") -> list[Column]:
    """Return a column for the first run, and for every other its own metrics and its differences under its name."""
    interval = (
        (f"{100 * comparison.confidence:g}% interval{mark}", "above 0") if comparison.has_intervals else ()
    )
    names = ("points", "difference", *interval)
    first, *others = [run.name for run in comparison.runs]
    return [Column(first), *(Column(name, other) for other in others for name in names)]


def _difference(found: Difference | None, comparison: Comparison, alone: bool = False) -> tuple[str, ...]:
    """Return the cells of a difference.

    Args:
        alone: no other was looked at for the same conclusion: an interval that does not hold 0 is coloured.
    """
    value = signed(None if found is None else found.value)
    if not comparison.has_intervals:
        return (value,)
    if found is None or found.low is None or found.high is None or found.above_zero is None:
        return (value, "-", "-")
    # Of what the reader sees: an end that is printed as 0 is no end above 0.
    low, high = round(100 * found.low, 2), round(100 * found.high, 2)
    tone = "better" if low > 0 else "worse" if high < 0 else ""
    return (value, span(found.low, found.high).toned(tone if alone else ""), f"{100 * found.above_zero:.1f}%")


def _kind(found: Difference | None, alone: bool) -> str | None:
    """Return what an interval is good for; None where there is none."""
    if found is None or found.low is None:
        return None
    return "headline" if alone else "uncorrected"


def _notes(comparison: Comparison) -> tuple[str, ...]:
    """Return what stands below a table."""
    if not comparison.has_intervals:
        return _remarks(comparison)
    return (
        f"Differences are to {comparison.runs[0].name}. Intervals and the share above 0 come from a paired "
        f"bootstrap over images ({comparison.resamples:,} resamples, seed {comparison.seed}): what other images "
        "could have shown.",
        f"{_UNCORRECTED.strip()} Not corrected for how many metrics and classes there are: some of these intervals "
        f"leave out 0 by chance. {HEADLINE} is the one to conclude from.",
        *_remarks(comparison),
    )


def _remarks(comparison: Comparison) -> tuple[str, ...]:
    """Return what any reader of the differences should know, a program's too."""
    if len(comparison.runs) < 2:
        return comparison.notes
    several = len(comparison.runs) - 1
    lines = [*dict.fromkeys(_related(comparison)), _OTHER_SEEDS]
    if several > 1 and comparison.has_intervals:
        lines.append(
            f"{several} runs are compared to {comparison.runs[0].name}, each for itself: the more runs, the more "
            "likely some interval leaves out 0 by chance."
        )
    return (*lines, *comparison.notes)


def _related(comparison: Comparison) -> Iterator[str]:
    """Yield what each run has in common with the first, where that changes what the difference means."""
    first = comparison.runs[0].name
    for run, relation in zip(comparison.runs[1:], comparison.relations, strict=True):
        both, keys = f"{run.name} and {first}", relation.keys
        if relation.same:
            why = f", although their specs differ in {listed(keys, len(keys))}" if keys else ""
            yield f"{both} have the same metrics to the last digit{why}."
        elif relation.only_seed:
            yield f"{both} differ in nothing but the seed: their difference is seed noise, not the effect of a setting."
        elif keys == ():
            yield f"{both} have the same spec, seed included: they differ by chance in the computation."
