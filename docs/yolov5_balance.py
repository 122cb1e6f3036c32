"""Write the tables of docs/yolov5-balance.md: ``python docs/yolov5_balance.py [--train DATA.yaml] [--runs FILE]``.

With ``--train``, first train yolov8n once with every arm and seed on a data set in ultralytics' format, one run after
another, and keep a line of each in a file, by default ``docs/data/yolov5-balance/runs.jsonl``; runs that are there are
not repeated. Without, the tables are those of what is kept. Those of another file are printed, and the page stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.paired import paired_tests
from msbal.ablation.statistics.samples import pair, summarize
from msbal.metric_text import signed, span
from msbal.records.atomic import write_text

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "yolov5-balance.md"
RUNS = DOCS / "data" / "yolov5-balance" / "runs.jsonl"
BEGIN, END = "<!-- measured: written by docs/yolov5_balance.py -->\n", "<!-- end of what was measured -->\n"

BASELINE = "equal"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    BASELINE: ("equal", {}),
    "stride, q = -2": ("stride", {"q": -2.0}),
    "4, 1, 0.4": ("fixed", {"weights": (4.0, 1.0, 0.4), "rescale": True}),
    "autobalance": ("autobalance", {}),
    "rlo": ("rlo", {"rescale": True}),
}
"""The strategy of each arm, and its hyperparameters. All weights sum to K: none has another learning rate."""
TRAINING = {
    "imgsz": 128, "epochs": 40, "batch": 8, "optimizer": "AdamW", "lr0": 0.002, "cos_lr": True, "warmup_epochs": 1,
    "mosaic": 0.0,
}  # fmt: skip
LAST = 0.2
"""The part of a run, at its end, whose losses and weights are averaged."""


class Run(NamedTuple):
    """What is kept of a run.

    Attributes:
        ap, ap50: of the last epoch's weights (their moving average, as ultralytics validates), 0 to 1.
        loss: each level's, unweighted, over the run's last part; `terms` the same by term.
        weights: each level's, over that part.
        positives: each level's, of all.
    """

    arm: str
    seed: int
    data: str
    images: int
    versions: Mapping[str, str]
    levels: Sequence[str]
    ap: float
    ap50: float
    loss: Sequence[float]
    terms: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    positives: Sequence[float]


def kept(path: Path = RUNS) -> list[Run]:
    """Return the runs that are kept."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Run(**json.loads(line)) for line in lines]


# -- training ----------------------------------------------------------------------------------------------------


def train(data: Path, arm: str, seed: int) -> Run:
    """Train one arm with one seed."""
    import torch
    from ultralytics import YOLO

    from msbal_ultralytics import balance

    torch.set_num_threads(1)
    strategy, options = ARMS[arm]
    found: dict[str, Any] = {}

    def begin(trainer: Any) -> None:
        found["batches"] = len(trainer.train_loader)
        found["images"] = len(trainer.train_loader.dataset)
        found["balanced"] = balance(trainer.model, strategy, interval=found["batches"], seed=seed, **options)

    def epoch_ended(trainer: Any) -> None:
        if trainer.epoch + 1 == trainer.epochs:
            found.setdefault("metrics", dict(trainer.metrics))  # the first: that of the last epoch's weights

    with tempfile.TemporaryDirectory() as folder:
        model = YOLO("yolov8n.yaml")
        model.add_callback("on_train_start", begin)
        model.add_callback("on_fit_epoch_end", epoch_ended)
        model.train(
            data=str(data), seed=seed, device="cpu", amp=False, workers=0, cache="ram", plots=False, val=False,
            save=False, verbose=False, project=folder, name="run", **TRAINING,
        )  # fmt: skip
    records = found["balanced"].drain()
    last = records[-max(1, round(LAST * len(records))) :]

    def mean(rows: Sequence[Sequence[float]]) -> list[float]:
        return [float(f"{value:.4g}") for value in _columns(rows)]

    batches, metrics = found["batches"], found["metrics"]
    return Run(
        arm, seed, data.parent.name, found["images"],
        {name: metadata.version(name) for name in ("ultralytics", "torch")},
        records[0].levels,
        round(float(metrics["metrics/mAP50-95(B)"]), 5),
        round(float(metrics["metrics/mAP50(B)"]), 5),
        mean([[x / batches for x in record.loss] for record in last]),
        {t: mean([[x / batches for x in record.loss_by_term[t]] for record in last]) for t in last[0].loss_by_term},
        # Those that held in an interval; a record's own `weights` hold in the next.
        mean([record.previous_weights for record in last]),
        mean([record.positives for record in last if record.positives is not None]),
    )  # fmt: skip


def train_all(data: Path, seeds: Sequence[int], path: Path) -> None:
    """Train what is not kept yet, seed by seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for arm in ARMS:
            if not any((run.arm, run.seed) == (arm, seed) for run in kept(path)):
                run = train(data, arm, seed)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run._asdict()) + "\n")
                print(f"{arm}, seed {seed}: AP {run.ap}, weights {run.weights}", file=sys.stderr, flush=True)


# -- the page ----------------------------------------------------------------------------------------------------


def page(text: str, runs: Sequence[Run]) -> str:
    """Return the page with the tables of these runs."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE.name} has lost the lines that enclose its tables"
    return before + begin + measured(runs) + end + after


def complete(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each arm that has all seeds; the others wait for theirs."""
    seeds = {run.seed for run in runs}
    by_arm = {arm: sorted((run for run in runs if run.arm == arm), key=lambda run: run.seed) for arm in ARMS}
    return {arm: found for arm, found in by_arm.items() if {run.seed for run in found} == seeds}


def measured(runs: Sequence[Run]) -> str:
    """Return what was measured, in Markdown."""
    by_arm = complete(runs)
    arms = list(by_arm)
    levels, first, plain = runs[0].levels, runs[0], by_arm[BASELINE]
    seeds = sorted({run.seed for run in runs})
    versions = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    settings = ", ".join(f"`{key}={value}`" for key, value in TRAINING.items())
    aps = {arm: summarize({run.seed: run.ap for run in by_arm[arm]}) for arm in arms}
    pairs = {Comparison(arm, BASELINE): pair(aps[BASELINE], aps[arm]) for arm in arms if arm != BASELINE}
    tests = paired_tests(pairs)
    count = sum(map(len, by_arm.values()))
    lines = [
        f"{count} runs of yolov8n from scratch, {first.images} photographs, {len(seeds)} seeds an arm: {settings}; "
        f"{versions}. Losses and weights are means over the last {LAST:.0%} of each run.",
        "",
        *_table(
            ("arm", *(f"weight of {level}" for level in levels), *(f"share of {level}" for level in levels)),
            [
                (arm, *(f"{w:.3f}" for w in _mean(by_arm[arm], "weights")), *_shares(_mean(by_arm[arm], "loss")))
                for arm in arms
            ],
        ),
        "",
        f"Shares are of the unweighted loss. By term, with `{BASELINE}`:",
        "",
        *_table(
            ("term", *(f"share of {level}" for level in levels)),
            [
                *((term, *_shares(_columns([run.terms[term] for run in plain]))) for term in first.terms),
                ("anchors with a box", *_shares(_mean(plain, "positives"))),
            ],
        ),
        "",
        *_table(
            ("arm", "AP50", "AP", f"AP minus that of `{BASELINE}`", "its 95 % interval", "p"),
            [
                (
                    arm,
                    f"{100 * statistics.fmean(run.ap50 for run in by_arm[arm]):.1f}",
                    _spread(aps[arm]),
                    *_difference(tests.get(Comparison(arm, BASELINE))),
                )
                for arm in arms
            ],
        ),
        "",
        _verdict(tests, len(pairs), len(seeds)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _mean(runs: Sequence[Run], field: str) -> list[float]:
    return _columns([getattr(run, field) for run in runs])


def _columns(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each column."""
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def _shares(values: Sequence[float]) -> list[str]:
    return [f"{100 * value / sum(values):.1f} %" for value in values]


def _spread(summary: Any) -> str:
    return f"{100 * summary.mean:.2f}" + (f" ± {100 * summary.sd:.2f}" if summary.sd is not None else "")


def _difference(tested: Any) -> tuple[str, str, str]:
    if tested is None:
        return "", "", ""
    return signed(tested.mean), span(*tested.interval), f"{tested.p:.2f}"


def _verdict(tests: Mapping[Comparison, Any], planned: int, seeds: int) -> str:
    found = [f"`{each.arm}`" for each, tested in tests.items() if tested.p < 0.05]
    said = f"a difference is shown for {', '.join(found)}" if found else "no difference from `equal` is shown"
    return (
        f"Intervals and p are corrected for the {planned} comparisons (Bonferroni, Holm), paired by seed. With {seeds} "
        f"seeds {said}; the true one may be anywhere in its interval."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, metavar="DATA.yaml", help="train what is not kept yet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="FILE", help="where a line of each run is kept"
    )
    options = parser.parse_args()
    if options.train:
        train_all(options.train.resolve(), options.seeds, options.runs)
    if options.runs == RUNS:
        write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), kept()))
    else:
        print(measured(kept(options.runs)), end="")


if __name__ == "__main__":
    main()
