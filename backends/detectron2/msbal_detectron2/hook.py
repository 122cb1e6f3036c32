"""The balancing as a hook of detectron2's trainers: records, scalars, and state in their checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from msbal.records import IntervalRecord, Recorder, RunDirectory
from msbal_detectron2 import events
from msbal_detectron2.balancing import Balancing, everyones

_log = logging.getLogger(__name__)


class BalanceHook(HookBase):
    """Takes what the balancers report to the trainer's EventStorage and to a file.

    Its state (that of the balancers, and the loss normalizer) is part of the trainer's ``state_dict()``, and so
    of every checkpoint that has the trainer in it, as those of ``DefaultTrainer`` do. Each process's part is in
    those of a ``PeriodicCheckpointer``.

    Args:
        balancing: installed on the trainer's model.
        run: where to write ``intervals.jsonl``, or None; ignored on every process but the first.
    """

    def __init__(self, balancing: Balancing, run: RunDirectory | None = None) -> None:
        assert balancing.balancers is not None
        self.balancing = balancing
        self._recorder = Recorder(
            run if comm.is_main_process() else None, self._on_record, per_iteration=False
        )
        self._recorder.attach(balancing.balancers)
        self._checkpoint_periods: list[int] = []

    def before_train(self) -> None:
        """Drop the records that a resumed run will write again."""
        self._recorder.rewind(self.trainer.start_iter)
        checkpointers = [h for h in self.trainer._hooks if isinstance(h, hooks.PeriodicCheckpointer)]
        # Only the first process has them, but all must know when it will save.
        self._checkpoint_periods = everyones([hook.period for hook in checkpointers])[0]

    def after_step(self) -> None:
        """Take the records that have arrived; waits for nothing but, before a checkpoint, the other processes."""
        done = self.trainer.iter + 1
        self._recorder.step(done)
        if done >= self.trainer.max_iter or any(done % period == 0 for period in self._checkpoint_periods):
            self.balancing.synchronize()

    def after_train(self) -> None:
        """Take the last records; where training broke off on a NaN, say which loss it was."""
        self._recorder.flush()
        assert self.balancing.balancers is not None
        for found in self.balancing.balancers.nonfinite():
            _log.error(
                f"The {found.term} loss of {found.level} is {found.value} in iteration {found.iteration}, "
                f"rank {found.rank}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Called at every checkpoint, so that no record is younger than the state it belongs to."""
        self._recorder.flush()
        return self.balancing.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.balancing.load_state_dict(state)

    def _on_record(self, record: IntervalRecord) -> None:
        events.put(self.trainer.storage, record)
