"""The strategies' contract, for those of ours that decide by gradients."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, ClassVar

import pytest
from needed import need_packages

from msbal.baselines import GradNorm, Gramian
from msbal.engine import RLO, Strategy
from msbal.testing.strategies import StrategyContract


class TestGradNorm(StrategyContract):
    strategies = (
        GradNorm(),
        GradNorm(alpha=1.5, smoothing=0.0, cap=100.0),
        RLO(actions=("grad_norm", "avw", "equal"), step=0.2),
    )


class TestGramian(StrategyContract):
    strategies: ClassVar[Any] = (
        (Gramian(), Gramian(weighting="gradvac", smoothing=0.0), Gramian(weighting="mgda", options={"epsilon": 0.01}))
        if find_spec("torchjd")
        else ()
    )  # fmt: skip


def test_torchjd_is_there() -> None:
    need_packages("torchjd")
    assert all(strategy.needs_gradients for strategy in TestGramian.strategies)


@pytest.mark.parametrize("actions", [("avw", "equal"), ("avw", "grad_norm")])
def test_rlo_needs_gradients_where_an_action_does(actions: tuple[str, str]) -> None:
    strategy: Strategy = RLO(actions=actions)
    assert strategy.needs_gradients == ("grad_norm" in actions)
    assert not RLO.needs_gradients
