"""The balancing engine: losses in, weights out. Knows of no file, terminal or framework."""

from msbal.engine.balancer import Balancer
from msbal.engine.group import BalancerSet, GroupNames
from msbal.engine.interval import IntervalReport
from msbal.engine.losses import LevelLosses, Losses, gather
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.actions import AVW, Equal, MaxLoss, MinLoss, SelectionStrategy
from msbal.engine.strategies.base import State, Strategy, StrategyError
from msbal.engine.strategies.registry import available, make, register
from msbal.engine.strategies.rlo import RLO
from msbal.engine.strategies.step import Iteration, StepStrategy, Weighing
from msbal.record import IntervalRecord, NonFinite

__all__ = [
    "AVW", "RLO", "Balancer", "BalancerSet", "Equal", "GroupNames", "IntervalRecord", "IntervalReport",
    "IntervalStatistics", "Iteration", "LevelLosses", "Losses", "MaxLoss", "MinLoss", "NonFinite", "SelectionStrategy",
    "State", "StepStrategy", "Strategy", "StrategyError", "Weighing", "available", "gather", "make", "register",
]  # fmt: skip
