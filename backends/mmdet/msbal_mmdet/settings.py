"""The keyword arguments of the hook, checked like a spec's ``balance:`` section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from msbal.backend import LevelGroup
from msbal.backend.kit.balanced import group_names
from msbal.engine import BalancerSet
from msbal.errors import SpecError, suggest
from msbal.spec import BalanceSpec, balance_models


def read_settings(strategy: str, values: Mapping[str, Any], where: str) -> BalanceSpec:
    """A ``balance:`` section.

    Args:
        strategy: its name.
        values: ``interval``, ``scope``, ``seed`` ... and the strategy's own hyperparameters.
        where: what to call it in errors.

    Raises:
        SpecError: naming the first key that is wrong.
    """
    models = balance_models()
    if strategy not in models:
        raise SpecError(f"{where}: strategy", f"`{strategy}` is unknown", fix=suggest(strategy, models))
    try:
        return models[strategy].model_validate({"strategy": strategy, **values})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or strategy
        if first["type"] == "extra_forbidden":
            raise SpecError(
                f"{where}: {key}", "unknown key", fix=suggest(key, models[strategy].model_fields)
            ) from error
        raise SpecError(f"{where}: {key}", repr(first.get("input")), first["msg"]) from error


def make_balancers(spec: BalanceSpec, groups: Sequence[LevelGroup], seed: int) -> BalancerSet:
    """The balancers of a model's groups.

    Raises:
        SpecError: where the number of levels does not fit the strategy.
    """
    try:
        return spec.make_balancers(group_names(groups), seed)
    except ValueError as error:
        levels = "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in groups)
        raise SpecError("balance", f"{error} The model has {levels}") from error
