"""The page of the documentation that shows the study's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msbal.table import Column, Table
from study.measures import Size
from study.shares import SURE, Row, share
from study.worlds import EVEN, UNEVEN

PAGE = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"

TEXT = """# How the verdict was tested

A verdict of `msbal ablate` is a claim, and a claim can be wrong. How often it is, and how often it sees what is there,
was measured on ablations whose truth is known: metrics drawn at random, {studies:,} ablations in each setting, judged
by the rules of the command. This page is written by

    python3 tests/study --markdown

in a minute or two. `python3 dev.py test all` repeats it at a smaller size, and fails where a row misses what it must
be by more than chance explains.

The settings are all combinations of {seeds} seeds (and 4, where that is said), {arms} arms, and
these kinds of noise, the same in all arms:

{even}

or noise that differs from arm to arm:

{uneven}

A row that covers many settings shows the worst of them; the three worst are drawn a second time for it. Shares stray
by chance, by less than {stray:.1f} points where they are around 5 %. One sd is the standard deviation of the difference
between two arms from seed to seed, here 0.3 points, and the gain is 0.5 points. *Before* stands for the rules that one
would write down first: paired t-tests with Holm's correction, which can only find a difference, beside intervals that
are not corrected; "three seeds, then as many as are said to be needed"; a percentile bootstrap over seeds and images.

{table}
## What to take from it

- **Where all arms have the same noise, the verdicts keep their word**: about one ablation in twenty claims a
  difference that is not there, and no more than that rule out one that is.
- **Noise that differs from arm to arm is hard to see with three or four seeds**, and then up to one ablation in ten
  claims a difference that is not there. The worst case is a baseline noisier than all other arms: its bad luck is in
  every comparison. Two seeds share no noise, and from five on a difference is claimed only if the comparison's own
  noise bears it out; some risk remains there, too. With three or four seeds, look at the plain pairs beside the
  verdict, and run more seeds where their own interval includes 0. A sequential ablation tests each comparison by
  itself, and keeps its word with all of these kinds of noise.
- **Three seeds see only large gains**; five see those that papers report. `--dry-run` says which gain a grid can see.
- **Adding seeds until something is seen** finds a difference that is not there in one ablation in ten.
  `stop: sequential` looks as often, and errs in fewer than one in twenty.
- **A few images say little about others.** The interval over seeds and images is as wide as so few of both make it; the
  percentile bootstrap was far too narrow.
"""


def page(rows: Sequence[Row], size: Size) -> str:
    """Return the whole page."""
    arms = [1 + others for others in size.others]
    return TEXT.format(
        studies=size.studies,
        stray=100 * SURE * share(size.studies // 20, size.studies).error,
        seeds=_listed(size.seeds),
        arms=_listed(arms),
        even=_items(EVEN),
        uneven=_items(UNEVEN),
        table=markdown_table(rows),
    )


def markdown_table(rows: Sequence[Row]) -> str:
    """Return what was found as a table, with the settings of the worst cases."""
    header = (
        Column("how often", text=True),
        *map(Column, ("before", "now", "must be")),
        Column("worst in", text=True),
    )
    cells = tuple((*row.cells, row.new.where or "-") for row in rows)
    return Table("What the verdicts hold", header, cells).markdown()


def _items(noises: Mapping[str, str]) -> str:
    return "\n".join(f"- *{name}*: {text}" for name, text in noises.items())


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
