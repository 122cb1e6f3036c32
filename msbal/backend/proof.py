"""The measured proof that splitting a loss by level changes only what it should.

For one batch: the levels' losses add up to the framework's own loss. With unit weights the gradient is the framework's
own, bit for bit where the framework is deterministic. With other weights it is the gradient of ``sum(w_i L_i)``,
computed the slow way, one level at a time. Both gradients are those of a balanced training pass, where the detector
makes one (`BalancesLosses`), and otherwise of the split losses. Where a detector shows its predictions
(`ShowsPredictions`), no level's loss depends on another level's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from msbal.backend.kit.balanced import group_names
from msbal.backend.kit.determinism import precise
from msbal.backend.kit.seeding import seed_everything
from msbal.engine import BalancerSet, Equal, IntervalStatistics, State, Strategy

if TYPE_CHECKING:
    from msbal.backend import LevelGroup, SplitLosses

VALUE_TOLERANCE = 1e-5
"""Relative: float32 losses are summed in another order."""
GRADIENT_TOLERANCE = 1e-3
"""Relative to the largest gradient entry of the parameter: float32 gradients are summed in another order."""


@dataclass(frozen=True)
class Proof:
    """What was measured.

    Attributes:
        framework_total, split_total: the two sums of losses.
        unit_gradient: largest difference of a gradient entry at unit weights, relative to the largest entry of that
            parameter's gradient; 0.0 means bit for bit.
        weighted_gradient: the same at `weights`, compared to the slow sum.
        weights: those that were tried, by group.
        losses: ``{group: {term: [K]}}`` as measured.
        rest: the losses that are not balanced.
        parameters: how many parameters received a gradient.
        leaks: ``cls: P3 reaches P4`` where one level's loss depends on another's predictions.
    """

    framework_total: float
    split_total: float
    unit_gradient: float
    weighted_gradient: float
    weights: Mapping[str, tuple[float, ...]]
    losses: Mapping[str, Mapping[str, tuple[float, ...]]]
    rest: Mapping[str, float]
    parameters: int
    leaks: tuple[str, ...] = ()

    @property
    def value_error(self) -> float:
        """The difference of the totals, relative to the framework's."""
        return abs(self.split_total - self.framework_total) / max(abs(self.framework_total), 1e-12)

    @property
    def holds(self) -> bool:
        """Whether everything is within tolerance."""
        return (
            (self.parameters > 0 or self.framework_total == 0.0)
            and self.value_error <= VALUE_TOLERANCE
            and self.unit_gradient <= GRADIENT_TOLERANCE
            and self.weighted_gradient <= GRADIENT_TOLERANCE
            and not self.leaks
        )


class HasLosses(Protocol):
    """The part of a `Detector` that the proof needs."""

    model: nn.Module
    groups: tuple[LevelGroup, ...]

    def framework_losses(self, batch: Any) -> dict[str, Tensor]: ...

    def split_losses(self, batch: Any) -> SplitLosses: ...


@runtime_checkable
class BalancesLosses(Protocol):
    """A detector that makes a training pass with a strategy's weights, as it does in training."""

    def balanced_losses(self, batch: Any, strategy: Strategy) -> dict[str, Tensor]:
        """Return the losses that are then summed; nothing is counted or recorded."""


@dataclass(frozen=True)
class _Apart(Strategy):
    """Constant weights. None is 1 and no two are alike, so that mixed-up levels show."""

    name: ClassVar[str] = "apart"

    def initial_weights(self, levels: int) -> Any:
        k = np.arange(levels)
        return 0.5 + 0.75 * ((2 * k + 1) % 5) + 0.1 * k

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Any:
        return self.initial_weights(len(statistics.loss)), state


@runtime_checkable
class ShowsPredictions(Protocol):
    """A detector that shows the proof what its levels' losses were computed from.

    Attributes:
        coupled: terms to leave out, as the framework itself couples their levels.
    """

    coupled: Collection[str]

    def level_predictions(self) -> Mapping[str, Sequence[Sequence[Tensor]]]:
        """Return the predictions of the last `split_losses` by group: lists of K, finest first, still attached."""


def prove(detector: HasLosses, batch: Any, seed: int = 0) -> Proof:
    """Measure one batch; the model's gradients stay as they were.

    Args:
        seed: set before every forward pass, for frameworks that sample.
    """
    with precise():
        return _prove(detector, batch, seed)


def _prove(detector: HasLosses, batch: Any, seed: int) -> Proof:
    parameters = [p for p in detector.model.parameters() if p.requires_grad]
    names = group_names(detector.groups)

    def own() -> Tensor:
        return total(detector.framework_losses(batch).values())

    def split() -> SplitLosses:
        return detector.split_losses(batch)

    def balanced(strategy: Strategy) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            if isinstance(detector, BalancesLosses):
                return total(detector.balanced_losses(batch, strategy).values())
            found = split()
            result = total(found.rest.values())
            for group, level_losses in found.groups.items():
                balancer = BalancerSet({group: names[group]}, strategy, interval=2)
                result = balancer({group: level_losses}) + result
            return result

        return forward

    weights = {g.name: tuple(_Apart().initial_weights(len(g.levels)).tolist()) for g in detector.groups}

    framework_total, framework_gradient = _measure(own, parameters, seed)
    _, unit_gradient = _measure(balanced(Equal()), parameters, seed)
    _, weighted_gradient = _measure(balanced(_Apart()), parameters, seed)

    seed_everything(seed)
    found = split()
    parts = [(1.0, value) for value in found.rest.values()]
    for group, level_losses in found.groups.items():
        parts += [(w, level_losses.values[:, k].sum()) for k, w in enumerate(weights[group])]
    slow: list[Tensor | None] = [None] * len(parameters)
    for weight, value in parts:
        if value.requires_grad:
            gradient = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
            slow = [_plus(a, b, weight) for a, b in zip(slow, gradient, strict=True)]
    split_total = float(sum(float(value.detach().double()) for _, value in parts))
    leaks = _leaks(detector, found) if isinstance(detector, ShowsPredictions) else ()
    return Proof(
        framework_total=framework_total,
        split_total=split_total,
        unit_gradient=_difference(framework_gradient, unit_gradient),
        weighted_gradient=_difference(slow, weighted_gradient),
        weights=weights,
        losses={
            group: dict(zip(names[group].terms, [tuple(row) for row in losses.values.tolist()], strict=True))
            for group, losses in found.groups.items()
        },
        rest={name: float(value.detach()) for name, value in found.rest.items()},
        parameters=sum(g is not None and bool((g != 0).any()) for g in framework_gradient),
        leaks=tuple(leaks),
    )


def _leaks(detector: Any, found: SplitLosses) -> Iterator[str]:
    """Name the levels whose loss has a gradient in another level's predictions."""
    predictions = detector.level_predictions()
    for group in detector.groups:
        flat = [
            (level, value) for values in predictions.get(group.name, ()) for level, value in enumerate(values)
        ]
        for term, row in zip(group.terms, found.groups[group.name].values, strict=True):
            if term in detector.coupled or not flat or not row.requires_grad:
                continue
            for level, loss in enumerate(row):
                gradients = torch.autograd.grad(
                    loss, [v for _, v in flat], retain_graph=True, allow_unused=True
                )
                reached = {
                    other
                    for (other, _), g in zip(flat, gradients, strict=True)
                    if g is not None and bool(g.any())
                }
                for other in sorted(reached - {level}):
                    yield f"{term}: {group.levels[level]} reaches {group.levels[other]}"


def total(losses: Any) -> Tensor:
    """Add up scalars in order; zero for none."""
    result = torch.zeros(())
    for i, loss in enumerate(losses):
        result = loss if i == 0 else result + loss
    return result


def _measure(
    forward: Callable[[], Tensor], parameters: list[torch.nn.Parameter], seed: int
) -> tuple[float, Sequence[Tensor | None]]:
    seed_everything(seed)
    value = forward()
    return float(value.detach()), torch.autograd.grad(value, parameters, allow_unused=True)


def _plus(a: Tensor | None, b: Tensor | None, weight: float) -> Tensor | None:
    if b is None:
        return a
    return weight * b.double() if a is None else a + weight * b.double()


def _difference(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> float:
    """Return the largest difference of two gradients, each parameter's relative to its largest entry."""
    worst = 0.0
    largest = max((float(g.abs().max()) for g in first if g is not None and g.numel()), default=0.0)
    for a, b in zip(first, second, strict=True):
        if a is None and b is None:
            continue
        left = torch.zeros_like(b) if a is None and b is not None else a
        right = torch.zeros_like(left) if b is None and left is not None else b
        assert left is not None and right is not None
        gap = float((left.double() - right.double()).abs().max())
        # Where a gradient nearly cancels, the whole model's scale counts.
        scale = max(float(left.abs().max()), 1e-3 * largest, 1e-30)
        worst = max(worst, gap / scale)
    return worst
