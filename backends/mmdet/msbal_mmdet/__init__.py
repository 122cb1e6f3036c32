"""MMDetection as a backend of msbal.

Importing it imports neither mmdet nor torch; what it offers does, on first use. In a config,
``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` makes the hook known to mmengine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import Balanced, balanced_of
    from msbal_mmdet.api import balance
    from msbal_mmdet.hooks import MultiScaleBalanceHook

_LAZY = {
    "balance": "msbal_mmdet.api",
    "Balanced": "msbal.backend.kit.balanced",
    "balanced_of": "msbal.backend.kit.balanced",
    "MultiScaleBalanceHook": "msbal_mmdet.hooks",
}

__all__ = ["Balanced", "MultiScaleBalanceHook", "balance", "balanced_of"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'msbal_mmdet' has no attribute '{name}'")
