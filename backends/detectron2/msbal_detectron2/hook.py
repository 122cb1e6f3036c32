"""Balancing as a hook of detectron2's trainers: what counts, records, scalars, and state in their checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm

from msbal.backend.kit.balanced import Balanced, balanced_of
from msbal.backend.kit.script_records import ScriptRecords, interval_scalars
from msbal.engine.processes import all_gather_objects
from msbal.engine.record import IntervalRecord
from msbal_detectron2 import learned

_log = logging.getLogger(__name__)


class BalanceHook(HookBase):  # type: ignore[misc]
    """Puts what the balancers report into the trainer's EventStorage and into a file.

    Only what the trainer computes between its hooks' ``before_step`` and ``after_step`` counts: a validation loss of
    another hook, with gradients or without, is detectron2's own.

    The state is part of the trainer's ``state_dict()``, and so of every checkpoint that includes the trainer, as those
    of ``DefaultTrainer`` do. Those of a ``PeriodicCheckpointer`` have each process's part.

    Args:
        balanced: the trainer's model.
        records: a folder for ``intervals.jsonl``, or None.
    """

    def __init__(self, balanced: Balanced, records: str | Path | None = None) -> None:
        self.balanced = balanced
        folder = records if comm.is_main_process() else None
        self._records = ScriptRecords(balanced.balancers, folder, self._on_record, _log.warning)
        self._checkpoint_periods: list[int] = []
        self._first = True

    def register(self, trainer: TrainerBase) -> None:
        """Become the first of the trainer's hooks: its scalars exist when the writers, which are the last, write."""
        # Where a model is balanced again, drop the hook of the balancing that was removed.
        others = [hook for hook in trainer._hooks if not (isinstance(hook, BalanceHook) and hook.removed)]
        trainer._hooks.clear()
        trainer.register_hooks([self, *others])
        _count_between_hooks(trainer, self.balanced)

    @property
    def removed(self) -> bool:
        """Whether this balancing was removed from the model."""
        return balanced_of(self.balanced.model) is not self.balanced

    def before_train(self) -> None:
        """Drop the records that a resumed run will write again."""
        if self.removed:
            return
        self.balanced.pause()
        self._records.begin(self.trainer.start_iter)
        learned.fit_schedules(self.trainer)
        self._first = True
        checkpointers = [h for h in self.trainer._hooks if isinstance(h, hooks.PeriodicCheckpointer)]
        # Only the first process has checkpointers, but all must know when it will save.
        self._checkpoint_periods = all_gather_objects([hook.period for hook in checkpointers])[0]

    def after_step(self) -> None:
        """Write the records that have arrived. Waits only before a checkpoint, for the other processes."""
        if self.removed:
            return
        if self._first:
            self._first = False
            self.balanced.require_calls()
        done = self.trainer.iter + 1
        # This hook runs before the scheduler steps. A user's own trainer may have no optimizer.
        optimizer = getattr(self.trainer, "optimizer", None)
        self._records.step(done, None if optimizer is None else optimizer.param_groups[0]["lr"])
        if done >= self.trainer.max_iter or any(done % period == 0 for period in self._checkpoint_periods):
            self.balanced.synchronize()

    def after_train(self) -> None:
        """Write the last records; where training ended on a NaN, name the loss."""
        if self.removed:
            return
        self._records.flush()
        for found in self.balanced.nonfinite():
            _log.error(
                f"The {found.term} loss of {found.level} is {found.value} in iteration {found.iteration}, "
                f"rank {found.rank}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the balancers' state for a checkpoint, after writing all records that belong to it."""
        if self.removed:
            return {}
        self._records.flush()
        return self.balanced.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.balanced.load_state_dict(state)

    def _on_record(self, record: IntervalRecord) -> None:
        put_scalars(self.trainer.storage, record, self.balanced)


def put_scalars(storage: Any, record: IntervalRecord, balanced: Balanced) -> None:
    """Put a record into an EventStorage, unsmoothed, as it is one decision and no noisy measurement."""
    for name, value in interval_scalars(record, balanced.groups).items():
        storage.put_scalar(name, value, smoothing_hint=False)


def _count_between_hooks(trainer: TrainerBase, balanced: Balanced) -> None:
    """Pause while the trainer's hooks run. Wraps the trainer's methods, as no hook knows whether others follow it."""
    before_step, after_step, after_train = trainer.before_step, trainer.after_step, trainer.after_train

    def before() -> None:
        balanced.pause()
        before_step()
        balanced.go_on()

    def after() -> None:
        balanced.pause()
        after_step()

    def end() -> None:
        balanced.pause()
        try:
            after_train()
        finally:
            balanced.go_on()  # in the user's own loop everything counts

    trainer.before_step, trainer.after_step, trainer.after_train = before, after, end
