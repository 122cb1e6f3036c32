"""Keys that are laid over a spec: ``--set`` on the command line, the arms of an ablation."""

from __future__ import annotations

import copy
from typing import Any

from msbal.errors import SpecError
from msbal.spec.balance import balance_models
from msbal.spec.text import safe_yaml

INSTEAD_OF = {"schedule.iterations": "epochs", "schedule.epochs": "iterations"}
"""Where a spec has one of two keys, setting the other replaces it."""


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in place; the value is read as YAML.

    Raises:
        SpecError: where it has no ``=``, or leads through something that has no keys.
    """
    key, equals, text = override.partition("=")
    key = ".".join(part.strip() for part in key.split("."))
    if not equals or not all(key.split(".")):
        raise SpecError("--set", f"`{override}`", "KEY=VALUE, e.g. balance.interval=50")
    put(raw, key, safe_yaml(text, f"--set {key}"), where=f"--set {key}")


def put(raw: dict[str, Any], key: str, value: Any, where: str | None = None) -> None:
    """Set a dotted key in place; another strategy keeps only what it knows of the one before.

    Args:
        where: what to call the key in errors.

    Raises:
        SpecError: where the key leads through something that has no keys.
    """
    parts = key.split(".")
    if not all(part.strip() for part in parts):
        raise SpecError(f"`{key}`", "an empty part", "a dotted key such as balance.interval")
    at = raw
    for i, part in enumerate(parts[:-1]):
        following = at.get(part)
        if following is None:
            following = {}
        if not isinstance(following, dict):
            raise SpecError(where or key, f"`{'.'.join(parts[: i + 1])}` is {following!r}", "keys and values")
        # A copy: YAML's anchors may have the same mapping elsewhere too.
        at[part] = dict(following)
        at = at[part]
    if key == "balance.strategy":
        _change_strategy(at, value)
    elif key in INSTEAD_OF and value is not None:
        at.pop(INSTEAD_OF[key], None)
    at[parts[-1]] = copy.deepcopy(value)


def _change_strategy(balance: dict[str, Any], strategy: Any) -> None:
    """Drop what belongs to the strategy before, but leave what no strategy knows: that is a mistake."""
    old = balance.get("strategy", "rlo")
    if old == strategy or not isinstance(old, str) or not isinstance(strategy, str):
        return
    models = balance_models()
    if old in models and strategy in models:
        for key in set(models[old].model_fields) - set(models[strategy].model_fields):
            balance.pop(key, None)
