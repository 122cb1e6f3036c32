"""msbal: balances the losses of a detector's pyramid levels while it trains.

The names below are imported on first use, so that `import msbal` stays quick and torch-free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ENGINE = (
    "AVW", "RLO", "Balancer", "BalancerSet", "Equal", "Fixed", "GroupNames", "IntervalRecord", "LevelLosses",
    "MaxLoss", "MinLoss", "Strategy",
)  # fmt: skip

if TYPE_CHECKING:
    from msbal.engine import (
        AVW,
        RLO,
        Balancer,
        BalancerSet,
        Equal,
        Fixed,
        GroupNames,
        IntervalRecord,
        LevelLosses,
        MaxLoss,
        MinLoss,
        Strategy,
    )


def __getattr__(name: str) -> Any:
    if name in _ENGINE:
        return getattr(import_module("msbal.engine"), name)
    raise AttributeError(f"module 'msbal' has no attribute '{name}'")


__all__ = [
    "AVW", "RLO", "Balancer", "BalancerSet", "Equal", "Fixed", "GroupNames", "IntervalRecord", "LevelLosses",
    "MaxLoss", "MinLoss", "Strategy", "__version__",
]  # fmt: skip
