"""The ultralytics backend of msbal.

In your own training script, one call is enough::

    from msbal_ultralytics import balance
    from ultralytics import YOLO

    model = YOLO("yolov8n.yaml")
    balance(model)
    model.train(data="mine.yaml")

The names below are imported on first use, so that finding the backend imports no framework.
"""

from typing import TYPE_CHECKING

from msbal.lazy import attach

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import Balanced, balanced_of
    from msbal_ultralytics.balancing import balance

__getattr__ = attach(
    __name__,
    {
        "Balanced": "msbal.backend.kit.balanced",
        "balance": "msbal_ultralytics.balancing",
        "balanced_of": "msbal.backend.kit.balanced",
    },
)

__all__ = ["Balanced", "balance", "balanced_of"]
