"""MMDetection as a backend of msbal.

Importing it imports neither mmdet nor torch; `balance` and `MultiScaleBalanceHook` do, on first use. In a
config, ``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` makes the hook known to mmengine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msbal_mmdet.api import Balanced, balance
    from msbal_mmdet.hooks import MultiScaleBalanceHook

_LAZY = {"balance": "api", "Balanced": "api", "MultiScaleBalanceHook": "hooks"}

__version__ = "0.1.0"
__all__ = ["Balanced", "MultiScaleBalanceHook", "balance"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"msbal_mmdet.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'msbal_mmdet' has no attribute '{name}'")
