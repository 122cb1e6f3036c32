"""The balancing engine: losses in, weights out. It knows no file, terminal or framework.

The names below are imported on first use, so that readers of records, which are plain numbers, need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msbal.lazy import attach

_NAMES = {
    "balancer": ("Balancer",),
    "gradients": ("GradientError", "LevelGradients"),
    "group": ("BalancerSet", "GroupNames"),
    "interval": ("IntervalReport",),
    "losses": ("LevelLosses", "Losses", "gather"),
    "record": ("IntervalRecord", "NonFinite"),
    "statistics": ("IntervalStatistics",),
    "strategies.actions": ("AVW", "Equal", "MaxLoss", "MinLoss", "SelectionStrategy"),
    "strategies.base": ("State", "Strategy", "StrategyError"),
    "strategies.registry": ("available", "make", "register"),
    "strategies.rlo": ("RLO",),
    "strategies.step": ("Iteration", "StepStrategy", "Weighing"),
}

if TYPE_CHECKING:
    from msbal.engine.balancer import Balancer
    from msbal.engine.gradients import GradientError, LevelGradients
    from msbal.engine.group import BalancerSet, GroupNames
    from msbal.engine.interval import IntervalReport
    from msbal.engine.losses import LevelLosses, Losses, gather
    from msbal.engine.record import IntervalRecord, NonFinite
    from msbal.engine.statistics import IntervalStatistics
    from msbal.engine.strategies.actions import AVW, Equal, MaxLoss, MinLoss, SelectionStrategy
    from msbal.engine.strategies.base import State, Strategy, StrategyError
    from msbal.engine.strategies.registry import available, make, register
    from msbal.engine.strategies.rlo import RLO
    from msbal.engine.strategies.step import Iteration, StepStrategy, Weighing

__getattr__ = attach(
    __name__, {name: f"{__name__}.{home}" for home, names in _NAMES.items() for name in names}
)

__all__ = [
    "AVW", "RLO", "Balancer", "BalancerSet", "Equal", "GradientError", "GroupNames", "IntervalRecord", "IntervalReport",
    "IntervalStatistics", "Iteration", "LevelGradients", "LevelLosses", "Losses", "MaxLoss", "MinLoss", "NonFinite",
    "SelectionStrategy", "State", "StepStrategy", "Strategy", "StrategyError", "Weighing", "available", "gather",
    "make", "register",
]  # fmt: skip
