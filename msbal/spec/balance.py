"""The spec's ``balance:`` section: one model for each strategy, made from the strategy itself.

A strategy is a frozen dataclass whose fields are the section's keys. So a third party's strategy, too, has a validated
section and a place in the JSON Schema.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import Field, create_model, model_validator

from msbal.engine import BalancerSet, GroupNames, Strategy, available
from msbal.spec.base import SpecModel


class BalanceSpec(SpecModel):
    """The keys of every strategy's section."""

    strategy_class: ClassVar[type[Strategy]]

    strategy: str = Field(description="How to weight the levels.")
    interval: int = Field(100, ge=2, description="Iterations between two decisions (alpha).")
    epsilon: float = Field(
        1e-5,
        gt=0,
        allow_inf_nan=False,
        description="The epsilon of eq 4. Lower it where losses vary by less than 0.01.",
    )
    rescale: bool = Field(
        False,
        description="Scale the strategy's weights so that they sum to the number of levels: balancing without a larger "
        "learning rate.",
    )
    per_term: bool = Field(False, description="Balance each term (cls, bbox, ...) on its own.")
    scope: tuple[str, ...] | None = Field(
        None,
        description="The heads of a two-stage detector to balance: [rpn], [roi] or both; by default the RPN, as in the "
        "paper.",
    )
    seed: int | None = Field(None, description="Seed of the strategy's draws; by default the run's seed.")
    measure: int | None = Field(
        None,
        ge=1,
        description="Measure the gradient of each level's loss every so many iterations, and in the first, without "
        "changing the training; 500 costs about 1 %. By default only where the strategy decides by gradients, at each "
        "interval's end.",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="What to do when a level's loss is NaN or infinite: stop the run, or skip the step.",
    )

    @model_validator(mode="after")
    def _strategy_agrees(self) -> BalanceSpec:
        if type(self) is not BalanceSpec:
            self.make_strategy()
        return self

    def make_strategy(self) -> Strategy:
        """Make the engine's strategy with this section's hyperparameters."""
        names = [field.name for field in dataclasses.fields(self.strategy_class)]
        return self.strategy_class(**{name: getattr(self, name) for name in names})

    def make_balancers(self, groups: dict[str, GroupNames], run_seed: int) -> BalancerSet:
        """Make the balancers of a model.

        Raises:
            ValueError: where the levels do not fit the strategy.
        """
        return BalancerSet(
            groups,
            self.make_strategy(),
            per_term=self.per_term,
            interval=self.interval,
            seed=run_seed if self.seed is None else self.seed,
            epsilon=self.epsilon,
            rescale=self.rescale,
            measure=self.measure,
        )


@cache
def balance_models() -> dict[str, type[BalanceSpec]]:
    """Return the section's model for each installed strategy."""
    return {name: _model_of(strategy) for name, strategy in sorted(available().items())}


def _model_of(strategy: type[Strategy]) -> type[BalanceSpec]:
    hints = get_type_hints(strategy)
    descriptions = _attribute_texts(strategy)
    fields: dict[str, Any] = {
        "strategy": (
            Literal[strategy.name],
            Field(strategy.name, description=inspect.getdoc(strategy.__mro__[0]) or strategy.name),
        )
    }
    for field in dataclasses.fields(strategy):
        default = ... if field.default is dataclasses.MISSING else field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        info = Field(default, description=descriptions.get(field.name))
        fields[field.name] = (Annotated[hints[field.name], info], default)
    model = create_model(f"{strategy.__name__}Balance", __base__=BalanceSpec, **fields)
    model.strategy_class = strategy
    return model


def _attribute_texts(strategy: type[Strategy]) -> dict[str, str]:
    """Return the text of each attribute in the docstrings' ``Attributes:`` sections."""
    texts: dict[str, str] = {}
    for cls in reversed(strategy.__mro__):
        _, _, section = (inspect.cleandoc(cls.__doc__ or "")).partition("Attributes:\n")
        for match in re.finditer(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            for name in match[1].split(","):
                texts[name.strip()] = " ".join(match[2].split())
    return texts
