"""MMDetection as a backend of msbal.

Importing it imports neither mmdet nor torch: the names below are imported on first use. In a config,
``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` registers the hook with mmengine.
"""

from typing import TYPE_CHECKING

from msbal.lazy import attach

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import Balanced, balanced_of
    from msbal_mmdet.balancing import balance
    from msbal_mmdet.hooks import MultiScaleBalanceHook

__getattr__ = attach(
    __name__,
    {
        "balance": "msbal_mmdet.balancing",
        "Balanced": "msbal.backend.kit.balanced",
        "balanced_of": "msbal.backend.kit.balanced",
        "MultiScaleBalanceHook": "msbal_mmdet.hooks",
    },
)

__all__ = ["Balanced", "MultiScaleBalanceHook", "balance", "balanced_of"]
