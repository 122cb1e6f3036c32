"""A run as the monitors see it, with known numbers."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType

from msbal.backend import LevelGroup
from msbal.engine.record import IntervalRecord, NonFinite
from msbal.ui.monitor import RunHeader


@pytest.fixture(autouse=True)
def ordinary_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich reads from the environment, the same on every machine."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def header() -> RunHeader:
    return RunHeader("shapes", "torchvision", "retinanet_r18", "rlo", 100, "cpu")


@pytest.fixture
def one_group() -> tuple[LevelGroup, ...]:
    levels = ("P3", "P4", "P5", "P6", "P7")
    return (LevelGroup("all", "RetinaNetHead", levels, (8, 16, 32, 64, 128), ("cls", "bbox")),)


@pytest.fixture
def two_groups() -> tuple[LevelGroup, ...]:
    return (
        LevelGroup("rpn", "RPN", ("P2", "P3", "P4", "P5", "P6"), (4, 8, 16, 32, 64), ("cls", "bbox")),
        LevelGroup("roi", "RoIHeads", ("P2", "P3", "P4", "P5"), (4, 8, 16, 32), ("cls", "bbox")),
    )


@pytest.fixture
def make_record() -> Callable[..., IntervalRecord]:
    """Record t of a group, RLO's unless `strategy` says otherwise; all numbers differ from each other."""

    def make(t: int, group: LevelGroup, strategy: str = "rlo", bad: int = 0) -> IntervalRecord:
        k = len(group.levels)
        by_term = {
            term: tuple(100 * (0.5 / (j + 1)) * 0.6**i * 0.97**t + 0.1 * j for i in range(k))
            for j, term in enumerate(group.terms)
        }
        loss = tuple(sum(row[i] for row in by_term.values()) for i in range(k))
        actions = ("avw", "min_loss", "max_loss", "equal")
        return IntervalRecord(
            interval=t,
            iteration=100 * t,
            levels=group.levels,
            loss=loss,
            loss_by_term=by_term,
            variance=tuple(1.2345e-3 * 0.5**i / t for i in range(k)),
            variance_reduction=tuple(0.31 - 0.23 * i for i in range(k)),
            weights=(1.6543, *(1.0,) * (k - 2), 1.0412),
            reward=None if strategy != "rlo" else 0 if t == 1 else 1 if t % 3 else -1,
            action=actions[t % 4] if strategy == "rlo" else strategy,
            probabilities=dict(zip(actions, (0.31, 0.27, 0.242, 0.178), strict=True))
            if strategy == "rlo"
            else {},
            group=group.name,
            count=100 - bad,
            previous_weights=(1.0,) * k if t == 1 else (1.6543, *(1.0,) * (k - 2), 1.0412),
            nonfinite=tuple(NonFinite(100 * t - n, "cls", "P3", 0, "nan") for n in range(bad)),
        )

    return make


@pytest.fixture
def paper() -> Callable[..., Console]:
    """A console without a terminal, whose text is read with ``.file.getvalue()``."""

    def make(width: int = 200) -> Console:
        return Console(file=io.StringIO(), width=width, force_terminal=False)

    return make


@pytest.fixture
def shown() -> Callable[[RenderableType, int, int], str]:
    """What a view shows on a terminal of so many columns and rows."""

    def draw(view: RenderableType, width: int, height: int) -> str:
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        options = console.options.update(width=width, height=height).reset_height()
        lines = console.render_lines(view, options, pad=False)
        return "\n".join("".join(segment.text for segment in line) for line in lines)

    return draw


METRICS = {
    "iteration": 500,
    "AP": 0.2314,
    "AP50": 0.4012,
    "AP75": 0.2111,
    "AP_S": None,
    "AP_M": 0.2513,
    "AP_L": 0.3333,
    "voc": {"mAP": 0.4444},
}


@pytest.fixture
def metrics() -> dict[str, object]:
    return dict(METRICS)
