"""The torchvision backend of msbal.

In your own training script, one call is enough::

    from msbal_torchvision import balance

    balance(model)  # a RetinaNet, FCOS, Faster R-CNN or SSD of torchvision

The names below are imported on first use, so that finding the backend imports no framework.
"""

from typing import TYPE_CHECKING

from msbal.lazy import attach

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import balanced_of
    from msbal_torchvision.balancing import balance

__getattr__ = attach(
    __name__, {"balance": "msbal_torchvision.balancing", "balanced_of": "msbal.backend.kit.balanced"}
)

__all__ = ["balance", "balanced_of"]
