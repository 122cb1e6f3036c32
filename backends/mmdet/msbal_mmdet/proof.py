"""The proof that a model's seams are right, on one batch.

Three claims, each measured against the untouched framework:

1. the level losses of every term add up to the loss that the framework would log under its key;
2. with unit weights every parameter gets the framework's gradient, bit for bit;
3. with other weights every parameter gets the gradient of ``sum(w_i L_i)``, computed the slow way, level
   by level; and no level's loss has a gradient in another level's predictions.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal_mmdet.attach import Attachment, attach
from msbal_mmdet.seams import LevelTerm

Gradients = dict[str, Tensor | None]

# Terms whose levels are coupled in mmdet itself, by a normaliser with a gradient (see seams/prime.py).
COUPLED = ("carl",)


@dataclass(frozen=True)
class Proof:
    """What was measured.

    Attributes:
        groups: of the model.
        sum_error: the largest relative difference between a term's levels and the framework's loss.
        unit_equal: whether unit weights gave all gradients bit for bit.
        unit_error: by how much they differ otherwise, relative to the largest gradient.
        weighted_error: the largest difference between weighted and slow gradients, likewise relative.
        leaks: ``term: L_i reaches level j`` where a level's loss has gradients in another's predictions.
        level_loss: per group, ``[T][K]``.
    """

    groups: tuple[LevelGroup, ...]
    sum_error: float
    unit_equal: bool
    unit_error: float
    weighted_error: float
    leaks: tuple[str, ...]
    level_loss: dict[str, list[list[float]]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return self.sum_error < 1e-5 and self.unit_equal and self.weighted_error < 1e-4 and not self.leaks


def prove(
    model: nn.Module, batch: Mapping[str, Any], scope: Sequence[str] = ("rpn",), seed: int = 0
) -> Proof:
    """Measure the claims on a copy of `model`.

    Args:
        model: built, unwrapped, on its device.
        batch: as a data loader gives it: what ``model.data_preprocessor(batch, True)`` takes.
        scope: see `attach`.
        seed: of the sampling in both passes.
    """
    try:
        reference, logged = _framework(copy.deepcopy(model), batch, seed)
    except Exception as error:
        raise FrameworkError(f"{type(error).__name__}: {error}") from error

    balanced = copy.deepcopy(model)
    attachment = attach(balanced, scope)
    seen = _watch_predictions(attachment)
    losses = _forward(balanced, batch, seed)
    unit = {g.name: torch.ones(len(g.levels)) for g in attachment.groups}
    weights = {
        g.name: torch.tensor([1.0 + 0.5 * ((3 * i + 1) % 5) for i in range(len(g.levels))])
        for g in attachment.groups
    }
    ours = _backward(attachment, losses, unit)
    return Proof(
        groups=attachment.groups,
        sum_error=_sum_error(attachment, losses, logged),
        unit_equal=all(_same(ours[name], reference[name]) for name in reference),
        unit_error=_relative(ours, reference),
        weighted_error=_relative(_backward(attachment, losses, weights), _slow(attachment, losses, weights)),
        leaks=tuple(_leaks(attachment, losses, seen)),
        level_loss={
            name: group.values.detach().tolist() for name, group in attachment.level_losses(losses).items()
        },
    )


class FrameworkError(Exception):
    """mmdet itself fails on the model or the batch, before anything of ours is in it."""


def seed_all(seed: int) -> None:
    """Every generator that mmdet's samplers and augmentations draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _forward(model: Any, batch: Mapping[str, Any], seed: int) -> dict[str, Any]:
    seed_all(seed)
    model.train()
    data = model.data_preprocessor(copy.deepcopy(dict(batch)), True)
    result: dict[str, Any] = model._run_forward(data, mode="loss")
    return result


def _framework(model: Any, batch: Mapping[str, Any], seed: int) -> tuple[Gradients, dict[str, Tensor]]:
    total, logged = model.parse_losses(_forward(model, batch, seed))
    total.backward()
    return _gradients(model), logged


def _gradients(model: nn.Module) -> Gradients:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def _backward(attachment: Attachment, losses: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Gradients:
    def weigh(groups: Mapping[str, Any]) -> Tensor:
        parts = [(group.values * weights[name].to(group.values)).sum() for name, group in groups.items()]
        return torch.stack(parts).sum()

    attachment.weigh = weigh
    objective, _ = attachment.parse(losses)
    attachment.model.zero_grad()
    objective.backward(retain_graph=True)
    return _gradients(attachment.model)


def _slow(attachment: Attachment, losses: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Gradients:
    """One backward pass a level, each gradient times its level's weight, and one for the rest."""
    parameters = {n: p for n, p in attachment.model.named_parameters() if p.requires_grad}
    split = attachment.split(losses)
    total: Gradients = dict.fromkeys(parameters)

    def add(loss: Tensor, weight: float) -> None:
        if not loss.requires_grad:
            return
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                before = total[name]
                total[name] = gradient * weight if before is None else before + gradient * weight

    for name, group in split.groups.items():
        for level, weight in enumerate(weights[name].tolist()):
            add(group.values[:, level].sum(), weight)
    if split.rest:
        add(torch.stack([loss.float() for loss in split.rest.values()]).sum(), 1.0)
    return {name: total.get(name) for name, _ in attachment.model.named_parameters()}


def _sum_error(attachment: Attachment, losses: Mapping[str, Any], logged: Mapping[str, Tensor]) -> float:
    worst = 0.0
    for key, value in losses.items():
        if isinstance(value, LevelTerm):
            found, expected = float(sum(v.detach().double() for v in value)), float(logged[key].detach())
            worst = max(worst, abs(found - expected) / max(abs(expected), 1e-3))
    return worst


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        # A term without a graph (Fovea without positives) has no gradient; zero is the same step.
        return all(g is None or not g.any() for g in (a, b))
    return torch.equal(a, b)


def _relative(a: Gradients, b: Gradients) -> float:
    """The largest difference over all parameters, relative to the largest gradient of all."""
    difference, size = 0.0, 0.0
    for name, other in b.items():
        mine = a.get(name)
        if mine is None and other is None:
            continue
        first = mine if mine is not None else torch.zeros_like(other)  # type: ignore[arg-type]
        second = other if other is not None else torch.zeros_like(first)
        difference = max(difference, float((first - second).abs().max()))
        size = max(size, float(second.abs().max()))
    return difference / size if size else difference


def _watch_predictions(attachment: Attachment) -> dict[int, list[list[Tensor]]]:
    """Keep, per seam, the lists of per-level predictions that its loss is computed from."""
    seen: dict[int, list[list[Tensor]]] = {}
    for index, seam in enumerate(attachment.seams):
        split = seam.split

        def watched(compute: Any, args: Any, kwargs: Any, index: int = index, split: Any = split) -> Any:
            k = attachment.seams[index].num_levels
            maps = [
                list(value)
                for value in (*args, *kwargs.values())
                if isinstance(value, list | tuple)
                and len(value) == k
                and all(isinstance(v, Tensor) and v.requires_grad for v in value)
            ]
            if maps:
                seen[index] = maps
            return split(compute, args, kwargs)

        vars(seam)["split"] = watched
    return seen


def _leaks(
    attachment: Attachment, losses: Mapping[str, Any], seen: Mapping[int, list[list[Tensor]]]
) -> list[str]:
    """Gradients of a level's loss in the predictions of another level, where the head has such lists."""
    found = []
    for index, maps in seen.items():
        seam = attachment.seams[index]
        for value in losses.values():
            if not isinstance(value, LevelTerm) or value.group != seam.group:
                continue
            if value.term in COUPLED or not value.term.startswith(seam.prefix):
                continue
            for level, loss in enumerate(value):
                if not loss.requires_grad:
                    continue
                flat = [m[i] for m in maps for i in seam.order]
                gradients = torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True)
                for position, gradient in enumerate(gradients):
                    other = position % len(seam.order)
                    if other != level and gradient is not None and bool(gradient.any()):
                        found.append(
                            f"{value.term}: {seam.level_names()[level]} reaches {seam.level_names()[other]}"
                        )
    return found
