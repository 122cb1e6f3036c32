"""The proof of a gated pass, before it is opened: weighting the gradient at its gates weights the levels' losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from msbal.engine.gate import Factors, Gated, GatedPass

TOLERANCE = 1e-4
"""Of a gradient, relative to its largest entry: float32 gradients are summed in another order."""


def wrong_level(passed: GatedPass, whole: Tensor, values: Tensor) -> tuple[int | None, int] | None:
    """Find predictions for which a level's own loss has another gradient than the whole loss.

    The level's loss then depends on other levels' predictions, too, or the sizes are those of other levels, and
    weighting that gradient does not weight that loss.

    Args:
        whole: the scalar loss.
        values: ``[T, K]`` losses; where the predictions have no part in their gradient nothing is proved.

    Returns:
        the first gate's term and level, or None.
    """
    rows = {gated.row for gated in passed.gated}
    if not (values.requires_grad and whole.requires_grad and rows):
        return None
    weights = torch.arange(1, values.shape[1] + 1, device=values.device).to(values)
    # The small gradients of a loss that no scaler has scaled vanish in float16.
    halves = any(gated.predictions.dtype is torch.float16 for gated in passed.gated)
    wanted: list[Tensor] = []
    found: list[Tensor] = []
    with passed.multiplying(1.0):
        for scale in (2.0**16, 2.0**8, 1.0) if halves else (1.0,):
            wanted = _gradients(whole * scale, passed.gated)
            found = [torch.empty(0)] * len(wanted)
            for row in rows:
                own = (values.sum(dim=0) if row is None else values[row]) * weights
                of_row = [i for i, gated in enumerate(passed.gated) if gated.row == row]
                gradients = _gradients(own.sum() * scale, [passed.gated[i] for i in of_row])
                for i, gradient in zip(of_row, gradients, strict=True):
                    found[i] = gradient
            if all(bool(gradient.isfinite().all()) for gradient in wanted + found):
                break
        if not any(bool(x.any()) for x in found) and not any(
            bool(x.any()) for x in _gradients(values.sum(), passed.gated)
        ):
            return None
    for gated, whole_gradient, gradient in zip(passed.gated, wanted, found, strict=True):
        finfo = torch.finfo(gated.predictions.dtype)
        largest = float(whole_gradient.abs().max()) if whole_gradient.numel() else 0.0
        tolerance = max(TOLERANCE, 8 * finfo.eps) * largest + 8 * finfo.smallest_normal * finfo.eps
        parts = (torch.split(x, list(gated.sizes), dim=gated.dim) for x in (whole_gradient, gradient))
        for level, (theirs, ours) in enumerate(zip(*parts, strict=True)):
            if bool(((ours / (level + 1) - theirs).abs() > tolerance).any()):
                return gated.row, level
    return None


def passed_by(passed: GatedPass, whole: Tensor, sources: Sequence[Tensor] | None = None) -> Tensor | None:
    """Find a tensor that the loss reaches, with a gradient, on a way without a gate.

    Args:
        whole: the scalar loss.
        sources: tensors before the gates, such as the predictions; None for all parameters.
    """
    if sources is None:
        sources, _ = _reached([whole.grad_fn])
    if not (sources and whole.requires_grad):
        return None
    with passed.multiplying(0.0):
        found = torch.autograd.grad(whole, sources, retain_graph=True, allow_unused=True)
    reached = (
        source
        for source, gradient in zip(sources, found, strict=True)
        if gradient is not None and gradient.nan_to_num().any()  # no gate makes 0 of NaN
    )
    return next(reached, None)


def behind_another(passed: GatedPass) -> bool:
    """Return whether predictions have passed two gates, and would be weighted twice."""
    before = [gated.predictions.grad_fn.next_functions[0][0] for gated in passed.gated]  # type: ignore[union-attr]
    return _reached(before)[1]


def _gradients(loss: Tensor, gates: Sequence[Gated]) -> list[Tensor]:
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
        if isinstance(getattr(node, "factors", None), Factors):
            gates = True
            continue
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            leaves.append(leaf)
        todo += [before for before, _ in node.next_functions]
    return leaves, gates
