"""A ready ablation for what a diagnosis has found: the framework's own weights, at most two strategies, and a control
that tells balancing from a larger or smaller learning rate."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import yaml

from msbal.diagnosis.findings import fixed_weights
from msbal.engine import available
from msbal.errors import as_typed
from msbal.records.diagnosis import LevelDiagnosis
from msbal.spec import RunSpec

FILE = "ablation.yaml"
CANDIDATES = 2
SEEDS = 5
SAME = 1.1
"""Learning rates within this factor are one."""

REASONS = {
    "grad_norm": "Weights for equal gradient norms, measured anew at the end of each interval.",
    "fixed": "Constant weights, which give the gradients equal norms (geometric mean of the moments measured).",
    "gramian": "Weights that no level's gradient pulls against (UPGrad), found anew at the end of each interval.",
    "positives": "Favours levels with few positive samples: here these go with the gradients.",
    "floor": "Raises a level whose share of the loss is small, and leaves the others alone.",
    "rlo": "The paper's strategy, which decides anew in each interval.",
}
ARMS = {"fixed": "equal-norms", "gramian": "upgrad"}


class _Arm(NamedTuple):
    name: str
    reason: str
    keys: dict[str, Any]


def propose(diagnosis: LevelDiagnosis, spec: RunSpec, base: str, overrides: Sequence[str] = ()) -> str | None:
    """Return the ablation spec, with comments; None where nothing was found that a strategy might mend, or where the
    data have nothing to evaluate on.

    Args:
        spec: what was diagnosed.
        base: the path of its file, relative to where the ablation will stand.
        overrides: of the spec's keys, as ``--set`` takes them.
    """
    arms = _arms(diagnosis, spec)
    if len(arms) < 2 or not spec.data.has_val:
        return None
    reasons = [finding for finding in diagnosis.findings if finding.strategies]
    lines = [
        *_comment(f"Proposed by `msbal diagnose` for {diagnosis.model} ({diagnosis.backend}). What speaks for it:"),
        *(line for finding in reasons for line in _comment(finding.text, first="- ")),
        "#",
        f"#   msbal ablate {FILE} --dry-run     the grid, how long it takes, and which gain it can see",
        f"#   msbal ablate {FILE} --smoke       everything once, in minutes",
        f"#   msbal ablate {FILE}               the ablation; stop it whenever you like",
        _line("base", base),
        *_set(spec, overrides),
        "",
        "arms:",
    ]  # fmt: skip
    for arm in arms:
        lines += [f"  {line}" for line in _comment(arm.reason)]
        lines.append(f"  {arm.name}: {_flow(arm.keys)}")
    lines += [
        "",
        f"seeds: {SEEDS}",
        "baseline: equal",
        "metric: AP               # what the verdict is about, chosen beforehand",
        "gain: 0.005              # the smallest difference that matters: half a point",
        _line("output", f"{as_typed(spec.output)}-ablation"),
        "",
        f"smoke: {_flow(_smoke(spec))}",
    ]
    return "\n".join(lines) + "\n"


def _arms(diagnosis: LevelDiagnosis, spec: RunSpec) -> list[_Arm]:
    found: dict[str, dict[str, Any]] = {}
    # The first strategy of each finding, then the second of each.
    for of_each in zip_longest(*(finding.strategies for finding in diagnosis.findings)):
        for section in of_each:
            if section is not None:
                found.setdefault(section["strategy"], section)
    chosen = dict(list(found.items())[:CANDIDATES])
    arms = [_Arm("equal", "The framework's own training: every weight is 1.", {"balance.strategy": "equal"})]
    for name, section in chosen.items():
        keys = {f"balance.{key}": value for key, value in section.items()}
        measure = spec.balance.measure
        if available()[name].needs_gradients and measure is not None and measure > spec.balance.interval:
            keys["balance.measure"] = None  # it would keep its weights in the intervals without a measurement
        arms.append(_Arm(ARMS.get(name, name), REASONS.get(name, name), keys))
    return [*arms, _control(diagnosis, spec, chosen)] if chosen else arms


def _control(diagnosis: LevelDiagnosis, spec: RunSpec, chosen: dict[str, dict[str, Any]]) -> _Arm:
    """Return the arm that a gain has to beat, or it comes from another length of the steps."""
    if "rlo" in chosen:
        reason = "RLO with weights that sum to the number of levels: without it a gain may be a larger learning rate's."
        return _Arm("rlo-rescaled", reason, {"balance.strategy": "rlo", "balance.rescale": True})
    optimizer = spec.schedule.optimizer
    if (
        optimizer is not None
        and optimizer.name == "sgd"
        and optimizer.lr
        and {"grad_norm", "fixed"} & set(chosen)
    ):
        factor = _step_factor(diagnosis)
        if factor is not None and not 1 / SAME < factor < SAME:
            reason = (
                f"The control: equal norms make the gradient of the weighted loss {factor:.2g} times as long, and so "
                "SGD's steps. If this arm gains as much, it was the learning rate."
            )
            rate = float(f"{factor * optimizer.lr:.2g}")
            return _Arm("equal-lr", reason, {"balance.strategy": "equal", "schedule.optimizer.lr": rate})
    reason = (
        "The control: random weights with the same sum, and so about the same learning rate. If this arm gains as "
        "much, it was not the strategy."
    )
    return _Arm("rlw", reason, {"balance.strategy": "rlw"})


def _step_factor(diagnosis: LevelDiagnosis) -> float | None:
    """Return how much longer weights for equal norms make the whole gradient (geometric mean over the moments)."""
    factors = []
    for group in (group for state in diagnosis.states for group in state.groups):
        weights = fixed_weights(diagnosis, group.group)
        norm = np.array([each.mean for each in group.norm.get("shared", ())])
        if weights is None or not len(norm):
            return None
        gramian = np.outer(norm, norm) * np.nan_to_num([[each.mean for each in row] for row in group.cosine])
        before, after = gramian.sum(), np.array(weights) @ gramian @ np.array(weights)
        if not (before > 0 and after > 0):
            return None
        factors.append(np.log(after / before) / 2)
    return float(np.exp(np.mean(factors)))


def _set(spec: RunSpec, overrides: Sequence[str]) -> list[str]:
    own = {} if spec.evaluate.enabled else {"evaluate.enabled": True}
    given = {
        key.strip(): yaml.safe_load(text) for key, _, text in (each.partition("=") for each in overrides)
    }
    keys = {
        key: value for key, value in {**given, **own}.items() if key.split(".")[0] not in ("seed", "output")
    }
    return [f"set: {_flow(keys)}"] if keys else []


def _smoke(spec: RunSpec) -> dict[str, Any]:
    keys: dict[str, Any] = {"schedule.iterations": 20, "balance.interval": 5}
    return keys | ({"schedule.warmup": 2} if spec.schedule.warmup else {})


def _comment(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        100,
        initial_indent=f"# {first}",
        subsequent_indent="# " + " " * len(first),
        break_long_words=False,
    )


def _line(key: str, value: str) -> str:
    text: str = yaml.safe_dump({key: value}, width=float("inf"), allow_unicode=True)
    return text.strip()


def _flow(value: dict[str, Any]) -> str:
    """Return keys and values on one line of YAML."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return text.strip()
