"""Statistics in, weights out: one idea a file."""

from msbal.engine.strategies.avw import AVW
from msbal.engine.strategies.base import State, StepStrategy, Strategy, Weighing, available, make, register
from msbal.engine.strategies.equal import Equal
from msbal.engine.strategies.fixed import Fixed
from msbal.engine.strategies.max_loss import MaxLoss
from msbal.engine.strategies.min_loss import MinLoss
from msbal.engine.strategies.rlo import RLO

__all__ = [
    "AVW",
    "RLO",
    "Equal",
    "Fixed",
    "MaxLoss",
    "MinLoss",
    "State",
    "StepStrategy",
    "Strategy",
    "Weighing",
    "available",
    "make",
    "register",
]
