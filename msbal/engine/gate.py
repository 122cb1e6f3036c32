"""The gate: scales the gradient that reaches each level's predictions, and changes no value.

Where a loss is a sum over levels, ``L = sum_i L_i(p_i)``, and level i's part depends on its own predictions alone,
scaling the gradient that reaches ``p_i`` by ``w_i`` is the same as weighting ``L_i``. So the framework's own loss code
stays as it is: at weights of 1 every gradient keeps its bits. The losses by level, from which a strategy decides, are
read beside it.

Shapes: T terms, K levels, A predictions of an image over all levels, level-major.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

TOLERANCE = 1e-4
"""Of a gradient, relative to its largest entry: float32 gradients are summed in another order."""


@dataclass
class _Factors:
    """What the gates of one pass multiply by: ``[T, K]``, None until it is known."""

    required: bool
    values: Tensor | None = None


@dataclass(frozen=True)
class _Gated:
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
        provable: whether to keep the gated predictions, and with them the graph, for the proofs below.
    """

    def __init__(self, required: bool = True, provable: bool = True) -> None:
        self._provable = provable
        # The gates' nodes refer to the factors only: through this pass and its predictions they would refer to
        # themselves, and never be freed.
        self._factors = _Factors(required)
        self._gated: list[_Gated] = []

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
            self._gated.append(_Gated(gated, *kept))
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

    # -- what can be proved before the pass is opened ----------------------------------------------

    def wrong_level(self, whole: Tensor, values: Tensor) -> tuple[int | None, int] | None:
        """Find predictions for which a level's own loss has another gradient than the whole loss.

        The level's loss then depends on other levels' predictions, too, or the sizes are those of other levels, and
        weighting that gradient does not weight that loss.

        Args:
            whole: the scalar loss.
            values: ``[T, K]`` losses; where the predictions have no part in their gradient nothing is proved.

        Returns:
            the first gate's term and level, or None.
        """
        rows = {gated.row for gated in self._gated}
        if not (values.requires_grad and whole.requires_grad and rows):
            return None
        weights = torch.arange(1, values.shape[1] + 1, device=values.device).to(values)
        # The small gradients of a loss that no scaler has scaled vanish in float16.
        halves = any(gated.predictions.dtype is torch.float16 for gated in self._gated)
        wanted: list[Tensor] = []
        found: list[Tensor] = []
        with self._multiplying(1.0):
            for scale in (2.0**16, 2.0**8, 1.0) if halves else (1.0,):
                wanted = _gradients(whole * scale, self._gated)
                found = [torch.empty(0)] * len(wanted)
                for row in rows:
                    own = (values.sum(dim=0) if row is None else values[row]) * weights
                    of_row = [i for i, gated in enumerate(self._gated) if gated.row == row]
                    gradients = _gradients(own.sum() * scale, [self._gated[i] for i in of_row])
                    for i, gradient in zip(of_row, gradients, strict=True):
                        found[i] = gradient
                if all(bool(gradient.isfinite().all()) for gradient in wanted + found):
                    break
            if not any(bool(x.any()) for x in found) and not any(
                bool(x.any()) for x in _gradients(values.sum(), self._gated)
            ):
                return None
        for gated, whole_gradient, gradient in zip(self._gated, wanted, found, strict=True):
            finfo = torch.finfo(gated.predictions.dtype)
            largest = float(whole_gradient.abs().max()) if whole_gradient.numel() else 0.0
            tolerance = max(TOLERANCE, 8 * finfo.eps) * largest + 8 * finfo.smallest_normal * finfo.eps
            parts = (torch.split(x, list(gated.sizes), dim=gated.dim) for x in (whole_gradient, gradient))
            for level, (theirs, ours) in enumerate(zip(*parts, strict=True)):
                if bool(((ours / (level + 1) - theirs).abs() > tolerance).any()):
                    return gated.row, level
        return None

    def passed_by(self, whole: Tensor, sources: Sequence[Tensor] | None = None) -> Tensor | None:
        """Find a tensor that the loss reaches, with a gradient, on a way without a gate.

        Args:
            whole: the scalar loss.
            sources: tensors before the gates, such as the predictions; None for all parameters.
        """
        if sources is None:
            sources, _ = _reached([whole.grad_fn])
        if not (sources and whole.requires_grad):
            return None
        with self._multiplying(0.0):
            found = torch.autograd.grad(whole, sources, retain_graph=True, allow_unused=True)
        reached = (
            source
            for source, gradient in zip(sources, found, strict=True)
            if gradient is not None and gradient.nan_to_num().any()  # no gate makes 0 of NaN
        )
        return next(reached, None)

    def behind_another(self) -> bool:
        """Return whether predictions have passed two gates, and would be weighted twice."""
        before = [gated.predictions.grad_fn.next_functions[0][0] for gated in self._gated]  # type: ignore[union-attr]
        return _reached(before)[1]

    @contextmanager
    def _multiplying(self, factor: float) -> Iterator[None]:
        """Let every gate multiply by `factor`, for as long as this pass is not open."""
        levels = max((len(gated.sizes) for gated in self._gated), default=1)
        rows = max((1 if gated.row is None else gated.row + 1 for gated in self._gated), default=1)
        self._factors.values = torch.full((rows, levels), factor)
        try:
            yield
        finally:
            self._factors.values = None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, predictions: Tensor, sizes: tuple[int, ...], dim: int, row: int | None, factors: _Factors
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


def _gradients(loss: Tensor, gates: Sequence[_Gated]) -> list[Tensor]:
    """Return the gradient for each gate's predictions, in float32 or better; zero where there is none."""
    predictions = [gated.predictions for gated in gates]
    found = torch.autograd.grad(loss, predictions, retain_graph=True, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(predictions, found, strict=True)]
    return [gradient if gradient.dtype is torch.float64 else gradient.float() for gradient in gradients]


def _reached(nodes: Sequence[Any]) -> tuple[list[Tensor], bool]:
    """Follow the graph back from some nodes, up to gates.

    Returns:
        the leaves that are reached, and whether a gate is.
    """
    seen: set[Any] = set()
    todo, leaves, gates = list(nodes), [], False
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(getattr(node, "factors", None), _Factors):
            gates = True
            continue
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            leaves.append(leaf)
        todo += [before for before, _ in node.next_functions]
    return leaves, gates


def _one_hot(term: int, like: Tensor) -> Tensor:
    return torch.arange(len(like), device=like.device).eq(term).to(like)
