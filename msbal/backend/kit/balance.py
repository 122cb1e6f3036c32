"""`balance`, for a user's own training script: its signature and arguments are the same in every backend."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from msbal.backend.kit.balanced import Balanced, group_names
from msbal.backend.kit.script_records import ScriptRecords
from msbal.backend.kit.splitter import LossSplitter
from msbal.engine import BalancerSet, GroupNames, Strategy, make
from msbal.engine.processes import rank
from msbal.errors import SpecError

_COMMON = """
In training mode its losses come back as before, under the same names, each level in them times its weight. In
evaluation mode, and under ``torch.no_grad()``, the model behaves as before. On the first batch the levels are shown to
add up to the framework's own loss.

The state is no part of ``model.state_dict()``, which still loads into an unbalanced model: save the handle's
``state_dict()`` beside it. Call this when the model is complete, and before wrapping it in ``DistributedDataParallel``.
A strategy that learns its weights (``uw``) has parameters: give the optimizer the handle's ``parameters()`` beside the
model's, without weight decay.

Args:
    model: see above.
    strategy: a name, such as ``rlo`` or ``avw``, or a `Strategy` with its own hyperparameters.
        `msbal.engine.available` lists them.
    interval: alpha, training iterations between two decisions.
    scope: of a two-stage model, which heads: ``rpn``, ``roi`` or both. A one-stage model has one head.
    per_term: balance each term (classification, boxes, ...) on its own.
    seed: of the strategy's random draws.
    rescale: multiply the strategy's weights so that they sum to the number of levels.
    measure: measure the gradient of each level's loss every so many iterations, for the records; it changes nothing in
        the training.
    records: a folder for ``intervals.jsonl``.
    hyperparameters: of a strategy given by name, as in a spec's ``balance:``: ``top_k``, ``actions``, ...

Returns:
    the handle: ``balanced.balancers`` has the weights, ``balanced.remove()`` restores the model.

Raises:
    SpecError: where the loss cannot be split into two levels or more, the model is balanced already, or an argument
        does not fit.
"""


Handle_co = TypeVar("Handle_co", covariant=True)


class Balance(Protocol[Handle_co]):
    """The type of every backend's `balance`."""

    def __call__(
        self,
        model: Any,
        strategy: Strategy | str = "rlo",
        *,
        interval: int = 100,
        scope: Sequence[str] = ("rpn",),
        per_term: bool = False,
        seed: int = 0,
        rescale: bool = False,
        measure: int | None = None,
        records: str | Path | None = None,
        **hyperparameters: Any,
    ) -> Handle_co: ...


@dataclass(frozen=True)
class Request:
    """The arguments of one call of `balance`, but for the model."""

    strategy: Strategy | str
    scope: Sequence[str]
    records: str | Path | None
    per_term: bool
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, Any]

    def put(
        self,
        model: nn.Module,
        splitters: Sequence[LossSplitter],
        notes: Sequence[str] = (),
        write: bool = True,
    ) -> Balanced:
        """Balance a model with these splitters.

        Args:
            notes: what stays as it is although it has levels, and why.
            write: whether to write `records` as the passes go by; False where a trainer's hook writes them.

        Raises:
            SpecError: where an argument does not fit, or the model is balanced already.
        """
        balancers = self.balancers(group_names([splitter.group for splitter in splitters]))
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        balanced = Balanced(model, splitters, balancers.to(device), notes)
        if write and self.records is not None:
            balanced.records = ScriptRecords(balancers, self.records if rank() == 0 else None)
        return balanced

    def balancers(self, groups: Mapping[str, GroupNames]) -> BalancerSet:
        """Make the balancers. Raises: SpecError, where an argument does not fit."""
        return make_balancers(
            "balance()", groups, self.strategy, self.hyperparameters, per_term=self.per_term, **self.options
        )


def make_balancers(
    where: str,
    groups: Mapping[str, GroupNames],
    strategy: Strategy | str,
    hyperparameters: Mapping[str, Any],
    **options: Any,
) -> BalancerSet:
    """Make the balancers that a user's call asks for.

    Args:
        where: the call, for messages.
        hyperparameters: of a strategy given by name; and `epsilon`.
        options: as of `BalancerSet`.

    Raises:
        SpecError: where an argument does not fit.
    """
    own = dict(hyperparameters)
    if "epsilon" in own:
        options["epsilon"] = own.pop("epsilon")
    try:
        if isinstance(strategy, str):
            strategy = make(strategy, **own)
        elif own:
            raise TypeError(f"{', '.join(own)}: give it to the strategy itself, {type(strategy).__name__}")
        return BalancerSet(groups, strategy, **options)
    except (TypeError, ValueError) as error:
        raise SpecError(where, str(error)) from error


def balance_function(put: Callable[[Any, Request], Handle_co]) -> Balance[Handle_co]:
    """Decorate a backend's own part of `balance`: give it the common signature, and complete its docstring.

    Args:
        put: balances a model as requested; its docstring says which models it takes.
    """

    def balance(
        model: Any,
        strategy: Strategy | str = "rlo",
        *,
        interval: int = 100,
        scope: Sequence[str] = ("rpn",),
        per_term: bool = False,
        seed: int = 0,
        rescale: bool = False,
        measure: int | None = None,
        records: str | Path | None = None,
        **hyperparameters: Any,
    ) -> Handle_co:
        options = {"interval": interval, "seed": seed, "rescale": rescale, "measure": measure}
        return put(model, Request(strategy, scope, records, per_term, options, hyperparameters))

    balance.__doc__ = f"{inspect.cleandoc(put.__doc__ or '')}\n{_COMMON}"
    balance.__module__, balance.__qualname__ = put.__module__, put.__qualname__
    return balance
