"""The torchvision backend of msbal.

In an own training script, one call is enough::

    from msbal_torchvision import balance

    balance(model)  # a RetinaNet, FCOS, Faster R-CNN or SSD of torchvision

The names below are imported on first use, so that finding the backend imports no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {"balance": "msbal_torchvision.balancing", "balanced_of": "msbal.backend.kit.balanced"}

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import balanced_of
    from msbal_torchvision.balancing import balance


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'msbal_torchvision' has no attribute '{name}'")


__all__ = ["balance", "balanced_of"]
