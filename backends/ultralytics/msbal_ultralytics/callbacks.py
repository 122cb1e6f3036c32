"""Balancing a training that ultralytics' own trainer runs, by callbacks, which it calls in every process.

A trainer builds model, optimizer and EMA itself, and goes back in time without a word: it starts an epoch again after a
NaN, or after it ran out of memory. With several devices it trains in processes of their own, to which it sends the
callbacks, pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from msbal.backend.kit.balance import Request
from msbal.backend.kit.balanced import Balanced, balanced_of
from msbal.backend.kit.script_records import ScriptRecords
from msbal.engine import BalancerSet, IntervalRecord
from msbal.engine.processes import rank
from msbal.errors import SpecError
from msbal.records.atomic import replace_with
from msbal_ultralytics.splitters import find

STATES = "msbal.pt"
"""Beside ``last.pt``: the balancers' state at the end of each epoch that a checkpoint may be of."""


class BalanceCallbacks:
    """Balances every training of a ``YOLO`` or a trainer, from its first batch on; what `balance` returns for one.

    While a training runs, and after it, it has all that `Balanced` has, of the last training in this process:
    ``balancers``, ``losses``, ``groups``, ``nonfinite()`` and so on. Before, these are errors.

    Attributes:
        balanced: of the last training in this process; None before the first.
    """

    EVENTS = (
        "on_pretrain_routine_end", "on_train_epoch_start", "on_train_batch_start", "on_train_batch_end",
        "on_train_epoch_end", "on_train_end", "teardown",
    )  # fmt: skip

    def __init__(self, request: Request) -> None:
        self.request = request
        self._begin_anew()
        self._target: Any = None

    def _begin_anew(self) -> None:
        self.balanced: Balanced | None = None
        self._records: ScriptRecords | None = None
        self._ahead = 0  # iterations of the run before it was balanced
        self._epoch: int | None = None  # that has started
        self._at_start: dict[str, Any] = {}  # the state at its first start
        self._states: dict[int, dict[str, Any]] = {}  # at the end of epochs
        self._newest: dict[str, IntervalRecord] = {}  # by group, of this epoch
        self._first_batch = True
        self._said_nonfinite = False

    def register(self, target: Any) -> None:
        """Join the callbacks of a ``YOLO`` or a trainer.

        Raises:
            SpecError: where it has such callbacks already.
        """
        for callback in target.callbacks.get(self.EVENTS[0], ()):
            if isinstance(getattr(callback, "__self__", None), BalanceCallbacks):
                raise SpecError(
                    f"model: {type(target).__name__}", "balanced already", "a model that is not",
                    fix="call remove() on what the first balance() returned",
                )  # fmt: skip
        for event in self.EVENTS:
            target.add_callback(event, getattr(self, event))
        if hasattr(target, "tune"):
            target.tune = _refuse_to_tune
        self._target = target

    def remove(self) -> None:
        """Leave the callbacks, and restore a model that is training."""
        if self._target is not None:
            for event in self.EVENTS:
                kept = [
                    own for own in self._target.callbacks[event] if getattr(own, "__self__", None) is not self
                ]
                self._target.callbacks[event] = kept
            vars(self._target).pop("tune", None)
            self._target = None
        self._end()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self.balanced is None:
            raise SpecError(
                f"balance(): {name}", "no training has begun in this process", "it after the first batch",
                "on several devices ultralytics trains in other processes: read intervals.jsonl beside results.csv",
            )  # fmt: skip
        return getattr(self.balanced, name)

    def __getstate__(self) -> dict[str, Any]:
        # For ultralytics' workers, each of which begins anew.
        return {"request": self.request}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # -- ultralytics' calls ------------------------------------------------------------------------

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Balance the trainer's model: it is complete, wrapped, averaged, and loaded where the run is resumed."""
        self._begin_anew()
        model = unwrap_model(trainer.model)
        self.balanced = self.request.put(model, find(model), write=False)
        require_nothing_learned(self.balanced.balancers)
        resumed = int(trainer.start_epoch) if trainer.resume else 0
        if resumed:
            self._load(Path(trainer.args.model).parent / STATES, resumed - 1)
        elif rank() == 0:  # an earlier run's, whose records are moved aside
            (trainer.wdir / STATES).unlink(missing_ok=True)
        before = resumed * len(trainer.train_loader)
        if not self._iterations:
            self._ahead = before
        folder = self.request.records or trainer.save_dir
        self._records = ScriptRecords(
            self.balanced.balancers,
            folder if rank() == 0 else None,
            self._on_record,
            LOGGER.warning,
            losses=True,
        )
        self._records.begin(before)
        self.balanced.pause()
        for group in self.balanced.groups:
            LOGGER.info(
                f"msbal: balances {group.name} ({group.head}): levels {', '.join(group.levels)}, terms "
                f"{', '.join(group.terms)}; {_strategy(self.balanced).name}; records in {folder}"
            )

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Note the state, or go back to it where the trainer starts an epoch again."""
        balanced, records = self._running()
        if trainer.epoch == self._epoch:
            balanced.load_state_dict(self._at_start)
            records.rewind()
            LOGGER.info(f"msbal: epoch {trainer.epoch + 1} starts again, and so does its balancing")
        else:
            balanced.synchronize()
            self._epoch, self._at_start = trainer.epoch, balanced.state_dict()
        # After a NaN the trainer averages a copy of the balanced model; checkpoints are made of the average.
        copy = balanced_of(trainer.ema.ema) if trainer.ema else None
        if copy is not None:
            copy.remove()

    def on_train_batch_start(self, trainer: Any) -> None:
        """Weigh and count from here to the end of the batch; between batches other callbacks may run the model."""
        self._running()[0].go_on()

    def on_train_batch_end(self, trainer: Any) -> None:
        """Write the records that have arrived."""
        balanced, _ = self._running()
        balanced.pause()
        balanced.require_in_place()  # a model that is compiled computes its loss beside the forward pass
        if self._first_batch:
            balanced.require_calls()
            self._first_batch = False
        self._write(trainer)

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Keep the state for a checkpoint, which the trainer writes next: a kill between the two loses neither."""
        balanced, records = self._running()
        self._write(trainer)
        balanced.synchronize()
        if rank() != 0:
            return
        records.flush()
        for record in self._newest.values():
            LOGGER.info(f"msbal: {_line(record)}")
        self._newest.clear()
        if trainer.args.save:
            self._save(trainer)

    def on_train_end(self, trainer: Any) -> None:
        """Remove the states of a run that is complete, since ultralytics resumes none."""
        (trainer.wdir / STATES).unlink(missing_ok=True)

    def teardown(self, trainer: Any) -> None:
        """Write the last records and restore the model, also where the training failed."""
        self._end()

    # -- the rest ----------------------------------------------------------------------------------

    def _running(self) -> tuple[Balanced, ScriptRecords]:
        if self.balanced is None or self._records is None:
            raise SpecError(
                "balance()", "called when the training had begun", "a call before train()", "move it there"
            )
        return self.balanced, self._records

    @property
    def _iterations(self) -> int:
        """Counted by the balancers."""
        assert self.balanced is not None
        return min(balancer.iteration for balancer in self.balanced.balancers.balancers.values())

    def _write(self, trainer: Any) -> None:
        _, records = self._running()
        records.step(self._ahead + self._iterations, trainer.optimizer.param_groups[0]["lr"])

    def _save(self, trainer: Any) -> None:
        """Write the states atomically: of this epoch, and of those of which ultralytics may have a checkpoint."""
        assert self.balanced is not None
        epoch, period = int(trainer.epoch), trainer.save_period
        self._states[epoch] = {"balancers": self.balanced.state_dict(), "ahead": self._ahead}
        kept = {epoch, epoch - 1, trainer.stopper.best_epoch - 1}
        self._states = {
            number: state
            for number, state in self._states.items()
            if number in kept or (period > 0 and number % period == 0)
        }
        replace_with(trainer.wdir / STATES, lambda path: torch.save(self._states, path))

    def _load(self, path: Path, epoch: int) -> None:
        """Continue from the state at the end of an epoch, if there is one.

        Raises:
            SpecError: where the file is damaged, or its state is that of other balancers.
        """
        assert self.balanced is not None
        if not path.exists():
            return
        fix = f"leave the arguments of balance() as they were, or remove {path.name} to balance anew"
        try:
            states = torch.load(path, weights_only=True)
            self._states = {number: state for number, state in states.items() if number <= epoch}
            if epoch in self._states:
                self.balanced.load_state_dict(self._states[epoch]["balancers"])
                self._ahead = self._states[epoch]["ahead"]
        except Exception as error:
            what = " ".join(str(error).split())[:300].rstrip(".")
            raise SpecError(str(path), f"a state that cannot be continued: {what}", fix=fix) from error

    def _on_record(self, record: IntervalRecord) -> None:
        self._newest[record.group] = record
        if record.nonfinite and not self._said_nonfinite:
            self._said_nonfinite = True
            first = record.nonfinite[0]
            LOGGER.warning(
                f"msbal: the {first.term} loss of {first.level} is {first.value} in batch "
                f"{self._ahead + first.iteration}: left out of the statistics; intervals.jsonl has all of them"
            )

    def _end(self) -> None:
        if self._records is not None:
            self._records.flush()
        if self.balanced is not None:
            self.balanced.remove()


def require_nothing_learned(balancers: BalancerSet) -> None:
    """Refuse a strategy with parameters. Raises: SpecError."""
    if any(True for _ in balancers.parameters()):
        strategy = next(iter(balancers.balancers.values())).strategy
        raise SpecError(
            "balance(): strategy", f"`{strategy.name}`, which learns its weights",
            "one that does not, since ultralytics' trainer makes and resumes its optimizer alone",
            "use `msbal train`, or a loop of your own with balance(yolo.model)",
        )  # fmt: skip


def _line(record: IntervalRecord) -> str:
    """Return the newest interval in words, for the log of an epoch."""
    whole = sum(record.loss) or 1.0
    shares = ", ".join(
        f"{n} {100 * loss / whole:.1f} %" for n, loss in zip(record.levels, record.loss, strict=True)
    )
    weights = ", ".join(f"{n} {w:.3f}" for n, w in zip(record.levels, record.weights, strict=True))
    action = record.action or "no decision"
    return f"interval {record.interval} of {record.group}: loss {shares}; {action}, weights {weights}"


def _strategy(balanced: Balanced) -> Any:
    return next(iter(balanced.balancers.balancers.values())).strategy


def _refuse_to_tune(*args: Any, **kwargs: Any) -> None:
    raise SpecError(
        "YOLO.tune", "a balanced model", "one that is not: tune() trains without the callbacks that balance",
        "call remove() on what balance() returned, or call train() for each setting",
    )  # fmt: skip
