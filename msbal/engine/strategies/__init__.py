"""Statistics in, weights out: one idea a file."""

from msbal.engine.strategies.autobalance import Autobalance
from msbal.engine.strategies.avw import AVW
from msbal.engine.strategies.base import (
    Iteration,
    State,
    StepStrategy,
    Strategy,
    Weighing,
    available,
    make,
    register,
)
from msbal.engine.strategies.cov import CoV
from msbal.engine.strategies.dwa import DWA
from msbal.engine.strategies.equal import Equal
from msbal.engine.strategies.fixed import Fixed
from msbal.engine.strategies.gls import GLS
from msbal.engine.strategies.max_loss import MaxLoss
from msbal.engine.strategies.min_loss import MinLoss
from msbal.engine.strategies.positives import Positives
from msbal.engine.strategies.rlo import RLO
from msbal.engine.strategies.rlw import RLW
from msbal.engine.strategies.slaw import SLAW
from msbal.engine.strategies.uw import UW
from msbal.engine.strategies.uw_so import UWSO

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
    "CoV",
    "Equal",
    "Fixed",
    "Iteration",
    "MaxLoss",
    "MinLoss",
    "Positives",
    "State",
    "StepStrategy",
    "Strategy",
    "Weighing",
    "available",
    "make",
    "register",
]
