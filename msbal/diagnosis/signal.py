"""How much of a batch's gradient is common to all batches (its signal), and how the levels' gradients point without
the rest.

Shapes: B batches, K levels, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from msbal.engine.gradients import LevelGradients, Parts
from msbal.engine.statistics import Array
from msbal.records.diagnosis import Spread

WIDTH = 32_749
"""Numbers in a gradient's sketch: of longer gradients, products are right to about a 180th of the norms' product.
Prime, so that weights that lie alike in two layers do not fall on each other."""


class CommonGradients(LevelGradients):
    """Measures, and keeps a sketch of each level's gradient in each batch, so that batches can be compared.

    The sketch adds up pieces of the gradient, each number with a random sign (Charikar, Chen and Farach-Colton, 2002):
    products of sketches are those of the gradients without bias. It takes neither a further backward pass nor the
    memory of gradients. A batch whose losses or gradients are not finite is left out.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Parts) -> None:
        super().__init__(parameters)
        self._sketches: list[Tensor] = []  # of each batch, [K, WIDTH]
        self._squared: list[Array] = []  # of each batch, [K]
        self._signs: list[Tensor] = []  # [P], of as many numbers as each has
        self._latest: dict[int, tuple[Sequence[Tensor | None], float]] = {}

    def products(self) -> tuple[Array, Array] | None:
        """Return ``[B, B, K, K]``, the products of gradients of two batches, and ``[B, K]``, the squared norms.

        Both are on what levels share. None of fewer than two batches.
        """
        if len(self._sketches) < 2:
            return None
        rows = torch.stack(self._sketches).flatten(0, 1).double().numpy()
        batches, levels = np.shape(self._squared)
        pairs = (rows @ rows.T).reshape(batches, levels, batches, levels).transpose(0, 2, 1, 3)
        return pairs, np.stack(self._squared)

    def _gramians(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> Array:
        try:
            found = super()._gramians(losses, parameters)
            if np.isfinite(found).all() and bool(losses.isfinite().all()):
                squared = np.diagonal(found, axis1=1, axis2=2)
                shared = (squared > 0).sum(axis=1) >= 2
                self._squared.append(squared[shared].sum(axis=0))
                self._sketches.append(self._sketch(parameters, shared))
            return found
        finally:
            self._latest = {}

    def _gradients(
        self, losses: Tensor, level: int, scale: float, parameters: Sequence[nn.Parameter]
    ) -> Sequence[Tensor | None]:
        found = super()._gradients(losses, level, scale, parameters)
        self._latest[level] = found, scale  # the last scale of a level is the one that did not overflow
        return found

    def _sketch(self, parameters: Sequence[nn.Parameter], shared: Array) -> Tensor:
        if not self._signs:
            draw = torch.Generator().manual_seed(0)
            self._signs = [
                torch.randint(2, (p.numel(),), dtype=torch.int8, generator=draw).mul_(2).sub_(1).to(p.device)
                for p in parameters
            ]
        rows = torch.zeros(len(self._latest), WIDTH, dtype=torch.float64)
        for k, (gradients, scale) in self._latest.items():
            place = 0
            for gradient, signs, counts in zip(gradients, self._signs, shared, strict=True):
                if gradient is not None and counts:
                    wide = torch.promote_types(gradient.dtype, torch.float32)
                    signed = (gradient.detach().reshape(-1).to(wide) / scale) * signs
                    start = place % WIDTH
                    if start + len(signed) <= WIDTH:
                        rows[k, start : start + len(signed)] += signed.cpu()
                    else:
                        pieces = nn.functional.pad(signed, (0, -len(signed) % WIDTH)).view(-1, WIDTH)
                        rows[k] += pieces.sum(dim=0).cpu().roll(start)
                place += len(signs)
        return rows


def signal(pairs: Array, squared: Array) -> tuple[float | None, ...]:
    """Return how much of each level's squared norm is that of the expected gradient; None without a gradient.

    Args:
        pairs, squared: see `CommonGradients.products`.
    """
    expected, whole = np.diagonal(_expected(pairs)), squared.mean(axis=0)
    return tuple(min(float(a / b), 1.0) if b > 0 else None for a, b in zip(expected, whole, strict=True))


def signal_cosines(pairs: Array) -> tuple[tuple[Spread | None, ...], ...]:
    """Return ``[K][K]``, of the expected gradients, with 95 % intervals.

    The interval is the jackknife's, from leaving out each batch in turn (Tukey, 1958). None where one of all these
    estimates of a squared norm is not positive, and of fewer than three batches.
    """
    batches, mean = len(pairs), np.clip(_cosines(_expected(pairs)), -1.0, 1.0)
    if batches < 3:
        return ((None,) * len(mean),) * len(mean)
    without = [np.delete(np.delete(pairs, b, axis=0), b, axis=1) for b in range(batches)]
    variance = (batches - 1) * np.var([_cosines(_expected(each)) for each in without], axis=0)
    reach = stats.t.ppf(0.975, batches - 1) * np.sqrt(variance)
    low, high = np.maximum(mean - reach, -1.0), np.minimum(mean + reach, 1.0)
    return tuple(
        tuple(None if np.isnan(each).any() else Spread(*each.tolist()) for each in row)
        for row in np.stack([mean, low, high], axis=-1)
    )


def _expected(pairs: Array) -> Array:
    """Return ``[K, K]``, the estimated products of the expected gradients: two batches share no noise."""
    batches = len(pairs)
    other = pairs.sum(axis=(0, 1)) - np.einsum("bbij->ij", pairs)
    return np.asarray(other / (batches * (batches - 1)))


def _cosines(expected: Array) -> Array:
    squared = np.diagonal(expected)
    length = np.sqrt(np.where(squared > 0, squared, np.nan))
    return np.asarray(expected / np.outer(length, length))
