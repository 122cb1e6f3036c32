"""The losses of one batch, as detectron2 has them and by level: for proofs, and to look at. Nothing counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.backend import SplitLosses
from msbal.backend.kit import one_batch
from msbal_detectron2.splitters import DictSplitter


def framework_losses(model: nn.Module, splitters: Sequence[DictSplitter], batch: Any) -> dict[str, Tensor]:
    """detectron2's own loss dict."""
    return one_batch.framework_losses(model, splitters, lambda: _losses(model, batch))


def split_losses(model: nn.Module, splitters: Sequence[DictSplitter], batch: Any) -> SplitLosses:
    """The same by level."""
    return one_batch.split_losses(model, splitters, lambda: _losses(model, batch))


def _losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    with EventStorage():  # detectron2's losses log into the one on top of a global stack
        losses: dict[str, Tensor] = model(batch)
    return losses
