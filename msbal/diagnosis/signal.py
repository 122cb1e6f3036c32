"""How much of a batch's gradient is common to all batches (its signal), and how the levels' gradients point without
the rest.

Shapes: B batches, K levels, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from msbal.engine.gradients import LevelGradients, Parts, products_of
from msbal.engine.statistics import Array


class CommonGradients(LevelGradients):
    """Measures, and keeps the sum of each level's gradient over batches, in the memory of the CPU.

    Two batches share no noise, so the products of the gradients g of different batches average to those of the expected
    gradients. Their sum needs no gradient kept and no further backward pass: with S the sum over batches, it is
    ``<S_i, S_j> - sum_b <g_i^b, g_j^b>``, over B (B - 1) pairs.

    Attributes:
        batches: B; one whose losses or gradients are not finite is left out.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Parts) -> None:
        super().__init__(parameters)
        self.batches = 0
        self._parameters: Sequence[nn.Parameter] = ()
        self._own: Array = np.zeros(())  # [P, K, K], the sum of the batches' Gramians
        self._sums: dict[int, list[Tensor | None]] = {}  # of each level, [P]
        self._latest: dict[int, tuple[Sequence[Tensor | None], float]] = {}

    def products(self) -> tuple[Array, Array] | None:
        """Return two Gramians ``[K, K]`` on `SHARED`: the expected gradients', and the mean of the batches'.

        The first is an estimate without bias, whose diagonal may be negative. None of fewer than two batches.
        """
        if self.batches < 2:
            return None
        levels = range(len(self._sums))
        of_sums = np.stack(
            [
                products_of(parameter, [self._sums[k][i] for k in levels]).cpu().numpy()
                for i, parameter in enumerate(self._parameters)
            ]
        )
        shared = (np.diagonal(self._own, axis1=1, axis2=2) > 0).sum(axis=1) >= 2
        total, own = of_sums[shared].sum(axis=0), self._own[shared].sum(axis=0)
        return (total - own) / (self.batches * (self.batches - 1)), own / self.batches

    def _gramians(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> Array:
        try:
            found = super()._gramians(losses, parameters)
            if np.isfinite(found).all() and bool(losses.isfinite().all()):
                self._add(parameters)
                self._own = self._own + found
            return found
        finally:
            self._latest = {}

    def _gradients(
        self, losses: Tensor, level: int, scale: float, parameters: Sequence[nn.Parameter]
    ) -> Sequence[Tensor | None]:
        found = super()._gradients(losses, level, scale, parameters)
        self._latest[level] = found, scale  # the last scale of a level is the one that did not overflow
        return found

    def _add(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self.batches += 1
        for level, (gradients, scale) in self._latest.items():
            sums = self._sums.setdefault(level, [None] * len(parameters))
            for i, gradient in enumerate(gradients):
                if gradient is not None:
                    wide = torch.promote_types(gradient.dtype, torch.float32)
                    own = gradient.detach().to("cpu", wide, copy=True).div_(scale)
                    before = sums[i]
                    sums[i] = own if before is None else before.add_(own)


def signal(expected: Array, own: Array) -> tuple[float | None, ...]:
    """Return how much of each level's squared norm is that of the expected gradient; None without a gradient.

    Args:
        expected, own: see `CommonGradients.products`. An estimate of a small part may be negative.
    """
    return tuple(
        float(common / whole) if whole > 0 else None
        for common, whole in zip(np.diagonal(expected), np.diagonal(own), strict=True)
    )


def signal_cosines(expected: Array) -> tuple[tuple[float | None, ...], ...]:
    """Return ``[K][K]``, of the expected gradients; None where the estimate of a squared norm is not positive."""
    squared = np.diagonal(expected)
    return tuple(
        tuple(
            float(np.clip(expected[i, j] / np.sqrt(a * b), -1.0, 1.0)) if a > 0 and b > 0 else None
            for j, b in enumerate(squared)
        )
        for i, a in enumerate(squared)
    )
