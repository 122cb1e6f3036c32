"""From an ablation spec to its cells: every arm with every seed, each a whole run spec.

A cell's identity is a hash of its resolved spec, so that a finished run is recognised, and a changed one too.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msbal.ablation.spec import AblationSpec
from msbal.errors import SpecError, suggest
from msbal.spec import RunSpec, balance_models, dump_spec, parse_spec, read_mapping

NOT_HASHED = ("output", "log")
"""Sections that change nothing of a run's result."""

SPEAKING = ("strategy", "name", "backbone", "config")
"""Keys whose values name an arm well enough without the key."""

LONGEST = 60  # characters of an arm's name; it becomes a folder
SMOKE_SEEDS = 2


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        spec: complete; its `output` is the cell's own folder.
        hash: of the resolved spec, without where it is written.
    """

    arm: str
    seed: int
    spec: RunSpec
    hash: str

    @property
    def name(self) -> str:
        """Unique in the grid, and a file name."""
        return f"{self.arm}--seed-{self.seed}"


@dataclass(frozen=True)
class Grid:
    """All cells, arm by arm.

    Attributes:
        baseline: one of `arms`.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str
    cells: tuple[Cell, ...]
    output: Path

    def __len__(self) -> int:
        return len(self.cells)


def make_grid(ablation: AblationSpec, smoke: bool = False) -> Grid:
    """Expand an ablation; every cell's spec is validated.

    Args:
        smoke: with the base shrunk by the ablation's ``smoke:``, at most two seeds, and a folder of its own.

    Raises:
        SpecError: where an arm's spec is wrong, naming the arm, or two arms have one name.
    """
    raw, folder, source = _base(ablation)
    seeds, output = ablation.seeds, ablation.output
    for key, value in {**ablation.set, **(ablation.smoke if smoke else {})}.items():
        put(raw, key, value)
    if smoke:
        seeds, output = seeds[:SMOKE_SEEDS], output.with_name(f"{output.name}-smoke")
    arms = dict(_arms(ablation))
    baseline = slug(ablation.baseline) if ablation.baseline is not None else next(iter(arms))
    if baseline not in arms:
        raise SpecError("baseline", f"`{baseline}` is no arm", fix=suggest(baseline, arms))
    for arm in ablation.published:
        if arm not in arms:
            raise SpecError("published", f"`{arm}` is no arm", fix=suggest(arm, arms))
    cells = []
    for arm, changes in arms.items():
        for seed in seeds:
            own = copy.deepcopy(raw)
            for key, value in changes.items():
                put(own, key, value)
            own["seed"] = seed
            own["output"] = str(output / "runs" / arm / f"seed-{seed}")
            spec = parse_spec(own, base=folder, source=f"{source}, arm {arm}")
            _check_evaluated(spec, arm)
            cells.append(Cell(arm, seed, spec, spec_hash(spec)))
    return Grid(tuple(arms), seeds, baseline, tuple(cells), output)


def spec_hash(spec: RunSpec) -> str:
    """SHA-256 (16 hex digits) of everything in a resolved spec that can change its result."""
    content = {key: value for key, value in dump_spec(spec).items() if key not in NOT_HASHED}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def first_difference(old: RunSpec, new: RunSpec) -> str:
    """The first key in which two specs differ, as ``schedule.iterations was 10, is 20``."""
    before, after = (dict(_flat(dump_spec(spec))) for spec in (old, new))
    for key in sorted({*before, *after}):
        if key.split(".")[0] not in NOT_HASHED and before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
    return ""


def put(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in place; another strategy keeps only what it knows of the one before.

    Raises:
        SpecError: where the key leads through something that has no keys.
    """
    parts = key.split(".")
    if not all(part.strip() for part in parts):
        raise SpecError(f"`{key}`", "an empty part", "a dotted key such as balance.interval")
    at = raw
    for i, part in enumerate(parts[:-1]):
        if at.get(part) is None:
            at[part] = {}
        following = at[part]
        if not isinstance(following, dict):
            raise SpecError(key, f"`{'.'.join(parts[: i + 1])}` is {following!r}", "keys and values")
        at = following
    if key == "balance.strategy":
        _change_strategy(at, value)
    at[parts[-1]] = copy.deepcopy(value)


def _change_strategy(balance: dict[str, Any], strategy: Any) -> None:
    """Drop what belongs to the strategy before, but leave what no strategy knows: that is a mistake."""
    models = balance_models()
    old = balance.get("strategy", "rlo")
    if old == strategy or old not in models or strategy not in models:
        return
    for key in set(models[old].model_fields) - set(models[strategy].model_fields):
        balance.pop(key, None)


def _base(ablation: AblationSpec) -> tuple[dict[str, Any], Path, str]:
    """The base's mapping, the folder that its paths start from, and what to call it."""
    if isinstance(ablation.base, dict):
        return copy.deepcopy(ablation.base), Path.cwd(), "base"
    return read_mapping(ablation.base), ablation.base.parent, ablation.base.name


def _arms(ablation: AblationSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every arm's name and changes: the named ones, times all combinations of the axes."""
    seen: dict[str, str] = {}
    shorts = _short_keys(list(ablation.axes))
    for name, changes in (ablation.arms or {"": {}}).items():
        for values in itertools.product(*ablation.axes.values()):
            axes = dict(zip(ablation.axes, values, strict=True))
            parts = [name] if name else []
            parts += [_value_name(shorts[key], value) for key, value in axes.items()]
            arm = slug(",".join(parts))
            # Names become folders, and some file systems do not tell a from A.
            if arm.lower() in seen:
                raise SpecError(
                    "arms", f"two arms are named `{arm}`", "different names", "name them under `arms`"
                )
            seen[arm.lower()] = arm
            yield arm, {**changes, **axes}


def slug(name: str) -> str:
    """`name` as a file name: letters, digits and ``,=+._-``; a long one ends in a hash of the whole."""
    plain = re.sub(r"[^\w,=+.-]+", "-", name).strip("-.") or "arm"
    if len(plain) <= LONGEST:
        return plain
    return f"{plain[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Each key's shortest ending that no other has."""
    short = {}
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            ending = ".".join(parts[-length:])
            if sum(other == ending or other.endswith(f".{ending}") for other in keys) == 1:
                break
        short[key] = ending
    return short


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
        raise SpecError(f"arm {arm}: evaluate.enabled", "false", "true: without figures nothing is compared")
    if not spec.data.has_val:
        raise SpecError(f"arm {arm}: data", "nothing to evaluate on", "`val` or `holdout`")


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
