"""The balancing engine: pure torch, knowing of no file, terminal or framework."""

from msbal.engine.balancer import Balancer
from msbal.engine.group import BalancerSet, GroupNames
from msbal.engine.losses import LevelLosses, Losses, gather
from msbal.engine.numbers import Numbers
from msbal.engine.report import IntervalReport
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies import (
    AVW,
    DWA,
    GLS,
    RLO,
    RLW,
    SLAW,
    UW,
    UWSO,
    Autobalance,
    CoV,
    Equal,
    Fixed,
    Iteration,
    MaxLoss,
    MinLoss,
    Positives,
    State,
    StepStrategy,
    Strategy,
    Weighing,
    available,
    make,
    register,
)
from msbal.record import IntervalRecord, NonFinite

__all__ = [
    "AVW",
    "DWA",
    "GLS",
    "RLO",
    "RLW",
    "SLAW",
    "UW",
    "UWSO",
    "Autobalance",
    "Balancer",
    "BalancerSet",
    "CoV",
    "Equal",
    "Fixed",
    "GroupNames",
    "IntervalRecord",
    "IntervalReport",
    "IntervalStatistics",
    "Iteration",
    "LevelLosses",
    "Losses",
    "MaxLoss",
    "MinLoss",
    "NonFinite",
    "Numbers",
    "Positives",
    "State",
    "StepStrategy",
    "Strategy",
    "Weighing",
    "available",
    "gather",
    "make",
    "register",
]
