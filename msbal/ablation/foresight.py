"""What a grid can see, said before it has run: the gain that its seeds show, and the seeds that its gain takes."""

from __future__ import annotations

import math
from functools import partial

from scipy import optimize

from msbal.ablation.grid import Grid
from msbal.ablation.plan import listed, looks_of
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics.conclude import conclude
from msbal.ablation.statistics.power import MAX_SEEDS, gain_seen, seeds_needed
from msbal.ablation.statistics.samples import EXACT
from msbal.ablation.statistics.sequential import expected_seeds, nominal_level
from msbal.ablation.statistics.shared import FEWEST
from msbal.ablation.study import read_study
from msbal.metric_text import full_name, points
from msbal.table import Column, Table, columns

USUAL = (0.002, 0.005, 0.01)
"""From large data sets with long schedules to small ones."""


def foresight(ablation: AblationSpec, grid: Grid) -> Table | None:
    """Return the table; None where nothing can be concluded anyway: one seed, or one arm."""
    if len(grid.seeds) < 2 or not grid.comparisons:
        return None
    noises, source = _noises(ablation, grid)
    looks, m, gain = looks_of(ablation, grid), len(grid.comparisons), f"{100 * ablation.gain:g}"
    compared = f"{m} comparison{'s' * (m > 1)}"
    notes = [
        f"In points of {full_name(ablation.metric)}. The noise is the standard deviation of the difference between two "
        f"arms over the seeds{source}"
    ]
    header = [*columns("noise", "gain seen"), Column(f"seeds for {gain}")]
    if len(looks) > 1:
        title = f"What at most {len(grid.seeds)} seeds see with a probability of 80 %, {compared}"
        header[2:] = [Column(f"{gain} is seen"), Column(f"seeds for {gain} with one look")]
        differences = (0.0, ablation.gain, 2 * ablation.gain)
        header += [
            Column(f"{100 * each:g}", "seeds on average, if the difference is") for each in differences
        ]
        rows = [_sequential_row(noise, ablation.gain, looks, m) for noise in noises]
        level = nominal_level(0.05 / m, looks)
        notes.append(
            f"The results are looked at after {listed(looks)} seeds, each time at a level of {level:.2g}: all "
            f"looks{' and comparisons' * (m > 1)} together err in 5 %. A comparison ends at the first look that shows "
            "a difference or rules the gain out."
        )
    else:
        title = f"What {len(grid.seeds)} seeds see with a probability of 80 %, {compared}"
        rows = [_row(noise, ablation.gain, grid) for noise in noises]
        if grid.treatments:
            over = grid.treatments[0]
            mean = f"in the mean over {len(over.comparisons)} {over.over}"
            header += [Column("gain seen", mean), Column(f"seeds for {gain}", mean)]
    return Table(title, tuple(header), tuple(rows), tuple(notes))


def _noises(ablation: AblationSpec, grid: Grid) -> tuple[tuple[float, ...], str]:
    """Return the noise to expect, 0..1, and the end of a sentence that says where it is from."""
    if ablation.noise is not None:
        return (ablation.noise,), " (`noise` in the spec)."
    conclusions = conclude(read_study(ablation, grid, grid.seeds))
    seen = [c.paired for c in conclusions.values() if (c.paired.sd or 0.0) > EXACT]
    degrees = sum(paired.n - 1 for paired in seen)
    if degrees:
        variance = sum((paired.n - 1) * (paired.sd or 0.0) ** 2 for paired in seen) / degrees
        return (
            math.sqrt(variance),
        ), f", here that of the {sum(paired.n for paired in seen)} pairs that are finished."
    return USUAL, ". It is not known yet, so these are usual ones; the spec may have yours as `noise`."


def _row(noise: float, gain: float, grid: Grid) -> tuple[str, ...]:
    seeds, m = len(grid.seeds), len(grid.comparisons)
    # Several comparisons of arms that share a baseline share their noise, unless there are too few seeds.
    rows = sum(len(group) - 1 for group in grid.groups.values()) if m > 1 else 1
    needed = seeds_needed(gain, noise, m, rows)
    if needed is not None and rows > 1:
        needed = max(FEWEST, needed)
    found = [noise, gain_seen(seeds, noise, m, rows if seeds >= FEWEST else 1), needed]
    if grid.treatments:
        groups = len(grid.treatments[0].comparisons)
        of_mean = noise / math.sqrt(groups), len(grid.treatments), groups
        found += [gain_seen(seeds, *of_mean), seeds_needed(gain, *of_mean)]
    return tuple(_shown(value) for value in found)


def _sequential_row(noise: float, gain: float, looks: tuple[int, ...], m: int) -> tuple[str, ...]:
    run = partial(expected_seeds, looks, gain=gain, sd=noise, comparisons=m)
    high = noise
    while run(high)[1] < 0.8:
        high *= 2
    seen = float(optimize.brentq(lambda effect: run(effect)[1] - 0.8, 0.0, high, xtol=noise / 100))
    averages = [f"{run(effect)[0]:.1f}" for effect in (0.0, gain, 2 * gain)]
    chance = f"{100 * run(gain)[1]:.0f} %"
    return points(noise), points(seen), chance, _shown(seeds_needed(gain, noise, m)), *averages


def _shown(value: float | None) -> str:
    """Return a metric in points or a number of seeds."""
    if value is None:
        return f"> {MAX_SEEDS:,}"
    return f"{value:,}" if isinstance(value, int) else points(value)
