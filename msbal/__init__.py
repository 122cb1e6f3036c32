"""msbal: balances the losses of a detector's pyramid levels while it trains.

The names below are imported on first use, so that `import msbal` stays quick and torch-free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        ("AVW", "RLO", "Balancer", "BalancerSet", "Equal", "GroupNames", "IntervalRecord", "LevelLosses", "MaxLoss",
         "MinLoss", "StepStrategy", "Strategy"),
        "msbal.engine",
    ),
    **dict.fromkeys(
        ("DWA", "GLS", "RLW", "SLAW", "UW", "UWSO", "Autobalance", "CoV", "Fixed", "Positives"), "msbal.baselines"
    ),
}  # fmt: skip

if TYPE_CHECKING:
    from msbal.baselines import DWA, GLS, RLW, SLAW, UW, UWSO, Autobalance, CoV, Fixed, Positives
    from msbal.engine import (
        AVW,
        RLO,
        Balancer,
        BalancerSet,
        Equal,
        GroupNames,
        IntervalRecord,
        LevelLosses,
        MaxLoss,
        MinLoss,
        StepStrategy,
        Strategy,
    )


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'msbal' has no attribute '{name}'")


__all__ = [
    "AVW", "DWA", "GLS", "RLO", "RLW", "SLAW", "UW", "UWSO", "Autobalance", "Balancer", "BalancerSet", "CoV", "Equal",
    "Fixed", "GroupNames", "IntervalRecord", "LevelLosses", "MaxLoss", "MinLoss", "Positives", "StepStrategy",
    "Strategy", "__version__",
]  # fmt: skip
