"""The live view's lines: what they say, and that they fit."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from msbal.backend import LevelGroup
from msbal.engine.record import IntervalRecord
from msbal.ui.display import RunDisplay
from msbal.ui.levels import level_table
from msbal.ui.look import bar
from msbal.ui.overview import summary
from msbal.ui.state import HISTORY, Ending, GroupState, RunHeader, RunState
from msbal.ui.text import number, signed
from msbal.ui.view import RunView

Make = Callable[..., IntervalRecord]
Shown = Callable[[RenderableType, int, int], str]


@pytest.fixture
def state(header: RunHeader, clock, metrics) -> Callable[..., RunState]:  # type: ignore[no-untyped-def]
    def make(groups: Sequence[LevelGroup], records: Sequence[IntervalRecord]) -> RunState:
        state = RunState(header, clock=clock)
        state.started(0, 2000, groups)
        for record in records:
            clock.now += 10
            state.stepped(
                record.iteration, {"images_per_second": 38.25, "learning_rate": 0.01, "memory_bytes": 2**31}
            )
            state.remaining()
            state.interval(record)
        state.evaluated(400, {**metrics, "AP": 0.2, "AP_S": 0.1})
        state.evaluated(500, metrics)
        state.message("checkpoint written")
        return state

    return make


@pytest.mark.parametrize(
    ("last", "factor", "says"),
    [
        (5, 1, "+1  total loss fell  "), (5, 2, "+1  total loss rose, but less"),
        (6, 1, "−1  total loss fell, but more slowly"), (6, 2, "−1  total loss rose  "),
    ],
)  # fmt: skip
def test_what_earned_the_reward_is_said_also_where_that_is_no_fall(
    shown: Shown, last: int, factor: int, says: str, state, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    """Also for `reward: trend`, which may punish a fall."""
    records = [make_record(t, one_group[0]) for t in (1, last)]
    records[1] = replace(
        records[1], loss=tuple(factor * loss for loss in records[0].loss) if factor > 1 else records[1].loss
    )
    assert says.replace("−", "-") in shown(RunView(state(one_group, records)), 120, 60)


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_numbers_are_those_of_the_record(
    shown: Shown, width: int, state, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 8)]
    text = shown(RunView(state(one_group, records)), width, 60)
    last = records[-1]
    rows = {line[2:].split()[1]: line for line in text.splitlines() if re.match(r"│ ■ P\d ", line)}
    assert list(rows) == list(last.levels), "finest first"
    for i, level in enumerate(last.levels):
        cells = rows[level].split()
        for term in last.loss_by_term:
            assert number(last.loss_by_term[term][i] / last.count) in cells
        assert number(last.loss[i] / last.count) in cells
        assert f"{100 * last.loss[i] / sum(last.loss):.0f} %" in rows[level]
        assert f"{last.variance[i]:.2e}" in cells
        assert signed(last.variance_reduction[i]) in cells
        assert f"{last.weights[i]:.3f}" in cells
        assert ("▼" if last.variance_reduction[i] > 0 else "▲") in rows[level]
    for name, probability in last.probabilities.items():
        row = next(line for line in text.splitlines() if f" {name} " in line and f"{probability:.3f}" in line)
        assert ("▶" in row) == (name == last.action)
    assert f"reward of {records[-2].action} {last.reward:+d}" in text
    assert "AP       23.1  ▲  +3.1" in text
    assert re.search(r"AP_S +-", text), "undefined, not zero"
    assert "VOC mAP  44.4" in text
    assert "38.2 img/s" in text and "lr 0.01" in text and "2.0 GiB" in text
    assert "700/2,000" in text and "35 %" in text
    assert "interval 7: iterations 601 to 700" in text
    assert "checkpoint written" in text or width == 80


def test_eta_follows_the_pace(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(one_group, [make_record(t, one_group[0]) for t in range(1, 11)])
    assert run.remaining() == pytest.approx(1000 / 10)  # 100 iterations in 10 seconds
    assert "ETA 0:01:40" in shown(RunView(run), 120, 50)


@pytest.mark.parametrize("groups", ["one_group", "two_groups"])
@pytest.mark.parametrize(("count", "strategy"), [(0, "rlo"), (1, "rlo"), (9, "rlo"), (9, "avw")])
def test_no_line_is_too_wide_and_no_frame_too_high(
    shown: Shown,
    groups: str,
    strategy: str,
    count: int,
    state,
    make_record: Make,
    request: pytest.FixtureRequest,
) -> None:  # type: ignore[no-untyped-def]
    declared = request.getfixturevalue(groups)
    records = [make_record(t, g, strategy) for t in range(1, count + 1) for g in declared]
    run = state(declared, records)
    for width in (1, 2, 5, 9, 17, 29, 41, 49, 50, 58, 79, 80, 120, 149, 150, 300):
        for height in (1, 9, 10, 17, 23, 40):
            lines = shown(RunView(run), width, height).split("\n")
            assert len(lines) <= height
            assert max(cell_len(line) for line in lines) <= width, (width, height)


def test_columns_go_in_the_documented_order(shown: Shown, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    group = GroupState(one_group[0])
    group.add(measured(make_record(1, one_group[0])))
    order = ["Stride", "Share", "Reduction", "Variance", "Gradient", "bbox", "Trend", "Loss"]
    present = []
    for width in range(140, 14, -1):
        head = shown(level_table(group, width, False), width, 20).split("\n")[0].split()
        assert head[0] == "Level" and "Weight" in head
        present.append([name for name in order if name in head])
    assert present[0] == order
    for wider, narrower in itertools.pairwise(present):
        assert narrower == wider[len(wider) - len(narrower) :], "the first of the order goes first"
    assert present[-1] == []


def measured(record: IntervalRecord) -> IntervalRecord:
    norms = tuple(8.0 / 2**i for i in range(len(record.levels)))
    return replace(record, gradient_norm={"shared": norms, "head": (0.0,) * len(norms)}, gradient_count=1)


def test_the_gradient_that_was_measured_last_stays_under_its_iteration(
    shown: Shown, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    def table(*records: IntervalRecord) -> str:
        group = GroupState(one_group[0])
        for record in records:
            group.add(record)
        return shown(level_table(group, 140, False), 140, 20)

    first, second, third = (make_record(t, one_group[0]) for t in (1, 2, 3))
    assert "Gradient" not in table(first, second), "nothing is measured"
    assert re.search(r" Gradient +Weight", table(measured(first)))
    stale = table(first, measured(second), third)
    assert re.search(r" Gradient @200 +Weight", stale)
    assert "8.000  52 %" in stale and "0.5000   3 %" in stale
    assert re.search(r" Gradient +Weight", table(measured(first), second, measured(third)))


def test_very_small_terminals_get_progress_and_weights(
    shown: Shown, state, two_groups, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    run = state(two_groups, [make_record(1, g) for g in two_groups])
    text = shown(RunView(run), 45, 6)
    assert "100/2,000" in text
    assert "rpn P2 1.65 P3 1.00" in text and "roi P2 1.65" in text


def test_groups_stack_finest_first(shown: Shown, state, two_groups, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(two_groups, [make_record(1, g) for g in two_groups])
    text = shown(RunView(run), 120, 60)
    assert text.index("rpn RPN") < text.index("roi RoIHeads")
    assert "action rpn" in text and "action roi" in text


def test_before_the_first_interval(shown: Shown, state, one_group) -> None:  # type: ignore[no-untyped-def]
    text = shown(RunView(state(one_group, [])), 120, 40)
    assert "first decision after iteration 100" in text and "no decision yet" in text
    assert text.count("1.000") == 5


def test_a_strategy_without_a_choice(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    text = shown(RunView(state(one_group, [make_record(1, one_group[0], "avw")])), 120, 40)
    assert "avw makes no choice" in text
    assert "raised now: P3, P7" in text


def test_trail_marks_the_reward_that_followed(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 5)]
    lines = shown(RunView(state(one_group, records)), 120, 40).splitlines()
    trails = {
        r.action: next(x for x in lines if re.search(rf"[ ▶] {r.action} ", x)).split("│")[1] for r in records
    }
    # t=1 min_loss, rewarded at t=2; t=2 max_loss, punished at t=3; t=3 equal, rewarded; t=4 avw, open.
    assert trails["min_loss"].rstrip().endswith("▲···")
    assert trails["max_loss"].rstrip().endswith("·▼··")
    assert trails["equal"].rstrip().endswith("··▲·")
    assert trails["avw"].rstrip().endswith("···●")


def test_interval_without_a_finite_iteration(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(one_group, [make_record(1, one_group[0]), make_record(2, one_group[0], bad=100)])
    text = shown(RunView(run), 120, 50)
    assert "cls loss of P3 was nan in iteration 200 (rank 0), and 99 more in interval 2" in text
    assert "│ ■ P3        8        -        -        -" in text


def test_groups_that_were_not_declared_replace_those_of_the_same_levels(
    header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    run = RunState(header)
    run.started(0, 1000, one_group)
    base = make_record(1, one_group[0])
    for term in ("cls", "bbox"):
        run.interval(
            IntervalRecord(
                1, 100, base.levels, base.loss_by_term[term], {term: base.loss_by_term[term]}, base.variance,
                base.variance_reduction, base.weights, group=term, count=100,
            )
        )  # fmt: skip
    assert list(run.groups) == ["cls", "bbox"]
    assert run.groups["bbox"].strides == one_group[0].strides


def test_final_view_has_the_summary(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 9)]
    run = state(one_group, records)
    run.close(Ending("stopped"))
    text = shown(RunView(run), 100, 10_000)
    told = {label: text.plain for label, text in summary(run).items()}
    first, last = (sum(r.loss) / r.count for r in (records[0], records[-1]))
    assert told["loss"] == f"{number(first)} -> {number(last)}"
    assert told["trained with"].startswith("P3 1.57  P4 1.00"), "1.0 in the first interval, then 1.65"
    assert told["chosen"].startswith("avw 2  min_loss 2  max_loss 2  equal 2 ")
    assert "stopped after 0:01:20" in text and "ETA" not in text


def test_what_is_decided_as_the_run_ends_was_never_in_force(
    shown: Shown, state, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    last = replace(
        make_record(20, one_group[0]),
        weights=(1.0, 2.345, 1.0, 1.0, 1.0),
        previous_weights=(1.0, 1.0, 1.789, 1.0, 1.0),
    )
    run = state(one_group, [make_record(19, one_group[0]), last])
    text = shown(RunView(run), 120, 50)
    assert "1.789" in text and "2.345" not in text, "the weights that it ended with"
    assert "with these weights" in text and "the last is unused" in text
    assert summary(run)["chosen"].plain.startswith("avw 0  min_loss 0  max_loss 0  equal 1 "), (
        "not that of record 20"
    )


@pytest.mark.parametrize("width", [40, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("height", [5, 12, 60])
def test_an_evaluation_shows_its_own_progress(
    shown: Shown, header: RunHeader, clock, one_group, width: int, height: int
) -> None:  # type: ignore[no-untyped-def]
    run = RunState(header, clock=clock)
    run.started(0, 600, one_group)
    run.stepped(600, {})
    run.progress("evaluating", 0, 64)
    clock.now += 3
    run.progress("evaluating", 12, 64)
    text = shown(RunView(run), width, height)
    assert "evaluating 12/64" in text and "ETA 0:00:13" in text and "ETA 0:00:00" not in text
    run.progress("evaluating", 64, 64)
    run.progress("computing metrics", 0, 1)
    clock.now += 2
    text = shown(RunView(run), width, height)
    assert "computing metrics  0:00:02" in text and "ETA" not in text


def test_the_time_left_counts_evaluations_as_what_they_take(header: RunHeader, clock, one_group) -> None:  # type: ignore[no-untyped-def]
    run = RunState(replace(header, evaluated_after=(100, 200, 300)), clock=clock)
    run.started(0, 300, one_group)
    for i in range(1, 101):
        clock.now += 0.1
        run.stepped(i, {})
        run.remaining()
    assert run.remaining() == pytest.approx(20), "how long an evaluation takes is unknown"
    run.progress("evaluating", 0, 10)
    clock.now += 15
    run.progress("evaluating", 5, 10)
    assert run.remaining() == pytest.approx(20 + 15 + 2 * 30)
    clock.now += 15
    run.progress("evaluating", 10, 10)
    run.evaluated(100, {"AP": 0.1})
    assert run.remaining() == pytest.approx(20 + 2 * 30), "and the training is no slower for it"


def test_losses_so_far_come_before_the_first_interval_ends(
    shown: Shown, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    run = RunState(header)
    run.started(0, 600, one_group)
    losses = make_record(1, one_group[0])
    run.interval_so_far(
        replace(losses, iteration=7, variance=(math.nan,) * 5, variance_reduction=(math.nan,) * 5)
    )
    text = shown(RunView(run), 80, 40)
    assert number(losses.loss[0] / 100) in text and "iterations 1 to 7 so far" in text and " nan" not in text
    run.interval(make_record(2, one_group[0]))
    assert "so far" not in shown(RunView(run), 80, 40)


def test_a_level_without_boxes_is_marked(shown: Shown, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    record = make_record(1, one_group[0])
    text = shown(RunView(state(one_group, [replace(record, positives=(9.0, 9.0, 9.0, 9.0, 0.0))])), 80, 40)
    assert "□ P7" in text and "■ P6" in text and "□ no boxes in these iterations" in text
    text = shown(RunView(state(one_group, [record])), 80, 40)
    assert "□" not in text, "positives are unknown"


def test_epochs_are_said_where_the_spec_counts_them(shown: Shown, header: RunHeader, one_group) -> None:  # type: ignore[no-untyped-def]
    run = RunState(replace(header, epochs=12))
    run.started(0, 600, one_group)
    for iteration, epoch in ((0, "1/12"), (50, "1/12"), (51, "2/12"), (600, "12/12")):
        run.stepped(iteration, {})
        assert f"epoch {epoch}" in shown(RunView(run), 80, 40)


def test_history_continues_the_trends_of_a_resumed_run(
    shown: Shown, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    before = [make_record(t, one_group[0]) for t in range(1, 6)]
    run = RunState(header, before)
    run.started(500, 2000, one_group)
    assert [r.interval for r in run.groups["all"].records] == [1, 2, 3, 4, 5]
    assert "■ P3" in shown(RunView(run), 80, 30) and run.iteration == 500


def test_what_is_kept_is_bounded(header: RunHeader, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = RunState(header)
    run.started(0, 10**6, one_group)
    for t in range(1, 2 * HISTORY):
        run.interval(make_record(t, one_group[0]))
        run.message("m")
    assert len(run.groups["all"].records) == HISTORY
    assert len(run.messages) <= 50
    assert run.groups["all"].intervals == 2 * HISTORY - 1, "sums run over all"


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "gr??e"), ("latin-1", "grüße")])
def test_terminals_without_unicode_get_look_alikes(
    encoding: str, name: str, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=100, height=50, force_terminal=True, color_system=None)
    run = RunDisplay(console, header, live=True)
    run.started(0, 1000, one_group)
    run.interval(make_record(1, one_group[0]))
    run.message("grüße … from the data")
    run.close()
    file.flush()
    printed = file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "* P3" in printed and name in printed and "+- msbal train --" in printed


def test_bars_can_be_read_without_colours() -> None:
    assert bar(0.5, 4, "cyan").plain == "━━──"
    assert bar(0.375, 4, "cyan").plain == "━╾──"
    assert bar(2.0, 4, "cyan").plain == "━━━━"
    assert bar(float("nan"), 4, "cyan").plain == "────"
