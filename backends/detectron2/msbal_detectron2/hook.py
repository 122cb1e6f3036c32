"""The balancing as a hook of detectron2's trainers: records, scalars, and state in their checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from msbal.records import IntervalRecord, Recorder, RunDirectory
from msbal_detectron2 import events
from msbal_detectron2.balancing import Balancing

_log = logging.getLogger(__name__)


class BalanceHook(HookBase):
    """Takes what the balancers report to the trainer's EventStorage and to a file.

    Its state (that of the balancers, and the loss normalizer) is part of the trainer's ``state_dict()``, and so
    of every checkpoint that has the trainer in it, as those of ``DefaultTrainer`` do.

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

    def before_train(self) -> None:
        """Drop the records that a resumed run will write again."""
        self._recorder.rewind(self.trainer.start_iter)

    def after_step(self) -> None:
        """Take the records that have arrived; waits for nothing."""
        self._recorder.step(self.trainer.iter + 1)

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
