"""`msbal replay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msbal.cli import completion
from msbal.cli.options import SetOption

if TYPE_CHECKING:
    from rich.console import Console

    from msbal.engine import IntervalRecord
    from msbal.spec import BalanceSpec


def command(
    losses: Annotated[
        Path,
        typer.Argument(
            metavar="LOSSES",
            help="A CSV with one column a level, finest first, and one row an iteration; or a run.",
            autocompletion=completion.losses,
        ),
    ],
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            "-s",
            help="avw, min_loss, max_loss, equal, rlo, ...",
            autocompletion=completion.strategies,
        ),
    ] = "rlo",
    interval: Annotated[int, typer.Option("--interval", help="Iterations per interval (alpha).")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the strategy's draws.")] = 0,
    amplification: Annotated[
        float | None, typer.Option(help="How much a level is amplified (lambda of eq 5).")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="How many levels are amplified.")] = None,
    step: Annotated[
        float | None, typer.Option(help="How far a reward moves a probability (gamma of eq 7).")
    ] = None,
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file for the records, JSON lines; by default stdout."),
    ] = None,
) -> None:
    """Run a strategy over recorded losses and write the records that it would have written."""
    import sys

    from rich.console import Console

    from msbal.errors import SpecError
    from msbal.records import RunDirectory, to_json
    from msbal.records.atomic import replace_with

    source = RunDirectory(losses).losses_file if losses.is_dir() else losses
    if losses.is_dir() and not source.exists():
        raise SpecError(str(losses), "no losses.csv in it", "a run with log.per_iteration, or a CSV file")
    given = {"amplification": amplification, "top_k": top_k, "step": step}
    section = {key: value for key, value in given.items() if value is not None}
    balance = _balance({"strategy": strategy, "interval": interval, "seed": seed, **section}, set_ or [])
    if output is not None and output.is_dir():
        raise SpecError("--output", f"{output} is a folder", "a file")
    seen = _Summary()
    records = seen.watch(_records(source, balance))
    # The first record comes before anything is written, as most mistakes show there.
    first = next(records, None)
    if first is None:
        raise SpecError(
            "balance.interval", f"{balance.interval} iterations, more than {source} has",
            "at most the file's rows", "shorten the interval with --interval",
        )  # fmt: skip

    def write(file: Any) -> None:
        file.write(to_json(first) + "\n")
        file.writelines(to_json(record) + "\n" for record in records)

    def write_file(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write(file)

    if output is None:
        write(sys.stdout)
        return
    try:
        replace_with(output, write_file)
    except OSError as error:
        raise SpecError("--output", f"{output}: {error.strerror}", "a writable file") from error
    seen.print(Console(), output)


def _balance(section: dict[str, Any], overrides: Sequence[str]) -> BalanceSpec:
    from pydantic import ValidationError

    from msbal.errors import SpecError, suggest
    from msbal.spec import apply_override, balance_models
    from msbal.spec.explain import explain

    for override in overrides:
        apply_override(section, override.removeprefix("balance."))
    models, strategy = balance_models(), str(section["strategy"])
    if strategy not in models:
        raise SpecError("--strategy", f"`{strategy}` is unknown", fix=suggest(strategy, models))
    try:
        return models[strategy].model_validate(section)
    except ValidationError as error:
        raise explain(error, "replay", models[strategy]) from error


def _records(path: Path, balance: BalanceSpec) -> Iterator[IntervalRecord]:
    from msbal.errors import DataError, SpecError
    from msbal.records import open_losses
    from msbal.records.replay import replay

    for losses in open_losses(path):
        if len(losses.levels) < 2:
            raise DataError(
                f"{path}:1", f"one level, {losses.levels[0]}", "at least two columns, one a level"
            )
        try:
            yield from (
                report.record
                for report in replay(
                    losses, balance.make_strategy(), balance.interval, balance.seed or 0, balance.epsilon,
                    balance.rescale,
                )
            )  # fmt: skip
        except ValueError as error:
            fix = f"lower it: --top-k {len(losses.levels) - 1}" if "top_k" in str(error) else ""
            raise SpecError("balance", f"{error} The file has {', '.join(losses.levels)}", fix=fix) from error


class _Summary:
    """Counts while the records pass, so that a long replay is never held in memory."""

    def __init__(self) -> None:
        self.intervals = 0
        self.chosen: Counter[tuple[str, str]] = Counter()
        self.iterations: Counter[str] = Counter()
        self.weights: dict[str, list[float]] = {}
        self.losses: dict[str, list[float]] = {}
        self.last: dict[str, IntervalRecord] = {}

    def watch(self, records: Iterator[IntervalRecord]) -> Iterator[IntervalRecord]:
        for record in records:
            group = record.group
            if group in self.last:  # what it chose is in force in this interval
                self.chosen[group, self.last[group].action] += 1
            losses = record.loss if record.count else (0.0,) * len(record.levels)  # NaN where none was finite
            for sums, values in ((self.weights, record.previous_weights), (self.losses, losses)):
                sums[group] = [
                    a + b for a, b in zip(sums.get(group, [0.0] * len(values)), values, strict=True)
                ]
            self.iterations[group] += record.length if record.count else 0
            self.intervals += 1
            self.last[group] = record
            yield record

    def print(self, console: Console, output: Path) -> None:
        from msbal.table import Table, columns
        from msbal.ui.printing import print_line
        from msbal.ui.tables import print_whole

        for group, record in self.last.items():
            title = f"{record.interval} intervals" + (f" of {group}" if group != "all" else "")
            levels = tuple(
                (
                    level, f"{self.weights[group][i] / record.interval:.4f}",
                    f"{self.losses[group][i] / max(1, self.iterations[group]):.4g}",
                    f"{record.loss[i] / record.divisor:.4g}",
                )
                for i, level in enumerate(record.levels)
            )  # fmt: skip
            header = columns("level", "mean weight", "mean loss", "last loss")
            note = "Losses are means per iteration; the last loss is that of the last interval."
            print_whole(console, Table(title, header, levels, (note,)))
            actions = tuple(
                (action, str(self.chosen[group, action]), f"{probability:.4f}")
                for action, probability in record.probabilities.items()
            )
            if actions:
                header = columns("action", "intervals", "last probability")
                note = "Intervals: how many the action was in force in. In the first, all weights are 1."
                print_whole(console, Table("Actions", header, actions, (note,)))
        print_line(console, f"{self.intervals} records in {output}")
