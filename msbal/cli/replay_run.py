"""What `msbal replay` does once its arguments are read; imports torch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from msbal.engine import IntervalRecord
from msbal.errors import DataError, SpecError, suggest
from msbal.records import RunDirectory, open_losses, to_json
from msbal.records.atomic import replace_with
from msbal.records.replay import replay
from msbal.spec import BalanceSpec, apply_override, balance_models
from msbal.spec.explain import explain


def replay_file(source: Path, section: dict[str, Any], overrides: Sequence[str], output: Path | None) -> None:
    """Replay a CSV or a run's own losses; records to `output` and a summary, or records to stdout."""
    path = RunDirectory(source).losses_file if source.is_dir() else source
    if source.is_dir() and not path.exists():
        raise SpecError(str(source), "no losses.csv in it", "a run with log.per_iteration, or a CSV file")
    balance = _balance(section, overrides)
    if output is not None and output.is_dir():
        raise SpecError("--output", f"{output} is a folder", "a file")
    seen = _Summary()
    records = seen.watch(_records(path, balance))
    # The first record is asked for before anything is written: most mistakes show there.
    first = next(records, None)
    if first is None:
        raise SpecError(
            "balance.interval", f"{balance.interval} iterations, more than {path} has", "at most the file's rows",
            "shorten the interval with --interval",
        )  # fmt: skip

    def write(file: Any) -> None:
        file.write(to_json(first) + "\n")
        file.writelines(to_json(record) + "\n" for record in records)

    if output is None:
        write(sys.stdout)
        return

    def write_file(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write(file)

    try:
        replace_with(output, write_file)
    except OSError as error:
        raise SpecError("--output", f"{output}: {error.strerror}", "a writable file") from error
    seen.print(Console(), output)


def _balance(section: dict[str, Any], overrides: Sequence[str]) -> BalanceSpec:
    for override in overrides:
        apply_override(section, override.removeprefix("balance."))
    models = balance_models()
    if section["strategy"] not in models:
        raise SpecError(
            "--strategy", f"`{section['strategy']}` is unknown", fix=suggest(str(section["strategy"]), models)
        )
    model = models[section["strategy"]]
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise explain(error, "replay", model) from error


def _records(path: Path, balance: BalanceSpec) -> Iterator[IntervalRecord]:
    for losses in open_losses(path):
        if len(losses.levels) < 2:
            raise DataError(
                f"{path}:1", f"one level, {losses.levels[0]}", "at least two columns, one a level"
            )
        try:
            reports = replay(
                losses,
                balance.make_strategy(),
                balance.interval,
                balance.seed or 0,
                balance.epsilon,
                balance.rescale,
            )
            for report in reports:
                yield report.record
        except ValueError as error:
            raise SpecError("balance", f"{error} The file has {', '.join(losses.levels)}") from error


class _Summary:
    """Counts while the records go by: a long replay is never held in memory."""

    def __init__(self) -> None:
        self.intervals = 0
        self.actions: Counter[str] = Counter()
        self.weights: dict[str, dict[str, float]] = {}
        self.last: dict[str, IntervalRecord] = {}

    def watch(self, records: Iterator[IntervalRecord]) -> Iterator[IntervalRecord]:
        for record in records:
            self.intervals += 1
            self.actions[record.action] += 1
            sums = self.weights.setdefault(record.group, dict.fromkeys(record.levels, 0.0))
            for level, weight in zip(record.levels, record.weights, strict=True):
                sums[level] += weight
            self.last[record.group] = record
            yield record

    def print(self, console: Console, output: Path) -> None:
        for group, record in self.last.items():
            table = Table(title=f"{record.interval} intervals" + (f" of {group}" if group != "all" else ""))
            for name in ("level", "mean weight", "last weight", "last loss", "last variance"):
                table.add_column(name, justify="left" if name == "level" else "right")
            for i, level in enumerate(record.levels):
                table.add_row(
                    level, f"{self.weights[group][level] / record.interval:.4f}", f"{record.weights[i]:.4f}",
                    f"{record.loss[i]:.4g}", f"{record.variance[i]:.4g}",
                )  # fmt: skip
            console.print(table)
            for action, probability in record.probabilities.items():
                console.print(
                    f"  {action:<10} taken {self.actions[action]:>6}  last probability {probability:.4f}"
                )
        console.print(f"{self.intervals} records in {output}", soft_wrap=True)
