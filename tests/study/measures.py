"""What the verdicts must hold, measured under the old rules and under the new.

Each function yields rows of the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from msbal.ablation.statistics.images import seeds_and_images
from study.old import MOST, old_images, old_rules, three_seeds_then_more
from study.rules import Found, Mask, detector_rules, new_rules, sequential_rules
from study.shares import Row, Share, share
from study.worlds import AS_LARGE, EVEN, GAIN, NOISES, POINTS, UNEVEN, Array, World, draw


@dataclass(frozen=True)
class Size:
    """How much is simulated.

    Attributes:
        studies: of each setting; the shares of single settings have more.
        seeds: numbers of them.
        others: numbers of arms beside the baseline.
    """

    studies: int
    seeds: tuple[int, ...]
    others: tuple[int, ...]


FULL = Size(10_000, (2, 3, 5, 8, 12), (1, 2, 4, 7))
SMALL = Size(4_000, (3, 8), (2, 4))

LOOKS = (3, 5, 8, 12)
PAPER = (0.8, 0.7, 0.5, 0.3, 0.9, 0.5)
"""RLO's gains on six detectors in points, Table 2."""

Rules = Callable[[Array], Found]


def all_rows(size: Size = FULL) -> Iterator[Row]:
    """Yield the whole table."""
    for rows in (
        no_difference,
        another_gains,
        as_large,
        same_enough,
        seen,
        smallest_seen,
        looking_often,
        over_detectors,
        other_images,
    ):
        yield from rows(size)


def worlds(
    effects: Callable[[int], tuple[float, ...]],
    seeds: Iterable[int],
    others: Iterable[int],
    noises: Iterable[str] = NOISES,
) -> list[World]:
    """Return every setting: seeds x arms x noise."""
    found = []
    for n, m, noise in itertools.product(seeds, others, noises):
        if noise != "twins":
            found.append(World(n, noise, effects(m)))
        elif m > 1:  # arms that are nearly the same have the same effect
            found.append(World(n, noise, (*effects(m - 1), effects(m - 1)[-1])))
    return found


def worst(
    every: Sequence[World], studies: int, rules: Sequence[Rules], *wrong: Callable[[World, Found], Mask]
) -> list[list[Share]]:
    """Return how often something is wrong in the worst of all settings, by rules and by what is wrong.

    The three worst settings are drawn anew: of many shares the largest is large by chance, too.
    """
    shares: list[list[list[tuple[float, World]]]] = [[[] for _ in wrong] for _ in rules]
    for world in every:
        metrics = draw(world, studies)
        for number, rule in enumerate(rules):
            found = rule(metrics)
            if len(found.p) > studies / 2:
                for at, is_wrong in enumerate(wrong):
                    shares[number][at].append((float(is_wrong(world, found).any(axis=1).mean()), world))

    def ranked(of: list[tuple[float, World]]) -> list[tuple[float, World]]:
        return sorted(of, key=lambda each: each[0], reverse=True)

    def again(world: World, rule: Rules, is_wrong: Callable[[World, Found], Mask]) -> Share:
        found = rule(draw(world, 2 * studies, key=1))
        return share(int(is_wrong(world, found).any(axis=1).sum()), len(found.p), str(world))

    return [
        [
            max((again(world, rule, what) for _, world in ranked(of)[:3]), key=lambda each: each.value)
            for of, what in zip(row, wrong, strict=True)
        ]
        for row, rule in zip(shares, rules, strict=True)
    ]


def cases(size: Size) -> Iterator[tuple[str, Iterable[str], list[int], float]]:
    """Yield what rows are about, the noises and numbers of seeds that they are of, and how often they may err.

    The same noise in all arms is what tests of shared noise assume. Two seeds share none, and from five on each
    comparison's own noise must agree. With three or four there is only a check, which sees little.
    """
    yield "", EVEN, [*size.seeds], 0.055
    if 2 in size.seeds:
        yield "; noise differs, 2 seeds", UNEVEN, [2], 0.06
    yield "; noise differs, 3 or 4 seeds", UNEVEN, [3, 4] if size == FULL else [3], 0.1
    yield "; noise differs, 5 seeds or more", UNEVEN, [n for n in size.seeds if n > 4], 0.075


def no_difference(size: Size) -> Iterator[Row]:
    """What is said where there is no difference, and whether the intervals hold it, of all arms at once."""
    for text, noises, seeds, most in cases(size):
        every = worlds(_none, seeds, size.others, noises)
        old, new = worst(every, size.studies, (old_rules, new_rules), _seen_where_none, _missed)
        yield Row(f"a difference is claimed for some arm, and there is none{text}", old[0], new[0], high=most)
        held = (_rest(missed[1]) for missed in (old, new))
        yield Row(f"all intervals beside the verdicts hold the truth{text}", *held, low=1 - most)


def another_gains(size: Size) -> Iterator[Row]:
    """What is said of arms without a difference where another has one that nobody misses."""
    others = [m for m in size.others if m > 1]
    every = worlds(lambda m: (5.0, *(0.0,) * (m - 1)), size.seeds, others, EVEN)
    (old,), (new,) = worst(every, size.studies, (old_rules, new_rules), _seen_where_none)
    yield Row("a difference is claimed for some arm that has none, another gains 5 sd", old, new, high=0.055)


def as_large(size: Size) -> Iterator[Row]:
    """What is said of differences that are as large as the gain."""
    for text, noises, seeds, most in cases(size):
        every = worlds(_gains_and_losses, seeds, size.others, noises)
        ((out, least),) = worst(every, size.studies, (new_rules,), _ruled_out, _at_least)
        yield Row(f"a difference as large as the gain is ruled out for some arm{text}", None, out, high=most)
        yield Row(f"a difference is called larger than the gain, and it is not{text}", None, least, high=most)


def same_enough(size: Size) -> Iterator[Row]:
    """No difference, and it is said."""
    studies = 3 * size.studies
    for seeds, least in ((3, 0.40), (5, 0.835), (10, 0.99)):
        said = new_rules(draw(World(seeds, "normal", (0.0,)), studies)).less_than(GAIN)
        text = f'no difference at all, sd 0.3: "no difference of 0.5" is said after {seeds} seeds'
        yield Row(text, share(0, studies), share(int(said.sum()), studies), least)


def seen(size: Size) -> Iterator[Row]:
    """A difference, and it is seen."""
    studies = 3 * size.studies
    for seeds, others, effect, least in (
        (3, 4, 2.5, 0.8),
        (4, 4, 2.5, 0.9),
        (5, 4, 1.5, 0.6),
        (3, 1, 2.5, 0.55),
    ):
        nothing = draw(World(seeds, "normal", (0.0,) * others), studies)
        found = []
        for rules in (old_rules, new_rules):
            found.append(share(_seeing(rules, nothing, effect), studies))
        yield Row(f"a gain of {effect:g} sd is seen: {others + 1} arms, {seeds} seeds", *found, low=least)


def _seeing(rules: Rules, nothing: Array, effect: float) -> int:
    """Return in how many studies an effect of the first arm is seen."""
    metrics = nothing.copy()
    metrics[:, 1] += effect * POINTS
    return int(rules(metrics).better[:, 0].sum())


def smallest_seen(size: Size) -> Iterator[Row]:
    """How large a gain must be to be seen in four of five ablations."""
    for seeds, others, most in ((3, 4, 2.5), (5, 4, 1.85), (8, 4, 1.35)):
        nothing = draw(World(seeds, "normal", (0.0,) * others), size.studies)
        text = f"the gain, in sd, that is seen in 80 % of the ablations: {others + 1} arms, {seeds} seeds"
        found = [_seen_in_most(rules, nothing) for rules in (old_rules, new_rules)]
        yield Row(text, *found, high=most, percent=False)


def _seen_in_most(rules: Rules, nothing: Array) -> Share:
    def above(effect: float) -> float:
        return _seeing(rules, nothing, effect) / len(nothing) - 0.8

    return Share(float(optimize.brentq(above, 0, 20, xtol=0.02)), 0.03)


def looking_often(size: Size) -> Iterator[Row]:
    """Several looks at the results."""

    def looked(metrics: Array) -> Found:
        return sequential_rules(metrics, LOOKS, GAIN)[0]

    studies = size.studies
    nothing = worlds(_none, LOOKS[-1:], size.others)
    ((new,),) = worst(nothing, studies, (looked,), _seen_where_none)
    longer = [World(MOST, world.noise, world.effects) for world in nothing]
    ((old,),) = worst(longer, studies, (three_seeds_then_more,), _seen_where_none)
    looks = ", ".join(map(str, LOOKS))
    yield Row(
        f"sequential, looks at {looks} seeds: a difference is claimed, and there is none",
        old,
        new,
        high=0.053,
    )
    every = worlds(_gains_and_losses, LOOKS[-1:], size.others)
    ((out, least),) = worst(every, studies, (looked,), _ruled_out, _at_least)
    yield Row(
        "sequential: a difference as large as the gain is ruled out for some arm", None, out, high=0.055
    )
    yield Row(
        "sequential: a difference is called larger than the gain, and it is not", None, least, high=0.053
    )
    for effect, most in ((2.0, 6.5), (3.0, 4.8), (5.0, 4.2)):
        _, ends = sequential_rules(draw(World(LOOKS[-1], "normal", (effect,)), studies), LOOKS, GAIN)
        mean = Share(float(ends.mean()), float(ends.std() / studies**0.5))
        fixed = Share(float(LOOKS[-1]), 0.0)
        yield Row(
            f"sequential: seeds until a gain of {effect:g} sd is decided",
            fixed,
            mean,
            high=most,
            percent=False,
        )


def over_detectors(size: Size) -> Iterator[Row]:
    """One line over several detectors; runs with a standard deviation of 0.3 points."""
    studies = 3 * size.studies
    sd = 0.3 * 2**0.5
    rng = np.random.default_rng(6)

    def studied(gains: Sequence[float], seeds: int, scale: Array | float = sd, shared: float = 0.0) -> Array:
        own, of_seed = (rng.standard_normal((studies, k, seeds)) for k in (len(gains), 1))
        noise = (1 - shared) ** 0.5 * own + shared**0.5 * of_seed
        return noise * np.reshape(scale, (-1, 1)) + np.array(gains)[:, None]

    paper = studied(PAPER, 3)
    by_itself = old_rules(np.concatenate([np.zeros_like(paper[:, :1]), paper], axis=1)).better
    old, new = (
        share(int(by_itself.sum()), by_itself.size),
        share(int(detector_rules(paper).better.sum()), studies),
    )
    yield Row(
        "the paper's gains on six detectors are seen over all, 3 seeds (before: each by itself)",
        old,
        new,
        0.95,
    )
    for shared, most in ((0.0, 0.055), (0.1, 0.07)):
        found = []
        for groups, seeds, one in itertools.product((2, 3, 6), size.seeds, (1.0, 3.0)):
            scale = np.array([*(sd,) * (groups - 1), sd * one])
            null = detector_rules(studied((0.0,) * groups, seeds, scale, shared))
            found.append(share(int((null.p < 0.05).sum()), studies, f"{groups} detectors, {seeds} seeds"))
        text = "over detectors: a difference is claimed, and there is none"
        if shared:
            text += f"; {100 * shared:.0f} % of the variance is the seed's, the same in all"
        yield Row(text, None, max(found, key=lambda each: each.value), high=most)


def other_images(size: Size) -> Iterator[Row]:
    """One interval for other seeds and other images."""
    studies, resamples = size.studies // 10, 200
    found: dict[str, list[Share]] = {"old": [], "new": []}
    for seeds, images, ratio in itertools.product(
        dict.fromkeys((2, *size.seeds[1:-1], 8)), (20, 200), (0.3, 1.0, 3.0, 10.0)
    ):
        rng = np.random.default_rng([seeds, images, round(10 * ratio)])
        held = dict.fromkeys(found, 0)
        drawn = rng.multinomial(images, [1 / images] * images, resamples).T / images  # [N, R]
        for study in range(studies):
            # Each image differs for itself, each seed on all images, and each run on each image.
            of_image, of_seed = rng.standard_normal(images), rng.standard_normal((seeds, 1)) * ratio
            values = of_image + of_seed * images**-0.5 + 0.5 * rng.standard_normal((seeds, images))
            draws = values @ drawn
            span = seeds_and_images(values.mean(axis=1).tolist(), list(draws), images)
            assert span is not None
            low, high = old_images(values.mean(axis=1), draws, study)
            held["new"] += span.low <= 0 <= span.high
            held["old"] += low <= 0 <= high
        where = f"{seeds} seeds, {images} images"
        for rule, count in held.items():
            found[rule].append(share(count, studies, where))
    for text, pick in (("in the worst setting", min), ("in the most generous", max)):
        old, new = (pick(found[rule], key=lambda each: each.value) for rule in ("old", "new"))
        yield Row(
            f"the interval over seeds and images holds the truth, {text}",
            old,
            new,
            0.93,
            0.97,
        )


def _none(others: int) -> tuple[float, ...]:
    return (0.0,) * others


def _gains_and_losses(others: int) -> tuple[float, ...]:
    return tuple(AS_LARGE * (1, -1)[k % 2] for k in range(others))


def _seen_where_none(world: World, found: Found) -> Mask:
    return (found.p < 0.05) & (np.array(world.effects) == 0)


def _ruled_out(world: World, found: Found) -> Mask:
    return found.less_than(GAIN) | (found.no_gain(GAIN) & (np.array(world.effects) > 0))


def _at_least(_: World, found: Found) -> Mask:
    return found.at_least(GAIN)


def _missed(_: World, found: Found) -> Mask:
    return ~np.isnan(found.p) & ((found.low > 0) | (found.high < 0))


def _rest(missed: Share) -> Share:
    return Share(1 - missed.value, missed.error, missed.where)
