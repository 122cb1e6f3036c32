"""Write docs/evidence.md and its figures from finished ablations: ``python docs/evidence.py [GRID ...]``.

With the folders of finished grids (those that `msbal ablate` writes), keep their records in ``docs/data/evidence`` and
write the page from them; without, write the page anew from what is kept. ``-o FOLDER`` writes a page of your own, with
its figures and data beside it, and leaves this one alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import evidence_observations as observations
import numpy as np
from evidence_observations import Terms, estimate
from evidence_records import INTERVALS, RUNS, STUDY, KeptGrid, keep, read_kept

from msbal.ablation.grid import Comparison, Treatment
from msbal.ablation.plan import listed, sentences
from msbal.ablation.report import Report, make_report
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.detectors import over_groups
from msbal.ablation.statistics.samples import summarize
from msbal.ablation.statistics.words import question, verdict_text
from msbal.ablation.study import study_of
from msbal.errors import MsbalError
from msbal.metric_text import full_name, signed, span
from msbal.plotting import GroupSeries
from msbal.records.atomic import write_text
from msbal.table import Column, Table, columns

DOCS = Path(__file__).resolve().parent
DATA, IMAGES, PAGE = Path("data/evidence"), Path("images"), "evidence.md"
TITLES = {"retinanet": "RetinaNet", "fcos": "FCOS", "fasterrcnn": "Faster R-CNN", "ssd": "SSD"}
STRATEGY, LARGER_RATE, RESCALED = "rlo", "equal-lr", "rlo-rescaled"

# What the records cannot know, for the page of this repository.
SETTING = """\
What the plans could not fix was chosen before them, in about twenty trials that are not counted here, nearly all with
seed 100 and evaluated on the same images: image size, length, optimizer, learning rate and anchors, so that a run
takes a minute on a free core and learns to find the cells. The factor of `equal-lr` comes from these trials, too. A
first grid of RetinaNet, with SGD and a learning rate of 0.03, was stopped during its first seed, because the losses
jumped and AP was only from 17 to 20; its plan and its runs were thrown away. Two runs went on at once, on two cores
that had much other work.

One thing was changed with the results of RetinaNet in view: how unequal the arms' noise may be where they share it.
Random weights are so noisy that they had widened all intervals, that of RLO to -1.92 .. +1.24. With each comparison's
own noise `max_loss` is "worse", where it was "worse by at least 0.5"; no other verdict changed. What it left open was
then asked once more, of RLO alone and with new seeds (`examples/evidence/confirm.yaml`)."""

REPEAT = """\
## Repeat it

The photographs are public: [github.com/Shenggan/BCCD_Dataset](https://github.com/Shenggan/BCCD_Dataset), under the MIT
licence. Nothing of them is in this repository. The features come in a package; nothing else is downloaded.

In a clone of this repository:

```
git clone https://github.com/Shenggan/BCCD_Dataset examples/evidence/BCCD_Dataset
pip install 'msbal[features,plots]'
msbal ablate examples/evidence/retinanet.yaml --jobs 2
msbal ablate examples/evidence/fcos.yaml --jobs 2
msbal ablate examples/evidence/confirm.yaml --jobs 2
python docs/evidence.py ablations/retinanet ablations/fcos ablations/confirm -o my-study
```

An hour or two on a laptop: a run takes about a minute of one core, and two go on at once. `--set seeds=3` takes less.
Stop it whenever you like: the same command goes on. `ablations/retinanet/report/report.html` says what came out, and
the last line makes a page like this one of it. If the photographs lie elsewhere, add `--set
base.data.root=/path/to/BCCD_Dataset/BCCD`. Another machine rounds otherwise, and its numbers differ by about as much
as those of another seed.

**On a folder of your own**, with boxes in COCO, VOC or YOLO format:

```
msbal init FOLDER -o mine.yaml
msbal ablate examples/evidence/retinanet.yaml --set base=/path/to/mine.yaml --dry-run \\
  --set 'arms.equal-lr={balance.strategy: equal, schedule.optimizer.lr: 0.00116}'
```

The learning rate is that of `mine.yaml` times the factor by which RLO makes the loss larger there, as a run of it
shows; 1.16 is a guess. The dry run says how long the study will take and which gain so many seeds can show. Without
`--dry-run`, with `--jobs 2` and the same settings, it begins."""

LIMITS = """\
## What this does not show

- **One data set**, 205 small photographs of one kind, with objects of a few sizes. On COCO the levels share the boxes
  otherwise, and another strategy may be the better one.
- **A small model and a short schedule**: frozen features, images of 160 pixels, a few hundred iterations with an
  interval of 10, where the paper trains for about 90,000. The policy has some thirty decisions to learn from.
- **Not the paper's table**: nothing here confirms or contradicts its 36.1 and 36.9 on COCO. Its tables are specs that
  you can run ([The paper's tables](ablation.md#the-papers-tables)).
- **A verdict is about these settings**: another learning rate or another amplification is another study."""


@dataclass(frozen=True)
class Part:
    """One grid on the page.

    Attributes:
        title: the model's name, as people write it.
    """

    title: str
    kept: KeptGrid
    study: Study
    report: Report
    conclusions: Mapping[Comparison, Conclusion]

    @property
    def baseline(self) -> str:
        return self.kept.grid.baseline

    @property
    def runs(self) -> list[GroupSeries]:
        """The recorded intervals of the runs of the baseline."""
        return list(self.kept.series[self.baseline].values())

    def of(self, arm: str, to: str | None = None) -> Conclusion | None:
        """Return the conclusion on an arm, by default against the baseline."""
        return self.conclusions.get(Comparison(arm, to or self.baseline))


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the grids that are named, write the page, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "grids", nargs="*", type=Path, metavar="GRID", help="the output folder of `msbal ablate`"
    )
    parser.add_argument("-o", "--output", type=Path, default=DOCS, metavar="FOLDER", help="by default docs")
    parser.add_argument("--partial", action="store_true", help="take grids whose runs are not all finished")
    chosen = parser.parse_args(arguments)
    try:
        for grid in chosen.grids:
            print(f"kept {keep(grid, chosen.output / DATA, chosen.partial)}")
        write_text(chosen.output / PAGE, render(chosen.output, draw=True))
        print(f"wrote {chosen.output / PAGE}")
    except (MsbalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def render(folder: Path, draw: bool = False) -> str:
    """Return the page's text, from the records that are kept in `folder`.

    Args:
        draw: also write the figures.
    """
    with tempfile.TemporaryDirectory() as scratch:
        kept = [file.parent for file in sorted((folder / DATA).glob(f"*/{STUDY}"))]
        if not kept:
            raise FileNotFoundError(f"{folder / DATA}: no records; name the folders of finished grids")
        grids = [read_kept(one, Path(scratch) / one.name) for one in kept]
        # The one with most arms and seeds first: it can say most.
        order = sorted(grids, key=lambda one: (-len(one.grid.arms), -len(one.grid.seeds)))
        parts = [part_of(one) for one in order]
        # A further grid of a model answers one question; everything else is on the page already.
        first = [part for part in parts if part.kept.name in TITLES] or parts
        own = folder.resolve() == DOCS
        sections = [
            _head(parts), _plan(parts, own), *map(_results, parts), _over_models(first), _learning_rate(first),
            _weights(first), _time(first), _observations(first, folder if draw else None),
            _records(parts), *([REPEAT, LIMITS] if own else []),
        ]  # fmt: skip
        return "\n\n".join(filter(None, sections)) + "\n"


def part_of(kept: KeptGrid) -> Part:
    """Let msbal conclude from a kept grid."""
    ablation, grid, outcomes = kept.ablation, kept.grid, kept.outcomes
    summaries = {arm: summarize(values) for arm, values in outcomes.values(ablation.metric).items()}
    study = study_of(ablation, grid, summaries, outcomes.metrics, kept.crashed, kept.images)
    report = make_report(
        ablation, grid, outcomes, kept.images, planned=sentences(kept.plan), crashed=kept.crashed
    )
    model, _, more = kept.name.partition("-")
    title = TITLES.get(model, model) + (", asked again" if more else "")
    return Part(title, kept, study, report, conclude(study))


# The sections


def _head(parts: Sequence[Part]) -> str:
    machine = parts[0].kept.machine
    runs = sum(len(of_arm) for part in parts for of_arm in part.kept.series.values())
    data = machine["data"]
    models = listed(list(dict.fromkeys(part.title.partition(",")[0] for part in parts)))
    trained = f"{data['images']} images with {data['boxes']:,} boxes" if data else "the training images"
    return (
        f"# Does balancing help? A study\n\n**{headline(parts)}**\n\n"
        f"{models}, trained on {trained} and evaluated on {machine['evaluated']} "
        f"others: {runs} runs. `python docs/evidence.py` has written this page from [their records](#the-records), and "
        "would write it again; nothing in it is written by hand but what introduces the numbers."
    )


def headline(parts: Sequence[Part]) -> str:
    """Return what RLO changes, or whatever the first arm is: what is decided first, then what is open."""
    arm = _main_arm(parts)
    decided, still_open = [], []
    for part in parts:
        found = part.of(arm)
        if found is None or found.tested is None:
            continue
        tested, where = found.tested, f"on {part.title} with {found.paired.n} seeds"
        if found.verdict == "cannot tell yet":
            still_open.append(f"{where}, {signed(tested.mean)} ({span(*tested.interval)})")
            continue
        verdict = verdict_text(found.verdict, part.kept.ablation.gain)
        points = f"{signed(tested.mean)} points of {full_name(part.kept.ablation.metric)}"
        decided.append(f"{where}: {verdict}, {points} (95 % interval {span(*tested.interval)})")
    pair = f"{arm.upper()} against {parts[0].baseline} weights"
    if not decided and not still_open:
        return "Nothing can be concluded yet."
    if not decided:
        return f"{pair}: it cannot be told yet which is better {listed(still_open)}."
    more = f" Not to be told yet {listed(still_open)}." if still_open else ""
    return f"{pair} {'; '.join(decided)}.{more}"


def _plan(parts: Sequence[Part], own: bool) -> str:
    lines = ["## What was asked, and when\n"]
    for part in parts:
        plan = part.kept.plan
        at = datetime.fromisoformat(plan.at)
        when = "" if plan.finished else ", before the first run"
        changed = " ".join(sentences(plan)) or "Nothing was changed later."
        lines.append(
            f"- **{part.title}**, written down on {at.day} {at:%B %Y at %H:%M} UTC{when}. {question(part.study)} "
            f"{changed}"
        )
    lines += ["", _settings(parts).transposed().markdown()]
    return "\n".join(lines) + (f"\n{SETTING}" if own else "")


def _settings(parts: Sequence[Part]) -> Table:
    """Return the run that all arms of a grid start from."""
    rows = []
    for part in parts:
        spec = next(cell.spec for cell in part.kept.grid.cells if cell.arm == part.baseline)
        model, optimizer = spec.model, spec.schedule.optimizer
        sizes = getattr(model, "min_size", None)
        row = (
            part.title, getattr(model, "backbone", "-"), min(sizes) if sizes else "-",
            spec.schedule.iterations or "-", spec.schedule.batch_size,
            f"{optimizer.name}, {optimizer.lr:g}" if optimizer else "-", spec.balance.interval,
            len(part.kept.grid.seeds),
        )  # fmt: skip
        rows.append(tuple(map(str, row)))
    heads = (
        "backbone", "pixels", "iterations", "images in each", "optimizer, learning rate", "interval", "seeds",
    )  # fmt: skip
    return Table("The run that every arm starts from", columns("model", *heads), tuple(rows))


def _results(part: Part) -> str:
    said = [
        f"- {conclusion.words}"
        for each, conclusion in part.conclusions.items()
        if each.arm == STRATEGY and each.to != LARGER_RATE
    ]
    whole = part.report.tables["comparison"]
    # What a page is wide enough for; the report has the rest.
    shown = {"arm", full_name(part.kept.ablation.metric), "difference", "95 % interval", "seeds and images"}
    shown |= {"share of seeds", "verdict"}
    table = _with_columns(whole, [n for n, column in enumerate(whole.columns) if column.name in shown])
    notes = tuple(note for note in table.notes if not note.startswith("Seeds needed"))
    return "\n".join([f"## {part.title}\n", replace(table, notes=notes).markdown(), *said]).rstrip()


def _with_columns(table: Table, places: Sequence[int], title: str = "") -> Table:
    """Return some columns of a table, and the rows that have an entry in them beside the first."""
    rows = [tuple(row[n] for n in places) for row in table.rows]
    kept = tuple(row for row in rows if any(cell != "-" for cell in row[1:]))
    return replace(
        table, title=title or table.title, columns=tuple(table.columns[n] for n in places), rows=kept
    )


def _over_models(parts: Sequence[Part]) -> str:
    """Return the mean over the models of what each arm changes, where there are several."""
    if len(parts) < 2:
        return ""
    arms = [arm for arm in parts[0].kept.grid.arms if all(part.of(arm) for part in parts)]
    conclusions: dict[Comparison, Conclusion] = {}
    treatments = []
    for arm in arms:
        comparisons = []
        for part in parts:
            found = part.of(arm)
            assert found is not None
            each = Comparison(f"{part.title}, {arm}", f"{part.title}, {part.baseline}")
            conclusions[each] = found
            comparisons.append(each)
        treatments.append(Treatment(arm, "detectors", tuple(comparisons)))
    gain = parts[0].kept.ablation.gain
    rows = []
    for over in over_groups(tuple(treatments), conclusions, gain):
        tested = over.tested
        numbers = ("-", "-") if tested is None else (signed(tested.mean), span(*tested.interval))
        rows.append((over.treatment.name, *numbers, verdict_text(over.verdict, gain)))
    head = (*columns("arm", "mean difference", "95 % interval"), Column("verdict", text=True))
    note = (
        f"For these {len(parts)} models, with the noise of the seeds; corrected for {len(rows)} arms. This was in "
        "neither plan."
    )
    table = Table(f"Each arm against {parts[0].baseline}, in points", head, tuple(rows), (note,))
    return f"## {'Both' if len(parts) == 2 else 'All'} models together\n\n{table.markdown()}".rstrip()


def _learning_rate(parts: Sequence[Part]) -> str:
    """Return whether a gain could be that of a larger learning rate, where the arms for that are there."""
    lines = []
    for part in parts:
        asked = [part.of(STRATEGY, LARGER_RATE), part.of(LARGER_RATE), part.of(RESCALED)]
        known = [c for c in asked if c is not None]
        if not known:
            continue
        factor = estimate([_amplified(run) for run in part.kept.series[STRATEGY].values()])
        rates = {
            c.arm: c.spec.schedule.optimizer.lr for c in part.kept.grid.cells if c.spec.schedule.optimizer
        }
        rate = ""
        if LARGER_RATE in rates:
            times = rates[LARGER_RATE] / rates[part.baseline]
            rate = f"; `{LARGER_RATE}` has a learning rate {times:.3g} times that of `{part.baseline}`"
        lines.append(
            f"**{part.title}: {_cause(part)}** RLO made the whole loss {factor.text('.3f')} times as large{rate}."
        )
        lines.append("\n".join(f"- {conclusion.words}" for conclusion in known))
    if not lines:
        return ""
    intro = (
        "RLO's weights are never below 1, so the whole loss gets larger, too. With SGD that is a larger learning rate; "
        "Adam and AdamW divide by the gradient's size, so that only the levels' shares change. Two arms tell the one "
        f"from the other: `{LARGER_RATE}` has equal weights and a learning rate that is larger by as much; "
        f"`{RESCALED}` has RLO's choice of levels, with weights that sum to the number of levels."
    )
    return "\n\n".join(["## Is it only a larger learning rate?", intro, *lines])


def _cause(part: Part) -> str:
    """Return whether RLO's gain is that of a larger learning rate, in a sentence."""
    gained, over_rate, by_rate = part.of(STRATEGY), part.of(STRATEGY, LARGER_RATE), part.of(LARGER_RATE)
    if gained is None or not gained.verdict.startswith("better"):
        return "no gain is shown that a larger learning rate could explain."
    if over_rate is not None and over_rate.verdict.startswith("better"):
        return "no, RLO is also better than a larger learning rate."
    if by_rate is not None and by_rate.verdict.startswith("better"):
        return "perhaps: a larger learning rate is better, too, and RLO is not shown to be better than it."
    return "it cannot be told: RLO is not shown to be better than a larger learning rate."


def _amplified(run: GroupSeries) -> float:
    """Return how many times as large the weights in force made the loss of a run."""
    return float(np.nansum(run.loss * run.previous_weights) / np.nansum(run.loss))


def _weights(parts: Sequence[Part]) -> str:
    lines, notes = ["## Weights and actions"], dict[str, None]()
    for part in parts:
        if (table := part.report.tables.get("weights")) is not None:
            lines.append(f"### {part.title}: weights")
            for above in dict.fromkeys(column.above for column in table.columns[1:]):
                places = [0, *(n for n, column in enumerate(table.columns) if column.above == above)]
                some = _with_columns(table, places, f"{above[0].upper()}{above[1:]}")
                plain = tuple(replace(column, above="") for column in some.columns)
                lines.append(replace(some, columns=plain, notes=()).markdown().rstrip())
            notes |= dict.fromkeys(table.notes)
        chosen = [run for run in part.kept.series.get(STRATEGY, {}).values() if run.actions]
        if chosen:
            rewarded = estimate([np.mean(run.reward[1:] > 0) for run in chosen])
            last = np.mean([run.probabilities[-1] for run in chosen], axis=0)
            ends = listed([f"{a} {p:.2f}" for a, p in zip(chosen[0].actions, last, strict=True)])
            lines.append(
                f"RLO was rewarded in {rewarded.text()} of the intervals; its probabilities went from "
                f"{1 / len(last):.2f} each to {ends} on average."
            )
    return "\n\n".join([*lines, *notes]) if len(lines) > 1 else ""


def _time(parts: Sequence[Part]) -> str:
    rows = []
    for part in parts:
        base = part.kept.seconds[part.baseline]
        for arm in part.kept.grid.arms:
            own = part.kept.seconds[arm]
            pairs = [own[seed] / base[seed] - 1 for seed in own if seed in base and arm != part.baseline]
            more = estimate(pairs).text("+.1%") if pairs else "-"
            if own:
                rows.append((part.title, arm, f"{np.mean(list(own.values())):.0f}", more))
    if not rows:
        return ""
    head = (
        Column("model", text=True),
        Column("arm", text=True),
        Column("seconds a run"),
        Column(f"more than {parts[0].baseline}"),
    )
    return (
        "## Time\n\n"
        + Table("Time of a run, evaluation included", head, tuple(rows)).markdown()
        + "\nPaired by seed, with 95 % intervals. Other work on the machine is in them; what balancing costs by itself "
        "is [measured apart](cost.md): less than 0.1 % of a step."
    )


# The paper's observations


def _observations(parts: Sequence[Part], folder: Path | None) -> str:
    """Return the three observations; write their figures into `folder`, if there is one."""
    found = {part.title: part.runs for part in parts}
    sizes = {title: observations.sizes(runs) for title, runs in found.items()}
    moves = {title: observations.fluctuations(runs) for title, runs in found.items()}
    terms = {title: both for title, runs in found.items() if (both := observations.terms(runs)) is not None}
    if folder is not None:
        images = folder / IMAGES
        observations.draw_sizes({t: (found[t], sizes[t]) for t in found}, images / "evidence-levels.svg")
        observations.draw_fluctuations(moves, images / "evidence-fluctuation.svg")
        if terms:
            observations.draw_terms(terms, images / "evidence-terms.svg")
    length = found[parts[0].title][0].length
    lines = [
        "## The paper's observations",
        "Section 1 of the paper rests on three, seen in one training of RetinaNet on COCO. Here they are measured on "
        "the runs with equal weights; in brackets stand 95 % intervals over the seeds. An interval has "
        f"{length} iterations.",
        "### Does the level with the larger map have the larger loss?",
        _answer({title: one.finer for title, one in sizes.items()})
        + " ".join(_of_sizes(title, one) for title, one in sizes.items())
        + ' The paper writes of "the larger-scale feature map level", which we take for the finer one. That the '
        f"coarser one has the larger loss: {_verdicts({title: one.coarser for title, one in sizes.items()})}.",
        "![The loss of each level over the training, and its share of the loss and of the positive samples.]"
        "(images/evidence-levels.svg)",
        "### Do the losses fluctuate?",
        _answer({title: one.verdict for title, one in moves.items()})
        + " ".join(_of_moves(title, one) for title, one in moves.items())
        + " Fluctuation is the standard deviation of an interval's loss relative to that loss, from the differences "
        "between neighbours, so that the fall over the training does not count; the first quarter of it is left out.",
        "![The fluctuation of each level's loss from one interval to the next, and its fall.]"
        "(images/evidence-fluctuation.svg)",
    ]
    if terms:
        lines += [
            "### Does regression fluctuate more than classification?",
            _answer({title: one.verdict for title, one in terms.items()})
            + " ".join(_of_terms(title, one) for title, one in terms.items()),
            "![The fluctuation of each level's classification and regression loss.](images/evidence-terms.svg)",
        ]
    return "\n\n".join(lines)


def _verdicts(found: Mapping[str, str]) -> str:
    """Return ``holds``, or what holds for which model."""
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{title}: {verdict}" for title, verdict in found.items())


def _answer(found: Mapping[str, str]) -> str:
    said = _verdicts(found) + " here" * (len(set(found.values())) == 1)
    return f"**{said[0].upper()}{said[1:]}.** "


def _of_sizes(title: str, found: observations.Sizes) -> str:
    order = sorted(found.loss, key=lambda level: -found.loss[level].mean)
    most, steps = order[0], [step.mean > 0 for step in found.steps.values()]
    text = (
        f"In {title}, {most} has {found.loss[most].text()} of the loss; the finer of two neighbours has the larger "
        f"one in {sum(steps)} of {len(steps)} pairs."
    )
    if found.boxes:
        by_boxes = sorted(found.boxes, key=lambda level: -found.boxes[level].mean)
        same = "in the same order as" if by_boxes == order else "not in the order of"
        low, high = (pick(found.one, key=lambda k: found.one[k].mean) for pick in (min, max))
        text += (
            f" The levels stand {same} their positive samples, of which {most} has {found.boxes[most].text()}; one "
            f"sample's loss is from {found.one[low].text('.2f')} times the mean, on {low}, to "
            f"{found.one[high].text('.2f')} times, on {high}."
        )
    return text


def _of_moves(title: str, found: observations.Fluctuation) -> str:
    levels = {level: value for level, value in found.by_level.items() if level != "all"}
    low, high = (pick(levels, key=lambda k: levels[k].mean) for pick in (min, max))
    return (
        f"In {title} a level's loss fluctuates from one interval to the next by {levels[low].text()} ({low}) to "
        f"{levels[high].text()} ({high}); the sum of all by {found.by_level['all'].text('.1%')}, while it falls by "
        f"{found.fall['all'].text('.1%')}."
    )


def _of_terms(title: str, found: Terms) -> str:
    levels = {level: value for level, value in found.ratio.items() if level != "all"}
    more = [level for level, value in levels.items() if value.mean > 1]
    return (
        f"In {title} regression fluctuates {found.ratio['all'].text('.2f')} times as much as classification, relative "
        f"to their losses and summed over the levels; {found.absolute.text('.2f')} times in absolute terms. Level by "
        f"level it fluctuates more on {len(more)} of {len(levels)}."
    )


def _main_arm(parts: Sequence[Part]) -> str:
    """Return RLO, or else the first arm that is compared to a baseline."""
    grid = parts[0].kept.grid
    return STRATEGY if STRATEGY in grid.arms else next(iter(grid.comparisons)).arm


def _records(parts: Sequence[Part]) -> str:
    """Return what is kept of the runs, and what each file is."""
    lines = [
        "## The records\n",
        "`study.json` has the specs, the plan, the machine, and the intervals over seeds and images as they came out "
        "(they need the runs' predictions); `runs.jsonl` each run's metrics and time; `intervals.jsonl.xz` each "
        "interval's losses, variances, weights and actions, with five digits.\n",
    ]
    for part in parts:
        files = [f"[{name}]({DATA.as_posix()}/{part.kept.name}/{name})" for name in (STUDY, RUNS, INTERVALS)]
        lines.append(f"- {part.title}: {', '.join(files)}")
    machine = parts[0].kept.machine
    if packages := machine.get("packages"):
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        lines += ["", f"Made with Python {machine['python']}, {versions}."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
