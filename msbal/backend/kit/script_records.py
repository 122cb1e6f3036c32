"""The records of a training that somebody else's loop or trainer runs: a folder of files, and scalars for its log."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from msbal.backend.protocol import LevelGroup
from msbal.engine import BalancerSet, IntervalRecord
from msbal.errors import SpecError
from msbal.records import Recorder, RunDirectory

_WRITERS: WeakValueDictionary[Path, ScriptRecords] = WeakValueDictionary()
"""Who began last in each folder. Two that write into one would mix their records."""


class ScriptRecords:
    """Writes ``intervals.jsonl`` into a folder, numbered by the run's own iterations.

    Existing records are never lost: a new start moves them aside, a resumed one keeps those that the balancers' state
    includes.

    Args:
        folder: None writes nothing, as in every process but the first.
        on_record: called with each record.
        say: told what a person should know, a line each.
        losses: also write each pass's losses to ``losses.csv``, by the balancers' own count.
    """

    def __init__(
        self,
        balancers: BalancerSet,
        folder: str | Path | None = None,
        on_record: Callable[[IntervalRecord], None] | None = None,
        say: Callable[[str], None] = lambda text: warnings.warn(text, stacklevel=2),
        losses: bool = False,
    ) -> None:
        run = None if folder is None else RunDirectory(Path(folder))
        self._balancers, self._run, self._say = balancers, run, say
        self._folder = Path(folder or "").absolute()
        self._recorder = Recorder(run, on_record, per_iteration=losses)
        self._recorder.attach(balancers)
        self.begun = False

    def begin(self, iteration: int = 0) -> None:
        """Start, or continue after `iteration` iterations.

        Call it after the balancers' state is loaded, and before the first pass that counts.
        """
        self.begun = True
        started = any(balancer.iteration for balancer in self._balancers.balancers.values())
        if iteration and not started:
            self._say(f"msbal: the run goes on after iteration {iteration}; its balancing starts anew")
        if self._run is None:
            return
        self._run.path.mkdir(parents=True, exist_ok=True)
        _WRITERS[self._folder] = self
        if started:
            self.rewind()
            return
        for file in (self._run.intervals_file, self._run.losses_file):
            if file.exists() and file.stat().st_size:
                names = (file.with_suffix(f".{n}{file.suffix}") for n in range(1, 10**6))
                aside = next(path for path in names if not path.exists())
                file.rename(aside)
                self._say(f"msbal: the records of an earlier start are now in {aside}")

    def rewind(self) -> None:
        """Remove the records that balancers will write again, set back to an earlier state while the run goes on."""
        intervals = min(balancer.intervals for balancer in self._balancers.balancers.values())
        self._recorder.rewind_to_interval(intervals)

    def step(self, iteration: int | None = None, learning_rate: float | None = None) -> None:
        """Write the intervals that have ended.

        Args:
            iteration: the run's, for the records; None for the balancers' own.
            learning_rate: see `IntervalRecord`; None where the optimizer is not known.

        Raises:
            SpecError: where another has begun to write into the folder.
        """
        if self._run is not None and _WRITERS.get(self._folder, self) is not self:
            raise SpecError(
                f"records: {self._run.path}", "two balancers that write their records there at the same time",
                "a folder for each",
            )  # fmt: skip
        self._recorder.step(iteration, iteration is not None, learning_rate)

    def flush(self) -> None:
        """Write the intervals that have ended and fsync: before a checkpoint and at the end."""
        self._recorder.flush()

    def loaded(self) -> None:
        """Begin anew at the next step, as the balancers have loaded a state."""
        self.begun = False


def interval_scalars(record: IntervalRecord, groups: Sequence[LevelGroup]) -> dict[str, float]:
    """Return a record as scalars: ``msbal/weight/P3``, ``msbal/value/P3/cls``, ``msbal/probability/avw``, ...

    With several groups, or with `per_term`, the group comes first: ``msbal/rpn/weight/P3``. No name contains "loss"
    (``min_loss`` is ``min``): mmengine's parse_losses would add such a value to the objective, and detectron2's console
    would print each.

    Args:
        groups: all that is balanced.
    """
    alone = [group.name for group in groups] == [record.group]
    head = "msbal" if alone else f"msbal/{record.group.replace(':', '/')}"
    found: dict[str, float] = {}
    for k, level in enumerate(record.levels):
        found[f"{head}/weight/{level}"] = record.weights[k]
        found[f"{head}/variance/{level}"] = record.variance[k]
        for term, losses in record.loss_by_term.items():
            found[f"{head}/value/{level}/{term}"] = losses[k] / record.divisor
        for part, norms in record.gradient_norm.items():
            found[f"{head}/gradient/{part}/{level}"] = norms[k]
    for pair, cosine in record.cosines.items():
        found[f"{head}/cosine/{pair}"] = cosine
    for action, probability in record.probabilities.items():
        found[f"{head}/probability/{action}"] = probability
    if record.reward is not None:
        found[f"{head}/reward"] = record.reward
    return {_without_loss(name): float(value) for name, value in found.items()}


def _without_loss(name: str) -> str:
    return name.replace("_loss", "").replace("loss_", "").replace("loss", "value")
