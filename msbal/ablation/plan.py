"""The plan of an ablation: what it was to answer, written down before its first run.

A verdict holds for the question that was asked beforehand. Whoever sees the results first and then chooses metric,
seeds or comparisons finds something by luck alone. So the first call writes the plan into the grid's folder, and a
later change of it is kept beside it, with how many runs were finished by then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from msbal import __version__
from msbal.ablation.grid import Grid
from msbal.ablation.spec import AblationSpec
from msbal.errors import SpecError
from msbal.metric_text import in_points
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
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    looks: Annotated[tuple[int, ...], Field(min_length=1)]
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


def sentences(plan: Plan | None, asked: Question | None = None, finished: int = 0) -> tuple[str, ...]:
    """Return what a reader of the report should know of the plan: that it came late, what was changed, and when.

    Changes before the first finished run are not named: nothing had been seen by then.

    Args:
        asked: what the report is about, if nothing has been run and so nothing written into the plan.
        finished: how many runs are finished.
    """
    if plan is None:
        return (
            (f"Nothing was planned: {_runs(finished)} had finished before there was a plan.",)
            if finished
            else ()
        )
    said = []
    if plan.finished:
        said.append(f"Planned only after {_runs(plan.finished)} had finished.")
    # The specs' hashes include the first seed.
    moved = {c.at for c in plan.changes if c.key == "seeds" and c.before[0] != c.after[0]}
    shown = [c for c in plan.changes if c.finished and not (c.key == "specs" and c.at in moved)]
    for change in shown:
        if text := _difference(change.key, change.before, change.after, "planned", "changed to"):
            said.append(f"{text} after {_runs(change.finished)} had finished{_warning(change)}.")
    if asked is not None:
        old, new = asdict(plan.newest), asdict(asked)
        keys = [key for key in new if old[key] != new[key] and key != "specs"]
        texts = [_difference(key, old[key], new[key], "planned", "in this report") for key in keys]
        said += [f"{text}." for text in texts if text]
    return tuple(said)


def _difference(key: str, before: Any, after: Any, planned: str, changed: str) -> str:
    """Return ``Metric: planned AP, changed to AP50``; nothing where another key says it."""
    if key == "metric":
        return f"Metric: {planned} {before}, {changed} {after}"
    if key == "gain":
        return f"Gain: {planned} {in_points(before)}, {changed} {100 * after:g}"
    if key == "seeds":
        changed = "extended to" if changed == "changed to" and set(before) < set(after) else changed
        return f"Seeds: {planned} {_span(before)}, {changed} {_span(after)}"
    if key == "looks":
        # A single look is after all seeds, and those have a sentence of their own.
        alone = max(len(before), len(after)) == 1
        return "" if alone else f"Looks: {planned} after {listed(before)} seeds, {changed} {listed(after)}"
    if key == "comparisons":
        added = [f"{arm} with {to}" for arm, to in after if (arm, to) not in before]
        dropped = [f"{arm} with {to}" for arm, to in before if (arm, to) not in after]
        parts = [f"{listed(each)} {said}" for each, said in ((added, "added"), (dropped, "left out")) if each]
        return f"Comparisons: {'; '.join(parts)}" if parts else ""  # only their order differs
    arms = [arm for arm in after if arm in before and after[arm] != before[arm]]
    return f"Settings of {listed(arms)}: changed" if arms else ""


def _warning(change: Change) -> str:
    if change.key == "seeds" and set(change.before) < set(change.after):
        return "; a p-value does not hold for seeds that are added until it is small"
    return ""


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _span(seeds: Sequence[int]) -> str:
    """Return ``0 to 7``, or the seeds one by one where they are not consecutive."""
    follow = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if follow else listed(seeds)


def listed(items: Sequence[Any]) -> str:
    """Return ``3, 5 and 8``."""
    *before, last = map(str, items)
    return f"{', '.join(before)} and {last}" if before else last


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
        plan = Plan(_question(raw.pop("question")), changes=changes, **raw)
        _check(plan)
        return plan
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Found {first['input']!r}"
        raise SpecError(
            str(file), f"not readable: {reason}", "the plan that msbal wrote", "delete it"
        ) from error


def _check(plan: Plan) -> None:
    """Check the types of everything in a plan that was read.

    Raises:
        pydantic.ValidationError: for the first that is wrong.
    """
    TypeAdapter(Plan).validate_python(asdict(plan))
    for change in plan.changes:
        for value in (change.before, change.after):
            TypeAdapter(Question).validate_python({**asdict(plan.question), change.key: value})


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
