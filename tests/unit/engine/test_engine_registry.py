"""Strategies by name, other packages' among them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from msbal.engine import (
    AVW,
    RLO,
    Balancer,
    IntervalStatistics,
    SelectionStrategy,
    State,
    Strategy,
    available,
    make,
    register,
)
from msbal.engine.strategies import registry

BUILT_IN = {
    "avw", "min_loss", "max_loss", "equal", "fixed", "rlo",
    "uw", "uw_so", "gls", "dwa", "rlw", "cov", "slaw", "autobalance", "positives", "stride",
    "softadapt", "relobralo", "stch", "floor",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> object:
    available()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    registry._load_all.cache_clear()
    yield
    registry._load_all.cache_clear()


def test_built_in_names() -> None:
    assert set(available()) >= BUILT_IN
    assert make("avw", top_k=1) == AVW(top_k=1)


def test_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ValueError, match=r"avw, cov.*slaw.*Found `foo`"):
        make("foo")


def test_registered_by_decorator() -> None:
    @register
    @dataclass(frozen=True)
    class Half(Strategy):
        name: ClassVar[str] = "half"
        factor: float = 0.5

        def decide(
            self, statistics: IntervalStatistics, state: State, rng: np.random.Generator
        ) -> tuple[np.ndarray, State]:
            return np.full_like(statistics.loss, self.factor), state

    balancer = Balancer(["a", "b"], "half", interval=2)
    for _ in range(2):
        balancer(torch.ones(2))
    (record,) = balancer.drain()
    assert (record.action, record.weights) == ("half", (0.5, 0.5))
    assert register(Half) is Half  # again is harmless

    @dataclass(frozen=True)
    class Other(Half):
        pass

    with pytest.raises(ValueError, match=r"`half` should be free\. Found it taken by"):
        register(Other)


def test_what_is_no_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="subclass of Strategy"):
        register(int)  # type: ignore[type-var]

    @dataclass(frozen=True)
    class Nameless(AVW):
        name: ClassVar[str] = ""

    with pytest.raises(ValueError, match="non-empty"):
        register(Nameless)


def test_rlo_takes_other_selections_as_actions() -> None:
    @register
    @dataclass(frozen=True)
    class Coarsest(SelectionStrategy):
        name: ClassVar[str] = "coarsest"

        def score(self, statistics: IntervalStatistics) -> np.ndarray:
            return np.arange(len(statistics.loss))

    balancer = Balancer(["a", "b", "c"], RLO(actions=("coarsest", "equal"), top_k=1), interval=2)
    for _ in range(40):
        balancer(torch.ones(3))
    weights = {record.action: record.weights for record in balancer.drain()}
    assert weights == {"coarsest": (1, 1, 1.5), "equal": (1, 1, 1)}


PACKAGE = """
from dataclasses import dataclass
from typing import ClassVar
from msbal.engine import Equal, register

@dataclass(frozen=True)
class Foreign(Equal):
    name: ClassVar[str] = "foreign"
"""


def install(folder: Path, entry_points: str, module: str = PACKAGE) -> None:
    info = folder / "foreign_strategies-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-strategies\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[msbal.strategies]\n{entry_points}\n")
    (folder / "foreign_strategies.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("foreign_strategies", None)


def test_entry_point(site: Path) -> None:
    install(site, "foreign = foreign_strategies:Foreign")
    assert make("foreign").name == "foreign"
    assert Balancer(["a", "b"], "foreign", interval=2).strategy == available()["foreign"]()


@pytest.mark.parametrize(
    ("entry_points", "says"),
    [
        ("foreign = foreign_strategies:Missing", "AttributeError.*Missing"),
        ("foreign = no_such_module:Foreign", "ModuleNotFoundError.*no_such_module"),
        ("alias = foreign_strategies:Foreign", "its name is not `alias`"),
        ("foreign = foreign_strategies:dataclass", "its name is not `foreign`"),
    ],
)
def test_broken_entry_points_say_why_and_break_nothing_else(site: Path, entry_points: str, says: str) -> None:
    install(site, entry_points)
    assert set(available()) >= BUILT_IN
    assert isinstance(make("rlo"), RLO)
    with pytest.raises(ValueError, match=says):
        make(entry_points.split()[0])
