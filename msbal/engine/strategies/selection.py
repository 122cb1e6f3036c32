"""The strategies that select levels and amplify them by eq 5: AVW and the paper's actions a1 and a2."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import State, Strategy
from msbal.engine.weighting import amplify_top


@dataclass(frozen=True)
class SelectionStrategy(Strategy):
    """Amplifies the `top_k` levels with the highest score.

    Attributes:
        amplification: lambda of eq 5.
        top_k: how many levels are amplified; the paper found 2 to be best.
    """

    amplification: float = 1.5
    top_k: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.amplification < float("inf"):
            raise ValueError(f"amplification should be finite and at least 0. Found {self.amplification}.")
        if self.top_k < 1:
            raise ValueError(f"top_k should be at least 1. Found {self.top_k}.")

    def check(self, levels: int) -> None:
        if self.top_k >= levels:
            raise ValueError(
                f"top_k should be below the number of levels, {levels}: amplifying all of them only raises "
                f"the learning rate. Found {self.top_k}."
            )

    @abstractmethod
    def score(self, statistics: IntervalStatistics) -> Tensor:
        """``[K]``: the highest are amplified."""

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        score = self.score(statistics)
        return amplify_top(score, statistics.loss, self.top_k, self.amplification), state
