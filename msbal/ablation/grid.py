"""Expand an ablation spec into cells: every arm with every seed, each a complete run spec.

A cell is identified by a hash of its resolved spec, by which finished and changed runs are recognised.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msbal.ablation.paper_layout import check_arms
from msbal.ablation.spec import AblationSpec
from msbal.errors import SpecError, suggest
from msbal.records.names import short_names
from msbal.spec import RunSpec, differences, dump_spec, parse_spec, put, read_mapping

NOT_HASHED = ("output", "log")
"""Sections that do not affect a run's result."""

SPEAKING = ("strategy", "name", "backbone", "config")
"""Keys whose values name an arm well enough by themselves."""

MAX_NAME = 60  # characters of an arm's name, which becomes a folder
SMOKE_SEEDS = 2


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        spec: the complete spec; its `output` is the cell's own folder.
        hash: see `spec_hash`.
    """

    arm: str
    seed: int
    spec: RunSpec
    hash: str

    @property
    def name(self) -> str:
        """A name that is unique in the grid, for files."""
        return f"{self.arm}--seed-{self.seed}"


class Comparison(NamedTuple):
    """Two arms: the difference is the metric of `arm` minus that of `to`."""

    arm: str
    to: str


class Treatment(NamedTuple):
    """One change that several groups have, each with a baseline of its own: RLO on six detectors.

    Attributes:
        over: what the groups are, in the plural: detectors, data sets or settings.
        comparisons: one for each group.
    """

    name: str
    over: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Grid:
    """All cells, arm by arm.

    Attributes:
        baselines: the arm that each arm is compared to; a baseline is its own.
        replaced: a sentence for each section of the base that loses keys because an arm replaces it.
        contrasts: comparisons beside those to a baseline.
        treatments: changes that more than one group has.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    baselines: Mapping[str, str]
    cells: tuple[Cell, ...]
    output: Path
    replaced: tuple[str, ...] = ()
    contrasts: tuple[Comparison, ...] = ()
    treatments: tuple[Treatment, ...] = ()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All planned comparisons: each arm to its baseline, then the contrasts."""
        to_baseline = (
            Comparison(arm, self.baselines[arm]) for arm in self.arms if self.baselines[arm] != arm
        )
        return (*to_baseline, *self.contrasts)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """For each baseline, the arms compared to it, itself first."""
        found = {arm: [arm] for arm in self.arms if self.baselines[arm] == arm}
        for arm in self.arms:
            if self.baselines[arm] != arm:
                found[self.baselines[arm]].append(arm)
        return {baseline: tuple(arms) for baseline, arms in found.items()}

    @property
    def baseline(self) -> str:
        """The baseline, or the first of several."""
        return next(iter(self.groups))

    def __len__(self) -> int:
        return len(self.cells)


def make_grid(ablation: AblationSpec, smoke: bool = False) -> Grid:
    """Expand an ablation, and validate the spec of every cell.

    Args:
        smoke: shrink the base by the ablation's ``smoke:``; at most two seeds, in a folder of their own.

    Raises:
        SpecError: if an arm's spec is wrong, naming the arm, or if two arms share a name.
    """
    raw, folder, source = _base(ablation)
    seeds, output = ablation.seeds, ablation.output
    for key, value in {**ablation.set, **(ablation.smoke if smoke else {})}.items():
        put(raw, key, value)
    if smoke:
        seeds, output = seeds[:SMOKE_SEEDS], output.with_name(f"{output.name}-smoke")
    arms = dict(_arms(ablation, smoke))
    for arm in ablation.published:
        if arm not in arms:
            raise SpecError("published", f"`{arm}` is no arm", fix=suggest(arm, arms))
    check_arms(ablation.table, arms)
    own = {arm: _with(raw, changes) for arm, changes in arms.items()}
    cells = []
    for arm in arms:
        for seed in seeds:
            place = {"seed": seed, "output": str(output / "runs" / arm / f"seed-{seed}")}
            spec = parse_spec({**own[arm], **place}, base=folder, source=f"{source}, arm {arm}")
            _check_evaluated(spec, arm)
            cells.append(Cell(arm, seed, spec, spec_hash(spec)))
    treatments: tuple[Treatment, ...] = ()
    if isinstance(ablation.baseline, dict):
        baselines = _same_but_for(ablation.baseline, own, folder)
        treatments = _treatments(ablation.baseline, baselines, {cell.arm: cell.spec for cell in cells})
    else:
        baseline = slug(ablation.baseline) if ablation.baseline is not None else next(iter(arms))
        if baseline not in arms:
            raise SpecError(
                "baseline",
                f"`{baseline}` is no arm",
                "an arm, or keys and values such as {balance.strategy: equal}",
                suggest(baseline, arms),
            )
        baselines = dict.fromkeys(arms, baseline)
    contrasts = _contrasts(ablation, arms, baselines)
    replaced = tuple(text for arm, changes in arms.items() for text in _replaced(raw, arm, changes))
    return Grid(tuple(arms), seeds, baselines, tuple(cells), output, replaced, contrasts, treatments)


def _contrasts(
    ablation: AblationSpec, arms: Collection[str], baselines: Mapping[str, str]
) -> tuple[Comparison, ...]:
    """Return what `compare` adds to the comparisons with the baselines.

    Raises:
        SpecError: for an arm that is not there, and for a comparison that is made already.
    """
    made = {Comparison(arm, base) for arm, base in baselines.items()}
    found: list[Comparison] = []
    for number, pair in enumerate(ablation.compare, start=1):
        first, second = map(slug, pair)
        for name in (first, second):
            if name not in arms:
                raise SpecError(f"compare, pair {number}", f"`{name}` is no arm", fix=suggest(name, arms))
        contrast = Comparison(first, second)
        if first == second or contrast in made or Comparison(second, first) in made:
            reason = "an arm and itself" if first == second else "compared already"
            raise SpecError(
                f"compare, pair {number}", f"[{first}, {second}]: {reason}", "two arms", "leave it out"
            )
        made.add(contrast)
        found.append(contrast)
    return tuple(found)


def remarks(grid: Grid) -> list[str]:
    """Return a sentence for each reason why a grid will show less than one might expect."""
    found = list(grid.replaced)
    if len(grid.seeds) == 1:
        found.append(
            "one seed cannot tell an effect from chance, so nothing will be concluded: set `seeds` to 3 or more"
        )
    if len(grid.arms) == 1:
        found.append(f"`{grid.arms[0]}` is the only arm: there is nothing to compare it to")
    arm_of: dict[str, str] = {}
    for cell in grid.cells:
        first = arm_of.setdefault(cell.hash, cell.arm)
        if first != cell.arm and cell.seed == grid.seeds[0]:
            found.append(f"the arms `{first}` and `{cell.arm}` are the same run: they will differ in nothing")
    return found


def _replaced(raw: Mapping[str, Any], arm: str, changes: Mapping[str, Any]) -> Iterator[str]:
    for key, value in changes.items():
        before: Any = raw
        for part in key.split("."):
            before = before.get(part) if isinstance(before, Mapping) else None
        if not (isinstance(before, Mapping) and isinstance(value, Mapping)):
            continue
        if lost := sorted(set(before) - set(value)):
            kept = next(iter(value), "KEY")
            yield (
                f"arm `{arm}` replaces all of the base's `{key}`, without its {', '.join(lost)}: write `{key}.{kept}` "
                "to set one key"
            )


def _with(raw: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(raw)
    for key, value in changes.items():
        put(changed, key, value)
    return changed


def _same_but_for(
    keys: Mapping[str, Any], arms: Mapping[str, dict[str, Any]], folder: Path
) -> dict[str, str]:
    """Return the baseline of each arm: the arm that has these values already, and otherwise the same spec
    outside the sections of these keys.

    Args:
        arms: the specs, as written.
    """
    touched = {key.split(".")[0] for key in keys} | {"seed", *NOT_HASHED}
    place = {"seed": 0, "output": "nowhere"}
    group_of: dict[str, str] = {}
    baseline_of: dict[str, str] = {}
    for arm, raw in arms.items():
        spec = parse_spec({**raw, **place}, base=folder, source=f"arm {arm}")
        rest = {key: value for key, value in dump_spec(spec).items() if key not in touched}
        group_of[arm] = json.dumps(rest, sort_keys=True, default=str)
        moved = parse_spec({**_with(raw, keys), **place}, base=folder, source=f"baseline, arm {arm}")
        if spec_hash(moved) != spec_hash(spec):
            continue
        other = baseline_of.setdefault(group_of[arm], arm)
        if other != arm:
            raise SpecError(
                "baseline", f"both `{other}` and `{arm}` have these values", "one arm for each comparison",
                "name more keys under `baseline`",
            )  # fmt: skip
    for arm, group in group_of.items():
        if group not in baseline_of:
            raise SpecError(
                "baseline", f"nothing to compare `{arm}` to",
                f"an arm with {', '.join(f'{key}: {_plain(value)}' for key, value in keys.items())}, and all "
                f"outside of {', '.join(sorted({key.split('.')[0] for key in keys}))} as in `{arm}`",
            )  # fmt: skip
    return {arm: baseline_of[group] for arm, group in group_of.items()}


def _treatments(
    keys: Mapping[str, Any], baselines: Mapping[str, str], specs: Mapping[str, RunSpec]
) -> tuple[Treatment, ...]:
    """Return what more than one group has: arms of different groups whose sections of these keys are the same."""
    touched = {key.split(".")[0] for key in keys} - {"seed", *NOT_HASHED}
    dumped = {arm: dump_spec(spec) for arm, spec in specs.items()}
    found: dict[str, dict[str, str]] = {}
    for arm, base in baselines.items():
        if arm != base:
            content = json.dumps({key: dumped[arm].get(key) for key in touched}, sort_keys=True, default=str)
            found.setdefault(content, {}).setdefault(base, arm)
    treatments: dict[str, Treatment] = {}
    for arms in found.values():
        if len(arms) < 2:
            continue
        bases = [dumped[base] for base in arms]
        other = {key.split(".")[0] for each in bases[1:] for key, *_ in differences(bases[0], each)}
        over = {"model": "detectors", "data": "data sets"}
        kinds = [name for section, name in over.items() if section in other]
        name = _common_name(list(arms.values())) or f"treatment {len(treatments) + 1}"
        name = f"{name} ({len(treatments) + 1})" if name in treatments else name
        comparisons = tuple(Comparison(arm, base) for base, arm in arms.items())
        treatments[name] = Treatment(name, " and ".join(kinds) or "settings", comparisons)
    return tuple(treatments.values())


def _common_name(arms: Sequence[str]) -> str:
    """Return what the names of all these arms have in common: ``rlo`` of ``atss,rlo`` and ``fcos,rlo``."""
    for separator in ",-_+":
        words = [arm.split(separator) for arm in arms]
        if common := [word for word in words[0] if all(word in other for other in words[1:])]:
            return separator.join(common)
    return ""


def spec_hash(spec: RunSpec) -> str:
    """Return the SHA-256 (16 hex digits) of everything in a resolved spec that can affect its result."""
    content = {key: value for key, value in dump_spec(spec).items() if key not in NOT_HASHED}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_difference(old: RunSpec, new: RunSpec) -> str:
    """Return the first key in which two specs differ, as ``schedule.iterations was 10, is 20``."""
    for key, before, after in differences(dump_spec(old), dump_spec(new)):
        if key.split(".")[0] not in NOT_HASHED:
            return f"{key} was {before!r}, is {after!r}"
    return ""


def _base(ablation: AblationSpec) -> tuple[dict[str, Any], Path, str]:
    """Return the base as a mapping, the folder that its paths are relative to, and its name for errors."""
    if isinstance(ablation.base, dict):
        return copy.deepcopy(ablation.base), Path.cwd(), "base"
    return read_mapping(ablation.base), ablation.base.parent, ablation.base.name


def _arms(ablation: AblationSpec, smoke: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and changes of every arm: the named arms times all combinations of the axes."""
    seen: dict[str, str] = {}
    keys = [key.split(".") for key in ablation.axes]
    shorts = dict(zip(ablation.axes, short_names(keys, ".", alike=False), strict=True))
    for name, changes in (ablation.arms or {"": {}}).items():
        for values in itertools.product(*ablation.axes.values()):
            axes = dict(zip(ablation.axes, values, strict=True))
            parts = [name] if name else []
            parts += [_value_name(shorts[key], value) for key, value in axes.items()]
            arm = slug(",".join(parts))
            # Names become folders, and some file systems ignore case.
            if arm.lower() in seen:
                raise SpecError(
                    "arms", f"two arms are named `{arm}`", "different names", "name them under `arms`"
                )
            seen[arm.lower()] = arm
            yield arm, {**changes, **axes, **(ablation.smoke_arms.get(name, {}) if smoke else {})}


def slug(name: str) -> str:
    """Return `name` as a file name: letters, digits and ``,=+._-``; a long one ends in a hash of the whole."""
    plain = re.sub(r"[^\w,=+.-]+", "-", name).strip("-.") or "arm"
    if len(plain) <= MAX_NAME:
        return plain
    return f"{plain[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _value_name(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return "+".join(f"{k}={_plain(v)}" for k, v in value.items()) or f"{key}=default"
    return _plain(value) if key in SPEAKING and value is not None else f"{key}={_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "+".join(_plain(item) for item in value) or "none"
    return json.dumps(value, default=str)


def _check_evaluated(spec: RunSpec, arm: str) -> None:
    if not spec.evaluate.enabled:
        raise SpecError(
            f"arm {arm}: evaluate.enabled", "false", "true: without metrics there is nothing to compare"
        )
    if not spec.data.has_val:
        raise SpecError(f"arm {arm}: data", "nothing to evaluate on", "`val` or `holdout`")
