"""The torchvision backend of msbal.

In an own training script, one call is enough::

    from msbal_torchvision import balance

    balance(model)  # a RetinaNet, FCOS, Faster R-CNN or SSD of torchvision

The names below are imported on first use, so that finding the backend imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Balance": "msbal_torchvision.balancing",
    "balance": "msbal_torchvision.balancing",
    "Seam": "msbal_torchvision.seams",
    "UnsplittableModelError": "msbal_torchvision.seams",
    "install": "msbal_torchvision.seams",
}

if TYPE_CHECKING:
    from msbal_torchvision.balancing import Balance, balance
    from msbal_torchvision.seams import Seam, UnsplittableModelError, install


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'msbal_torchvision' has no attribute '{name}'")


__all__ = ["Balance", "Seam", "UnsplittableModelError", "balance", "install"]
