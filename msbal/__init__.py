"""msbal: balances the losses of a detector's pyramid levels while it trains.

The names below are imported on first use, so that `import msbal` stays quick and torch-free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msbal.lazy import attach

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        ("AVW", "RLO", "Balancer", "BalancerSet", "Equal", "GroupNames", "IntervalRecord", "LevelLosses", "MaxLoss",
         "MinLoss", "StepStrategy", "Strategy"),
        "msbal.engine",
    ),
    **dict.fromkeys(
        ("DWA", "GLS", "RLW", "SLAW", "UW", "UWSO", "Autobalance", "CoV", "Fixed", "Positives", "Stride"),
        "msbal.baselines",
    ),
    "LevelGate": "msbal.backend.kit.level_gate",
}  # fmt: skip

if TYPE_CHECKING:
    from msbal.backend.kit.level_gate import LevelGate
    from msbal.baselines import DWA, GLS, RLW, SLAW, UW, UWSO, Autobalance, CoV, Fixed, Positives, Stride
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


__getattr__ = attach(__name__, _HOME)

__all__ = [
    "AVW", "DWA", "GLS", "RLO", "RLW", "SLAW", "UW", "UWSO", "Autobalance", "Balancer", "BalancerSet", "CoV", "Equal",
    "Fixed", "GroupNames", "IntervalRecord", "LevelGate", "LevelLosses", "MaxLoss", "MinLoss", "Positives",
    "StepStrategy", "Strategy", "Stride", "__version__",
]  # fmt: skip
