"""Measure a model's levels on a few batches: losses, positives, and the gradients of each level's loss.

Shapes: N batches, T terms, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import stats

from msbal.backend import Detector, LevelGroup
from msbal.backend.kit.seeding import mix, seed_everything, seeded
from msbal.data import DetectionData
from msbal.diagnosis.signal import CommonGradients, signal, signal_cosines
from msbal.engine.gradients import SHARED, GradientError, cosines, norms
from msbal.engine.statistics import Array
from msbal.errors import RunError
from msbal.records.diagnosis import GroupState, Spread
from msbal.training.stream import image_at

CONFIDENCE = 0.95


def choose_batches(data: DetectionData, batches: int, size: int, seed: int) -> list[list[int]]:
    """Return the indices of the images of each batch: in the order that the seed gives, no image twice.

    Images without a box to learn from are left out, as most frameworks leave them out. A small data set has fewer
    batches, or one smaller one.
    """
    usable = [i for i, image in enumerate(data.images) if not image.crowd.all()]
    order = [usable[image_at(place, len(usable), seed)] for place in range(len(usable))]
    size = min(size, len(order))
    return [order[n * size : (n + 1) * size] for n in range(min(batches, len(order) // max(1, size)))]


def measure_levels(
    detector: Detector,
    data: DetectionData,
    batches: Sequence[Sequence[int]],
    seed: int,
    done: Callable[[int], None],
) -> tuple[tuple[GroupState, ...], list[str]]:
    """Measure each group on each batch; neither the model nor any random state changes.

    What is sampled in a batch (proposals, drop-out) depends on the seed and the batch alone, so that two states of a
    model are compared on equal terms.

    Args:
        batches: indices of images, see `choose_batches`.
        done: called after each batch with how many are done.

    Returns:
        the groups, and sentences on the losses and gradients that are not finite; the means are of the others.

    Raises:
        RunError: where autograd cannot run through the model's graph for each level.
    """
    samples = {group.name: _Samples(group) for group in detector.groups}
    gradients: dict[str, CommonGradients] = {}
    for number, indices in enumerate(batches, start=1):
        with _drawing(mix("diagnose", seed, number), next(detector.model.parameters()).device):
            found = detector.split_losses(detector.batch(data, indices))
        for name, losses in found.groups.items():
            if name not in gradients:
                gradients[name] = CommonGradients(found.parts.get(name) or detector.model.parameters())
            try:
                gramians = gradients[name].measure(losses.values.sum(dim=0))
            except GradientError as error:
                raise RunError("gradients", f"cannot be measured: {error}") from error
            samples[name].add(
                losses.values.detach().double().cpu().numpy(),
                None if losses.positives is None else losses.positives.detach().double().cpu().numpy(),
                gramians,
            )
        done(number)
    states = tuple(_with_signal(each.state(), gradients.get(name)) for name, each in samples.items())
    return states, [note for each in samples.values() for note in each.notes()]


def spread(values: Array, low: float = -np.inf, high: float = np.inf) -> Spread:
    """Return the mean of ``[N]`` values and its 95 % t interval, cut to where the mean can lie.

    Cutting loses no coverage. Values that are not finite are left out.
    """
    values = values[np.isfinite(values)]
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2:
        return Spread(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return Spread(mean, max(low, mean - half), min(high, mean + half))


def equal_norm_weights(norm: Array, positives: Array | None = None) -> Array:
    """Return the weights ``[K]`` that make the levels' gradient norms equal, with the sum K.

    A level without a gradient or without positives keeps 1: what little gradient the background has would get all the
    weight there is.
    """
    weights, known = np.ones(len(norm)), np.isfinite(norm) & (norm > 0)
    if positives is not None:
        known &= positives > 0
    inverse = 1 / norm[known]
    weights[known] = inverse * known.sum() / inverse.sum()
    return weights


@dataclass
class _Samples:
    """One group's measurements, an entry a batch."""

    group: LevelGroup
    losses: list[Array] = field(default_factory=list)
    positives: list[Array] = field(default_factory=list)
    gramians: list[dict[str, Array]] = field(default_factory=list)
    odd: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    """For each thing that was not finite, in which batches, by level."""

    def add(self, losses: Array, positives: Array | None, gramians: dict[str, Array]) -> None:
        self.losses.append(losses)
        self.gramians.append(gramians)
        if positives is not None:
            self.positives.append(positives)
        for k, level in enumerate(self.group.levels):
            wrong = [
                f"{term} loss"
                for term, loss in zip(self.group.terms, losses[:, k], strict=True)
                if not np.isfinite(loss)
            ]
            if not wrong and not all(np.isfinite(gramian[k, k]) for gramian in gramians.values()):
                wrong = ["gradient"]
            for what in wrong:
                self.odd.setdefault(what, {}).setdefault(level, set()).add(len(self.losses))

    def notes(self) -> Iterator[str]:
        """Yield a sentence on each kind of thing that was not finite."""
        of_group = f" of {self.group.name}" if self.group.name != "all" else ""
        for what, by_level in self.odd.items():
            count, batches = len(set().union(*by_level.values())), len(self.losses)
            found = f"the {what} of {', '.join(by_level)}{of_group} is NaN or infinite in"
            few = f"{count} of {batches} batches: the means are of the others"
            yield f"{found} {few if count < batches else 'every batch'}"

    def state(self) -> GroupState:
        levels = range(len(self.group.levels))
        losses = np.stack(self.losses)  # [N, T, K]
        norm = {part: np.stack([norms(each[part]) for each in self.gramians]) for part in self.gramians[0]}
        for values in norm.values():
            # A gradient may be infinite where the loss is not; no share is measured by it.
            values[~(np.isfinite(losses).all(axis=1) & np.isfinite(values))] = np.nan
        cosine = np.stack([_known_cosines(each[SHARED]) for each in self.gramians])  # [N, K, K]
        total = norm[SHARED].sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = norm[SHARED] / total
        shared = tuple(spread(norm[SHARED][:, k], 0.0) for k in levels)
        positives = None
        if len(self.positives) == len(self.losses):
            counts = np.stack(self.positives)
            positives = tuple(spread(counts[:, k], 0.0) for k in levels)
        return GroupState(
            self.group.name,
            self.group.levels,
            {term: tuple(spread(losses[:, t, k]) for k in levels) for t, term in enumerate(self.group.terms)},
            positives,
            {part: tuple(spread(values[:, k], 0.0) for k in levels) for part, values in norm.items()},
            tuple(spread(share[:, k], 0.0, 1.0) for k in levels),
            tuple(tuple(spread(cosine[:, j, k], -1.0, 1.0) for k in levels) for j in levels),
            tuple(
                equal_norm_weights(_means(shared), None if positives is None else _means(positives)).tolist()
            ),
        )


def _with_signal(state: GroupState, gradients: CommonGradients | None) -> GroupState:
    products = None if gradients is None else gradients.products()
    if products is None:
        return state
    return replace(state, signal=signal(*products), signal_cosine=signal_cosines(products[0]))


def _means(spreads: Sequence[Spread]) -> Array:
    return np.array([each.mean for each in spreads])


def _known_cosines(gramian: Array) -> Array:
    """Return ``[K, K]`` with NaN where a gradient is 0 or infinite, which has no direction."""
    length = norms(gramian)
    with np.errstate(invalid="ignore"):
        products = np.outer(length, length)
    return np.where((products > 0) & np.isfinite(products), cosines(gramian), np.nan)


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all generators; restore them at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), seeded(seed):
        seed_everything(seed)
        yield
