"""The gate: scales the gradient that reaches each level's predictions, and changes no value.

Where a loss is a sum over levels, ``L = sum_i L_i(p_i)``, and level i's part depends on its own predictions alone,
scaling the gradient that reaches ``p_i`` by ``w_i`` is the same as weighting ``L_i``. So the framework's own loss code
stays as it is: at weights of 1 every gradient keeps its bits. The losses by level, from which a strategy decides, are
read beside it.

Shapes: T terms, K levels, A predictions of an image over all levels, level-major.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msbal.engine.gradients import GradientError, LevelGradients, Parts


@dataclass
class Factors:
    """What the gates of one pass multiply by: ``[T, K]``, None until it is known."""

    required: bool
    values: Tensor | None = None


@dataclass(frozen=True)
class Gated:
    """Predictions behind a gate; `row` None for those of all terms."""

    predictions: Tensor
    sizes: tuple[int, ...]
    dim: int
    row: int | None


class GatedPass:
    """One forward pass through gates, whose factors are known only once its losses are.

    Args:
        required: whether a backward pass before `open` is an error. Otherwise the gates let gradients through
            unchanged until then.
        provable: whether to keep the gated predictions, and with them the graph, for `msbal.backend.kit.gate_proof`.

    Attributes:
        gated: those predictions.
    """

    def __init__(self, required: bool = True, provable: bool = True) -> None:
        self._provable = provable
        # The gates' nodes refer to the factors only: through this pass and its predictions they would refer to
        # themselves, and never be freed.
        self._factors = Factors(required)
        self.gated: list[Gated] = []

    def gate(self, predictions: Tensor, sizes: Sequence[int], dim: int = 1, row: int | None = None) -> Tensor:
        """Return the predictions, with a gate for their gradient.

        Args:
            predictions: with the levels one after another along `dim`.
            sizes: K, how many of them each level has.
            row: the term, in the order of `open`; None where the factors are those of all terms.

        Raises:
            ValueError: where the sizes do not add up.
        """
        if sum(sizes) != predictions.shape[dim]:
            raise ValueError(
                f"sizes {list(sizes)} should add up to the {predictions.shape[dim]} predictions along dim {dim}. "
                f"Found {sum(sizes)}."
            )
        gate: Any = _Gate.apply
        kept = tuple(sizes), dim % predictions.dim(), row
        gated: Tensor = gate(predictions, *kept, self._factors)
        if self._provable and gated.requires_grad:
            self.gated.append(Gated(gated, *kept))
        return gated

    def open(self, weighted: Tensor, values: Tensor, parameters: Sequence[nn.Parameter] = ()) -> Tensor:
        """Set the factors: those by which a strategy's weighted losses grow with each loss.

        Args:
            weighted: ``[T, K]`` weighted losses, computed from `values`.
            values: ``[T, K]`` losses.
            parameters: what the strategy learns.

        Returns:
            ``[T]`` to add to the terms' own losses: the difference that the weights make to their values, with a
            gradient for the parameters alone.
        """
        change = (weighted - values).detach().sum(dim=1)
        if not values.requires_grad:
            self._factors.values = torch.ones_like(values)
            return change
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        (self._factors.values,) = torch.autograd.grad(weighted.sum(), [values], retain_graph=True)
        for term in range(len(weighted) if learned else 0):
            found = torch.autograd.grad(weighted[term].sum(), learned, retain_graph=True, allow_unused=True)
            carried = [
                ((parameter - parameter.detach()) * gradient).sum().to(change)
                for parameter, gradient in zip(learned, found, strict=True)
                if gradient is not None
            ]
            if carried:  # zeros that carry the gradients
                change = change + torch.stack(carried).sum() * _one_hot(term, change)
        return change

    @contextmanager
    def multiplying(self, factor: float | Tensor) -> Iterator[None]:
        """Let the gates multiply by a factor, or ``[T, K]`` of them, for as long as this pass is not open."""
        levels = max((len(gated.sizes) for gated in self.gated), default=1)
        rows = max((1 if gated.row is None else gated.row + 1 for gated in self.gated), default=1)
        self._factors.values = factor if isinstance(factor, Tensor) else torch.full((rows, levels), factor)
        try:
            yield
        finally:
            self._factors.values = None


class GateGradients(LevelGradients):
    """Measures the gradients of levels for a loss behind gates, each of which lets one level's through at a time.

    Args:
        parameters: see `LevelGradients`.
        terms: T.
        row: the one term to measure; None for the sum of all, whose gates have no row.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Parts, terms: int, row: int | None) -> None:
        super().__init__(parameters)
        self._terms, self._row = terms, slice(None) if row is None else row
        self._now: tuple[GatedPass, Sequence[Tensor]] | None = None

    @contextmanager
    def through(self, passed: GatedPass, own: Sequence[Tensor]) -> Iterator[None]:
        """Measure this pass, of the loss that is the sum of these scalars."""
        self._now = passed, own
        try:
            yield
        finally:
            self._now = None

    @contextmanager
    def _loss(self, losses: Tensor, level: int) -> Iterator[Tensor]:
        if self._now is None:
            raise GradientError("nothing was gated")
        passed, own = self._now
        factors = losses.new_zeros(self._terms, len(losses))
        factors[self._row, level] = 1.0
        with passed.multiplying(factors):
            yield torch.stack(list(own)).sum()


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, predictions: Tensor, sizes: tuple[int, ...], dim: int, row: int | None, factors: Factors
    ) -> Tensor:
        ctx.sizes, ctx.dim, ctx.row, ctx.factors = sizes, dim, row, factors
        return predictions.view_as(predictions)

    @staticmethod
    @once_differentiable  # a derivative of it would be scaled again
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factors = ctx.factors.values
        if factors is None:
            if ctx.factors.required:
                raise RuntimeError(
                    "LevelGate: backward before `loss`, which takes the losses by level and weighs this pass."
                )
            return gradient, None, None, None, None
        by_level = factors[ctx.row or 0].to(gradient.device).unbind()
        each = [factor.expand(size) for factor, size in zip(by_level, ctx.sizes, strict=True)]
        by_prediction = torch.cat(each).view([-1] + [1] * (gradient.dim() - ctx.dim - 1))
        # In float32 or better, rounded once: a weight has more digits than half precision.
        return (gradient * by_prediction).to(gradient.dtype), None, None, None, None


def _one_hot(term: int, like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device).eq(term).to(like)
