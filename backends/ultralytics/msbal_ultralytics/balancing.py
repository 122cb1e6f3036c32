"""One call that balances a YOLO model in a user's own script.

Not `balance`: a module of that name would take the function's place in the package.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from ultralytics.engine.model import Model
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import unwrap_model

from msbal.backend.kit.balance import Request, balance_function
from msbal.backend.kit.balanced import Balanced, require_unbalanced
from msbal.backend.kit.splitter import level_names
from msbal.engine import GroupNames
from msbal.errors import SpecError
from msbal_ultralytics.callbacks import BalanceCallbacks, require_nothing_learned
from msbal_ultralytics.splitters import find, find_in_criterion, require_detection


@balance_function
def balance(model: Any, request: Request) -> Balanced | BalanceCallbacks:
    """Balance the pyramid levels of a YOLO model while it trains.

    `model` is one of three:

    - a ``YOLO`` or a trainer, before ``train()``: every training from then on is balanced, on several devices, too.
      ``intervals.jsonl`` and ``losses.csv`` go beside ``results.csv``. A script that resumes
      (``YOLO("last.pt").train(resume=True)``) calls `balance` again, with the same arguments, and the balancing
      continues from the epoch of ``last.pt``. ``tune()`` is refused, and so is a strategy that learns its weights,
      since ultralytics makes and resumes its optimizer alone.
    - a detection model, such as ``YOLO("yolov8n.yaml").model``, for a training loop of your own.
    - a bare criterion, such as ``v8DetectionLoss(model)``: go on calling ``criterion(preds, batch)``.

    An iteration is a batch, also where ultralytics accumulates several of them for a step (``nbs``).
    """
    if isinstance(model, Model | BaseTrainer):
        return _registered(model, request)
    if isinstance(model, nn.Module):
        inside = unwrap_model(model)
        require_unbalanced(inside)
        return request.put(inside, find(inside))
    balanced = request.put(_Alone(model), find_in_criterion(model))
    if any(balancer.measure is not None for balancer in balanced.balancers.balancers.values()):
        balanced.remove()
        raise SpecError(
            "balance(): measure", "a criterion alone, with gradients to measure",
            "the model, whose parameters they are measured on", "give balance() the model instead",
        )  # fmt: skip
    return balanced


class _Alone(nn.Module):
    """Stands for the model of a criterion that is balanced alone."""

    def __init__(self, criterion: Any) -> None:
        super().__init__()
        self.criterion = criterion


def _registered(target: Model | BaseTrainer, request: Request) -> BalanceCallbacks:
    """Balance the trainings of a ``YOLO`` or a trainer; refuse now what is known before its model is built."""
    callbacks = BalanceCallbacks(request)
    if isinstance(target, Model) or isinstance(target.model, nn.Module):
        require_detection(target.model)
        levels = level_names([float(stride) for stride in target.model.stride])
        require_nothing_learned(request.balancers({"all": GroupNames(levels, ("bbox", "cls", "dfl"))}))
    callbacks.register(target)
    return callbacks
