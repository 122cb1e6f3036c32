"""One call that balances a torchvision detector in a user's own training script.

Not `balance`: a module of that name would take the function's place in the package.
"""

from __future__ import annotations

from typing import Any

from msbal.backend.kit.balance import Request, balance_function
from msbal.backend.kit.balanced import Balanced, require_unbalanced
from msbal_torchvision.splitters import find


@balance_function
def balance(model: Any, request: Request) -> Balanced:
    """Balance the pyramid levels of a torchvision detector while it trains.

    It takes a RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN, or a subclass that keeps torchvision's loss.
    ``model(images, targets)`` still returns a dictionary of losses, whose usual
    ``sum(loss for loss in loss_dict.values())`` needs no change.
    """
    require_unbalanced(model)
    return request.put(model, find(model, request.scope))
