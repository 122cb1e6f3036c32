"""The plan of an ablation: what it was to answer, written down before its first run.

A verdict holds for the question that was asked beforehand. Whoever sees the results first and then chooses metric,
seeds or comparisons finds something by luck alone. So the first call writes the plan into the grid's folder, and a
later change of it is kept beside it, with how many runs were finished by then.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from msbal import __version__
from msbal.ablation.grid import Grid
from msbal.ablation.spec import AblationSpec
from msbal.errors import SpecError
from msbal.records.atomic import write_json

FILE = "plan.json"


@dataclass(frozen=True)
class Question:
    """What an ablation is to answer, as its spec says it.

    Attributes:
        gain: the smallest difference that matters, 0..1.
        looks: the numbers of seeds after which the results are looked at.
        comparisons: pairs of arms, each arm and what it is compared to.
        specs: by arm, the hash of its run spec with the first seed.
    """

    metric: str
    gain: float
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    comparisons: tuple[tuple[str, str], ...]
    specs: dict[str, str]


@dataclass(frozen=True)
class Change:
    """One part of the question, changed after the first call.

    Attributes:
        at: when, UTC, ISO 8601.
        finished: how many runs were finished by then.
        key: which field of the `Question`.
    """

    at: str
    finished: int
    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Plan:
    """The question as it stood before the first run, and what was changed later.

    Attributes:
        at: when it was written, UTC, ISO 8601.
        finished: how many runs were finished by then: 0, unless an earlier version of msbal had begun the grid.
    """

    question: Question
    at: str
    finished: int = 0
    msbal: str = __version__
    changes: tuple[Change, ...] = field(default=())

    def updated(self, question: Question, finished: int) -> Plan:
        """Return the plan with what `question` changes in the newest state of it."""
        now, old, new = _now(), asdict(self.newest), asdict(question)
        changed = [Change(now, finished, key, old[key], new[key]) for key in new if old[key] != new[key]]
        return replace(self, changes=(*self.changes, *changed))

    @property
    def newest(self) -> Question:
        """The question with all changes."""
        return replace(self.question, **{change.key: change.after for change in self.changes})


def question_of(ablation: AblationSpec, grid: Grid) -> Question:
    """Return what a spec asks."""
    first = {cell.arm: cell.hash for cell in reversed(grid.cells)}
    specs = {arm: first[arm] for arm in grid.arms}
    return Question(
        ablation.metric,
        ablation.gain,
        grid.seeds,
        looks_of(ablation, grid),
        tuple((arm, to) for arm, to in grid.comparisons),
        specs,
    )


def looks_of(ablation: AblationSpec, grid: Grid) -> tuple[int, ...]:
    """Return after how many seeds a grid is looked at: once, unless it is sequential. Smoke runs have few seeds."""
    return tuple(look for look in ablation.planned_looks if look <= len(grid.seeds)) or (len(grid.seeds),)


def sentences(plan: Plan | None, question: Question | None = None) -> tuple[str, ...]:
    """Return what was changed after the plan was made, and what a report asks that was not planned.

    Args:
        question: the report's, where nothing is run and so nothing is written into the plan.
    """
    return ()


def read_plan(folder: Path) -> Plan | None:
    """Return the plan in a grid's folder; None where there is none.

    Raises:
        SpecError: where the file is not one of ours.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        changes = tuple(Change(**{**each, **_value(each)}) for each in raw.pop("changes"))
        return Plan(_question(raw.pop("question")), changes=changes, **raw)
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(
            str(file), f"not readable: {error}", "the plan that msbal wrote", "delete it"
        ) from error


def write_plan(folder: Path, question: Question, finished: int) -> Plan:
    """Write the plan at the first call, and later what has changed; return it."""
    plan = read_plan(folder)
    plan = Plan(question, _now(), finished) if plan is None else plan.updated(question, finished)
    write_json(folder / FILE, asdict(plan), indent=1)
    return plan


def _question(raw: dict[str, Any]) -> Question:
    return Question(**{key: _as_tuples(key, value) for key, value in raw.items()})


def _value(change: dict[str, Any]) -> dict[str, Any]:
    return {side: _as_tuples(change["key"], change[side]) for side in ("before", "after")}


def _as_tuples(key: str, value: Any) -> Any:
    """JSON knows no tuples."""
    if key == "comparisons":
        return tuple(map(tuple, value))
    return tuple(value) if key in ("seeds", "looks") else value


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
