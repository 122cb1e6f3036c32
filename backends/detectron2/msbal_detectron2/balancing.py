"""One call that balances a model or a trainer in a user's own detectron2 script.

Not `balance`: a module of that name would take the function's place in the package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.events import get_event_storage
from torch import nn

from msbal.backend.kit.balance import Request, balance_function
from msbal.backend.kit.balanced import Balanced, require_unbalanced
from msbal.backend.kit.script_records import ScriptRecords
from msbal.engine.processes import rank
from msbal_detectron2 import learned
from msbal_detectron2.hook import BalanceHook, put_scalars
from msbal_detectron2.splitters import find


@balance_function
def balance(model: Any, request: Request) -> Balanced:
    """Balance the pyramid levels of a detectron2 model while it trains.

    It takes a RetinaNet, FCOS or R-CNN (wrapped in DistributedDataParallel or not), or the trainer of one
    (``DefaultTrainer``, ``SimpleTrainer``, ``AMPTrainer``). Call it after the trainer is made and before
    ``resume_or_load``: a `BalanceHook` then keeps the state in the trainer's checkpoints, puts the records into the
    EventStorage and writes ``intervals.jsonl``, by default into a ``DefaultTrainer``'s output folder; and what a
    strategy learns joins the trainer's optimizer and schedule. With a model, in a loop of your own, save the state
    beside it: ``DetectionCheckpointer(model, folder, msbal=balance(model))``.
    """
    target, model = model, _unwrap(model if isinstance(model, nn.Module) else model.model)
    require_unbalanced(model)
    balanced = request.put(model, find(model, request.scope), write=False)
    if isinstance(target, TrainerBase):
        BalanceHook(balanced, _folder(target, request.records)).register(target)
        learned.join(target, list(balanced.parameters()))
    elif request.records is not None:
        balanced.records = ScriptRecords(
            balanced.balancers,
            request.records if rank() == 0 else None,
            lambda record: put_scalars(get_event_storage(), record, balanced),
        )
    return balanced


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model within DistributedDataParallel, DataParallel or torch.compile."""
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
