"""Scalars for TensorBoard, through torch's own writer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msbal.backend import LevelGroup, Monitor
from msbal.errors import RunError, SpecError

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import Ending

STEP_SECONDS = 1.0  # at most one point a second for speed, learning rate and memory


class TensorBoardMonitor(Monitor):
    """A monitor that writes event files.

    Tags: ``loss/P3``, ``loss/P3/cls`` (mean per iteration), ``variance/P3``, ``reduction/P3``,
    ``weight/P3``, ``probability/avw``, ``action`` (index among the actions), ``reward``,
    ``metrics/AP``, ``train/learning_rate``. If there are several groups, each tag begins with the
    group's name: ``rpn/loss/P3``. On a resume, what an earlier process wrote past the checkpoint is
    hidden by the writer's ``purge_step``.

    Args:
        folder: for the event files; created when training starts.

    Raises:
        SpecError: if the package tensorboard is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SpecError(
                "log.tensorboard",
                f"the package tensorboard cannot be imported ({error})",
                fix="run `pip install 'msbal[tensorboard]'`, or leave TensorBoard out",
            ) from error
        self._make: Any = SummaryWriter
        self._folder = folder
        self._writer: Any = None
        self._several = False
        self._next = 0.0

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self._several = len(groups) > 1
        try:
            self._writer = self._make(str(self._folder), purge_step=iteration + 1 if iteration else None)
        except OSError as error:
            raise RunError(str(self._folder), f"TensorBoard cannot write there: {error}") from error

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + STEP_SECONDS
            self._add("train", scalars, iteration)

    def interval(self, record: IntervalRecord) -> None:
        found: dict[str, Any] = {"reward": record.reward, "probability": record.probabilities}
        rows = {"variance": record.variance, "reduction": record.variance_reduction, "weight": record.weights}
        if record.count:
            rows["loss"] = tuple(loss / record.count for loss in record.loss)
            for term, row in record.loss_by_term.items():
                by_level = zip(record.levels, row, strict=True)
                found |= {f"loss/{level}/{term}": loss / record.count for level, loss in by_level}
        found |= {name: dict(zip(record.levels, row, strict=True)) for name, row in rows.items()}
        if record.action in record.probabilities:
            found["action"] = list(record.probabilities).index(record.action)
        self._add(record.group if self._several or record.group != "all" else "", found, record.iteration)

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._add(
            "metrics", {name: value for name, value in metrics.items() if name != "iteration"}, iteration
        )
        if self._writer is not None:
            self._writer.flush()

    def close(self, ending: Ending | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, tag: str, value: Any, iteration: int) -> None:
        """Write a number, or those of a mapping under its keys; anything else is left out."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self._add(f"{tag}/{key}" if tag else key, inner, iteration)
        elif self._writer is not None and isinstance(value, (int, float)) and not isinstance(value, bool):
            self._writer.add_scalar(tag, float(value), iteration)
