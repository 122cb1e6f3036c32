"""Write the tables and figures of docs/imbalances.md: ``python docs/imbalances.py [--keep RUNS [--train BCCD COCO]]``.

With ``--train``, first train what is missing in the folder RUNS, one run after another; with ``--keep``, put into
``docs/data/imbalances`` what is needed of all runs there. Without, the page is that of what is kept.

Shapes: I intervals, K levels, B batches.
"""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from msbal.engine.gradients import SHARED, cosines, norms
from msbal.engine.statistics import Array
from msbal.plotting import GroupSeries, RunSeries, describe_panels, draw_figure, read_runs, save_figure
from msbal.records import RunDirectory, from_json, open_losses, read_metrics, read_starts, to_json
from msbal.records.atomic import write_text

DOCS = Path(__file__).resolve().parent
PAGE, DATA = DOCS / "imbalances.md", DOCS / "data" / "imbalances"
RUNS, BATCHES = "runs.jsonl", "batches.jsonl"
RECORDS, LOSSES = "intervals.jsonl.xz", "losses.jsonl.xz"
BETWEEN = "\u202f·\u202f"  # the numbers of two levels, which stay on one line
PHASES = {
    "1 to 10": slice(0, 1),
    "11 to 30": slice(1, 3),
    "31 to 100": slice(3, 10),
    "101 to 300": slice(10, 30),
}
BLOCK = "<!-- measured: {} -->\n", "<!-- end of what was measured -->\n"

DATA_SETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bccd": ("BCCD", {"format": "voc", "train": {"sets": ["train"]}, "val": {"sets": ["val", "test"]}}),
    "coco": (
        "COCO",
        {
            "format": "coco",
            "train": {"annotations": "annotations/instances_train2017.json", "images": "train2017"},
            "val": {"annotations": "annotations/instances_val2017.json", "images": "val2017"},
        },
    ),
}
MODELS = {"retinanet": "RetinaNet", "fcos": "FCOS"}
SPEC: Mapping[str, Any] = {
    "backend": "torchvision",
    "model": {
        "backbone": "efficientnet_lite0", "pretrained": True, "trainable_layers": 3, "fpn_norm": "gn",
        "fpn_channels": 64, "head_convs": 2, "min_size": 160, "max_size": 267,
    },
    "schedule": {
        "iterations": 300, "batch_size": 4, "optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.01},
        "scheduler": "cosine", "warmup": 30, "clip_norm": 10.0,
    },
    "balance": {"strategy": "equal", "interval": 10, "measure": 10},
}  # fmt: skip
PLANNED = list(itertools.product(DATA_SETS, MODELS, range(3)))
"""Data set, model, seed."""

KEYS = ("data", "model", "seed")

DIGITS = 4
START, END = slice(0, 1), slice(-10, None)
"""The intervals that count as the start and the end of a run: its first, and the last third."""
MANY = 6
"""Batches whose gradients are compared with each other."""
CLEAR = 0.2
"""The part of signal in a level's gradient from which on six batches tell where it points."""
PARTS = ("backbone", "head")
FEWEST = 0.01
"""Of all positives: a level with fewer has a gradient of its background, and no weight is found for it."""
TOP = 2  # levels that AVW amplifies
INTERVALS = (10, 20, 30, 50)


@dataclass(frozen=True)
class Run:
    """A kept run.

    Attributes:
        ap, ap50: 0 to 1.
        about: images, boxes, and the versions of packages.
        losses: ``[iterations, K]``.
    """

    data: str
    model: str
    seed: int
    ap: float
    ap50: float
    about: Mapping[str, Any]
    series: GroupSeries
    losses: Array

    @property
    def setup(self) -> str:
        return f"{MODELS[self.model]}, {DATA_SETS[self.data][0]}"


# -- training, and what is kept of it ----------------------------------------------------------------------------


def train(folder: Path, roots: Mapping[str, Path]) -> None:
    """Train what is missing in `folder`."""
    for data, model, seed in PLANNED:
        out = folder / f"{data}-{model}-{seed}"
        if (out / "metrics.json").exists():
            continue
        spec = {**SPEC, "data": {**DATA_SETS[data][1], "root": str(roots[data])}, "seed": seed}
        spec["model"] = {**SPEC["model"], "name": model}
        file = folder / f"{out.name}.yaml"
        write_text(file, yaml.safe_dump(spec))
        command = [sys.executable, "-m", "msbal", "train", str(file), "--quiet", "--force", "-o", str(out)]
        subprocess.run(command, check=True)


def keep(folder: Path) -> None:
    """Put what the page needs of the finished runs in `folder` into `DATA`, and compare batches for seed 0."""
    DATA.mkdir(parents=True, exist_ok=True)
    runs, records, losses, batches = [], [], [], []
    for key in PLANNED:
        run = RunDirectory(folder / "-".join(map(str, key)))
        if not (run.path / "metrics.json").exists():
            continue
        final = read_metrics(run)["final"]
        start = read_starts(run)[0]
        about = {
            "images": start["data"]["images"],
            "boxes": start["data"]["boxes"],
            "packages": start["packages"],
        }
        line = dict(zip(KEYS, key, strict=True))
        runs.append({**line, "ap": round(final["AP"], 5), "ap50": round(final["AP50"], 5), "about": about})
        text = run.intervals_file.read_text(encoding="utf-8")
        (written,) = open_losses(run.losses_file)
        totals = [np.sum(terms, axis=0).tolist() for terms in written.rows()]
        losses.append({**line, "losses": _rounded(totals)})
        records += [{**line, "record": _rounded(json.loads(row))} for row in text.splitlines()]
        if key[2] == 0:
            compared = run.path / "batches.json"
            if not compared.exists():
                write_text(compared, json.dumps(list(compare_batches(run))))
            batches += [
                {**line, **_rounded(found)} for found in json.loads(compared.read_text(encoding="utf-8"))
            ]
    write_text(DATA / RUNS, _lines(runs))
    write_text(DATA / BATCHES, _lines(batches))
    for name, rows in ((RECORDS, records), (LOSSES, losses)):
        (DATA / name).write_bytes(lzma.compress(_lines(rows).encode(), preset=9))


def compare_batches(run: RunDirectory) -> Iterator[dict[str, Any]]:
    """Yield, of the model at its start and at its end, how the levels' gradients agree over batches.

    One Gramian over all levels of all batches has every product. Those of different batches estimate the product of
    the expected gradients without bias; those of one batch have its noise as well.
    """
    import torch

    from msbal.diagnosis.measure import choose_batches
    from msbal.engine.gradients import LevelGradients
    from msbal.spec import load_spec
    from msbal.training import prepare

    torch.set_num_threads(1)
    spec = load_spec(run.path / "spec.yaml")
    plan = prepare(spec)
    batches = choose_batches(plan.train, MANY, SPEC["schedule"]["batch_size"], spec.seed)
    for when in ("start", "end"):
        if when == "end":
            plan.detector.load(sorted(run.checkpoints.glob("*[0-9].pth"))[-1])
        split = [plan.detector.split_losses(plan.detector.batch(plan.train, each)) for each in batches]
        losses = [found.groups["all"].values.sum(dim=0) for found in split]
        measured = LevelGradients(split[0].parts["all"]).measure(torch.cat(losses))
        for part in PARTS:
            b, k = len(losses), len(losses[0])
            products = measured[part].reshape(b, k, b, k)
            same = np.einsum("bkbl->kl", products)
            expected = (products.sum(axis=(0, 2)) - same) / (b * (b - 1))
            yield {"when": when, "part": part, "batch": (same / b).tolist(), "expected": expected.tolist()}


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def kept() -> list[Run]:
    """Return the runs that are kept."""
    texts: dict[tuple[Any, ...], str] = {}
    with lzma.open(DATA / RECORDS, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            key = tuple(row[name] for name in KEYS)
            texts[key] = texts.get(key, "") + to_json(from_json(json.dumps(row["record"]))) + "\n"
    with lzma.open(DATA / LOSSES, "rt", encoding="utf-8") as lines:
        losses = {tuple(row[name] for name in KEYS): row["losses"] for row in map(json.loads, lines)}
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for line in (DATA / RUNS).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            key = tuple(row[name] for name in KEYS)
            file = Path(folder) / "intervals.jsonl"
            file.write_text(texts[key], encoding="utf-8")
            runs.append(Run(**row, series=read_runs([file])[0].groups[0], losses=np.array(losses[key])))
    return runs


def setups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs by model and data set."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.setup, []).append(run)
    return found


# -- what is measured --------------------------------------------------------------------------------------------


def norm(run: Run, part: str) -> Array:
    return run.series.gradient_norm[part]


def share(values: Array, when: slice) -> Array:
    """Return each level's part of the sum, of values ``[I, K]`` averaged over intervals."""
    mean = values[when].mean(axis=0)
    return np.asarray(mean / mean.sum())


def same_level(run: Run, part: str) -> float:
    """Return in how many intervals the level with the largest loss has the largest gradient."""
    return float((run.series.loss.argmax(axis=1) == norm(run, part).argmax(axis=1)).mean())


def top(values: Array) -> list[set[int]]:
    """Return the two levels with the largest value in each interval; the finer ones where they are equal."""
    return [set(row[:TOP].tolist()) for row in np.argsort(-values, axis=1, kind="stable")]


def overlap(one: Sequence[set[int]], other: Sequence[set[int]]) -> float:
    return statistics.fmean(len(a & b) for a, b in zip(one, other, strict=True))


def signal_of(batch: Array, expected: Array) -> Array:
    """Return how much of the squared norm of a batch's gradient is that of the expected one, by level.

    Args:
        batch, expected: Gramians ``[K, K]``, as of `compare_batches`. An estimate of a small part may be negative.
    """
    return np.asarray(np.maximum(np.diagonal(expected) / np.maximum(np.diagonal(batch), 1e-300), 0.0))


def reductions(losses: Array, interval: int) -> Array:
    """Return eq 4's rates ``[I, K]`` for the losses ``[iterations, K]`` in intervals of that length."""
    cut = losses[: len(losses) // interval * interval]
    variance = cut.reshape(-1, interval, losses.shape[1]).var(axis=1, ddof=1)  # eq 3
    before = np.vstack([np.ones_like(variance[:1]), variance[:-1]])
    return np.asarray((before - variance) / (before + 1e-5))


def kept_picks(losses: Array, interval: int) -> list[int]:
    """Return how many picks of AVW stay, for each interval but the first two: r_1 is no rate of two variances."""
    picked = top(reductions(losses, interval))[1:]
    return [len(before & now) for before, now in itertools.pairwise(picked)]


def noise(interval: int) -> Array:
    """Return losses of five levels that are nothing but noise, over 5,000 intervals."""
    return np.random.default_rng(1).normal(size=(5000 * interval, 5))


def weights_for(values: Array) -> Array:
    """Return the weights, which sum to K, with which all values would be equal."""
    return np.asarray(len(values) / values / (1 / values).sum())


# -- the page ----------------------------------------------------------------------------------------------------


def shares_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for setup, found in setups(runs).items():
        for name, when in (("start", START), ("end", END)):
            columns = [
                [run.series.positives for run in found], [run.series.loss for run in found],
                *([norm(run, part) for run in found] for part in PARTS),
            ]  # fmt: skip
            means = [np.mean([share(values, when) for values in each], axis=0) for each in columns]
            rows.append((setup, name, *(_percent(mean) for mean in means)))
    heads = ("", "when", "positives", "loss", *(f"gradient, {part}" for part in PARTS))
    return _table(heads, _named_once(rows), text=2)


def premise_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for setup, found in setups(runs).items():
        same = [_range([same_level(run, part) for run in found]) for part in PARTS]
        each = [share(norm(run, "backbone"), END) / share(run.series.loss, END) for run in found]
        rows.append((setup, *same, BETWEEN.join(f"{ratio:.2f}" for ratio in np.mean(each, axis=0))))
    heads = (
        "",
        *(f"same level, {part}" for part in PARTS),
        "backbone gradient share / loss share at the end",
    )
    return _table(heads, rows)


def conflict_table() -> list[str]:
    cells: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    clear = []
    for line in (DATA / BATCHES).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        batch, expected = np.array(row["batch"]), np.array(row["expected"])
        signal = signal_of(batch, expected)
        large = norms(batch) > FEWEST * norms(batch).max()
        near = cosines(batch)
        in_batch = [near[i, j] for i, j in itertools.combinations(np.flatnonzero(large), 2)]
        setup, when, part = f"{MODELS[row['model']]}, {DATA_SETS[row['data']][0]}", row["when"], row["part"]
        known = "·".join(f"{100 * s:.0f}" if it else "-" for s, it in zip(signal, large, strict=True))
        cells.setdefault((setup, when), {})[part] = known, _range(in_batch, "{:+.2f}")
        clear += [
            f"{expected[i, j] / np.sqrt(expected[i, i] * expected[j, j]):+.2f} for P{i + 3} and P{j + 3} of {setup} "
            f"({when}, {part})"
            for i, j in itertools.combinations(np.flatnonzero(large & (signal >= CLEAR)), 2)
        ]
    heads = ("", "when", *(f"{what}, {part}" for what in ("signal", "cosines in a batch") for part in PARTS))
    rows = [(*key, *(found[part][n] for n in (0, 1) for part in PARTS)) for key, found in cells.items()]
    return [
        *_table(heads, _named_once(rows), text=2),
        "",
        f"Cosines of expected gradients, where both have {100 * CLEAR:.0f} % of signal: {'; '.join(clear)}.",
    ]


def opposed(runs: Sequence[Run], when: slice) -> tuple[float, int, int]:
    """Return the pair of levels with the lowest cosine in a batch, a mean over seeds and intervals, and that cosine."""
    shared = np.concatenate([norm(run, SHARED)[when] for run in runs])
    large = (shared > FEWEST * shared.max(axis=1, keepdims=True)).all(axis=0)
    near = np.concatenate([run.series.gradient_cosine[when] for run in runs]).mean(axis=0)
    return min(
        (float(near[i, j]), i, j) for i, j in itertools.combinations(np.flatnonzero(large).tolist(), 2)
    )


def opposed_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for setup, found in setups(runs).items():
        lowest = [opposed(found, when) for when in PHASES.values()]
        rows.append((setup, *(f"{cosine:+.2f} (P{i + 3}, P{j + 3})" for cosine, i, j in lowest)))
    return _table(("iterations", *PHASES), rows)


def picks_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for setup, found in setups(runs).items():
        picked = [
            top(run.series.variance_reduction)[1:] for run in found
        ]  # r_1 compares with a made-up variance
        counts = np.array([[sum(k in two for two in each) for k in range(5)] for each in picked]).sum(axis=0)
        rows.append((
            setup,
            _percent(counts / counts.sum()),
            *(
                _range([overlap(each, top(values(run))[1:]) for each, run in zip(picked, found, strict=True)], "{:.2f}")
                for values in (
                    lambda run: norm(run, "backbone"), lambda run: norm(run, "head"), lambda run: run.series.loss
                )
            ),
        ))  # fmt: skip
    heads = (
        "", "picks by level, per cent, P3 to P7", "with the largest gradient, backbone", "head",
        "with the largest loss",
    )  # fmt: skip
    return _table(heads, rows)


def repeats_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for interval in INTERVALS:
        stayed = [count for run in runs for count in kept_picks(run.losses, interval)]
        error = statistics.stdev(stayed) / len(stayed) ** 0.5
        of_noise = statistics.fmean(kept_picks(noise(interval), interval))
        rows.append((
            str(interval), str(len(stayed)), f"{statistics.fmean(stayed):.2f} ± {error:.2f}", f"{of_noise:.2f}", "0.80"
        ))  # fmt: skip
    return _table(("interval", "decisions", "picks that stay", "those of noise", "those of chance"), rows)


def equal_table(runs: Sequence[Run]) -> list[str]:
    rows = []
    for setup, found in setups(runs).items():
        positives = np.mean([share(run.series.positives, END) for run in found], axis=0)
        usable = positives >= FEWEST
        for part in PARTS:
            mean = np.mean([norm(run, part)[END].mean(axis=0) for run in found], axis=0)
            weights = iter(weights_for(mean[usable]))
            cells = [f"{next(weights):.2f}" if it else "-" for it in usable]
            rows.append((setup, part, BETWEEN.join(cells)))
    return _table(("", "gradient on the", "weights for equal norms, P3 to P7"), _named_once(rows), text=2)


def runs_text(runs: Sequence[Run]) -> list[str]:
    lines = []
    for data, (name, _) in DATA_SETS.items():
        scores = []
        for model, of in MODELS.items():
            mine = [run for run in runs if (run.data, run.model) == (data, model)]
            ap, ap50 = (
                100 * statistics.fmean(values) for values in zip(*((r.ap, r.ap50) for r in mine), strict=True)
            )
            seeds = f"{len(mine)} {'seed' if len(mine) == 1 else 'seeds'}"
            scores.append(f"{of} ({seeds}) AP {ap:.1f}, AP50 {ap50:.1f}")
        about = next(run.about for run in runs if run.data == data)
        lines.append(
            f"- **{name}**: {about['images']} images with {about['boxes']:,} boxes to train on. At the end "
            f"{'; '.join(scores)}."
        )
    return lines


def _percent(values: Array) -> str:
    return "·".join(f"{100 * value:.0f}" for value in values)


def _named_once(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave a row's name out where the row before has it."""
    before = [("",), *rows[:-1]]
    return [("" if row[0] == last[0] else row[0], *row[1:]) for last, row in zip(before, rows, strict=True)]


def _range(values: Sequence[float], form: str = "{:.0%}") -> str:
    low, high = (form.format(value).replace("%", " %") for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> list[str]:
    lines = [heads, ["---"] * text + ["---:"] * (len(heads) - text), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def page(text: str, runs: Sequence[Run]) -> str:
    """Return the page with what was measured in these runs."""
    blocks = {
        "runs": runs_text(runs), "shares": shares_table(runs), "premise": premise_table(runs),
        "conflicts": conflict_table(), "opposed": opposed_table(runs), "picks": picks_table(runs),
        "repeats": repeats_table(runs), "equal norms": equal_table(runs),
    }  # fmt: skip
    for name, lines in blocks.items():
        before, begin, rest = text.partition(BLOCK[0].format(name))
        _, end, after = rest.partition(BLOCK[1])
        assert begin and end, f"{PAGE.name} has lost the lines that enclose `{name}`"
        text = before + begin + "\n".join(lines) + "\n" + end + after
    return text


def draw(runs: Sequence[Run], images: Path) -> list[Path]:
    """Draw a figure for each data set: RetinaNet beside FCOS, with seed 0."""
    drawn = []
    for data in DATA_SETS:
        found = [run for run in runs if (run.data, run.seed) == (data, 0)]
        series = [RunSeries(run.setup, "", (run.series,)) for run in found]
        wanted = ("share", "gradient-backbone", "gradient-head")
        rows = [r for r in describe_panels(series, ["share", "gradients"]) if r.panels[0].key in wanted]
        figure = draw_figure(series, rows, style="paper")
        drawn.append(save_figure(figure, images / f"imbalances-{data}.svg", "paper"))
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="RUNS", help="the folder of the runs")
    parser.add_argument(
        "--train", type=Path, nargs=2, metavar=("BCCD", "COCO"), help="the data sets' folders"
    )
    options = parser.parse_args()
    if options.train:
        train(options.keep, dict(zip(DATA_SETS, options.train, strict=True)))
    if options.keep:
        keep(options.keep)
    runs = kept()
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), runs))
    draw(runs, DOCS / "images")


if __name__ == "__main__":
    main()
