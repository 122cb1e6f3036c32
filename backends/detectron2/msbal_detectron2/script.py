"""One call that balances a model or a trainer in anyone's own detectron2 script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.events import get_event_storage
from torch import nn

from msbal.backend.kit.balanced import Balanced, put_balancers, require_unbalanced
from msbal.backend.kit.script_records import ScriptRecords
from msbal.engine import Strategy
from msbal.engine.processes import rank
from msbal_detectron2 import learned
from msbal_detectron2.hook import BalanceHook, put_scalars
from msbal_detectron2.splitters import find


def balance(
    target: TrainerBase | nn.Module,
    strategy: Strategy | str = "rlo",
    *,
    interval: int = 100,
    scope: Sequence[str] = ("rpn",),
    per_term: bool = False,
    seed: int = 0,
    rescale: bool = False,
    records: str | Path | None = None,
    **hyperparameters: Any,
) -> Balanced:
    """Balance the pyramid levels of a detectron2 model while it trains.

    In training mode detectron2's ``losses`` methods then return their terms weighted, under the names that they
    always had; inference is as before. On the first batch the levels are shown to add up to detectron2's own loss.

    With a trainer (``DefaultTrainer``, ``SimpleTrainer``, ``AMPTrainer``), call it after the trainer is made and
    before ``resume_or_load``: a `BalanceHook` then also keeps the state in its checkpoints, puts the records into the
    EventStorage and writes ``intervals.jsonl``. With a model, in a loop of one's own, save the state beside it:
    ``DetectionCheckpointer(model, folder, msbal=balance(model))``.

    A strategy that learns its weights (``uw``) has parameters. A trainer's optimizer and schedule are given them
    here; in a loop of one's own, give the optimizer ``balanced.parameters()`` beside the model's, without weight
    decay.

    Args:
        target: a trainer, or a model (wrapped in DistributedDataParallel or not).
        strategy: a name, such as ``rlo`` or ``avw``, or a strategy.
        interval: alpha, training iterations between two decisions.
        scope: of a two-stage model, which heads: ``rpn``, ``roi`` or both.
        per_term: balance each term (classification, boxes) on its own.
        seed: of the strategy's random draws.
        rescale: multiply the strategy's weights so that they sum to the number of levels.
        records: a folder for ``intervals.jsonl``; by default, that of a ``DefaultTrainer``'s output.
        hyperparameters: of the strategy, as in a spec's ``balance:``: ``top_k``, ``actions``, ...

    Returns:
        the handle: ``balanced.balancers`` has the weights, ``balanced.remove()`` undoes it.

    Raises:
        SpecError: where the model has nothing to balance or is balanced already, or an argument does not fit.
    """
    model = _unwrap(target if isinstance(target, nn.Module) else target.model)
    require_unbalanced(model)
    balanced = put_balancers(
        model, find(model, scope), strategy, interval=interval, per_term=per_term, seed=seed, rescale=rescale,
        hyperparameters=hyperparameters,
    )  # fmt: skip
    if isinstance(target, TrainerBase):
        BalanceHook(balanced, _folder(target, records)).register(target)
        learned.join(target, list(balanced.parameters()))
    elif records is not None:
        balanced.records = ScriptRecords(
            balanced.balancers,
            records if rank() == 0 else None,
            lambda record: put_scalars(get_event_storage(), record, balanced),
        )
    return balanced


def _unwrap(model: nn.Module) -> nn.Module:
    """The model within DistributedDataParallel, DataParallel or torch.compile."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _folder(trainer: TrainerBase, records: str | Path | None) -> str | Path | None:
    cfg = getattr(trainer, "cfg", None)
    if records is None and cfg is not None and "OUTPUT_DIR" in cfg:
        return str(cfg.OUTPUT_DIR)
    return records
