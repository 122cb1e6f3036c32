"""The strategies' contract, for those of ours that decide by gradients."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

from needed import need_packages

from msbal.baselines import GradNorm, Gramian
from msbal.testing.strategies import StrategyContract


class TestGradNorm(StrategyContract):
    strategies = (GradNorm(), GradNorm(alpha=1.5, smoothing=0.0, cap=100.0))


class TestGramian(StrategyContract):
    strategies: ClassVar[Any] = (
        (Gramian(), Gramian(weighting="gradvac", smoothing=0.0), Gramian(weighting="mgda", options={"epsilon": 0.01}))
        if find_spec("torchjd")
        else ()
    )  # fmt: skip


def test_torchjd_is_there() -> None:
    need_packages("torchjd")
    assert all(strategy.needs_gradients for strategy in TestGramian.strategies)
