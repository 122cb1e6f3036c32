"""The live view's lines: what they say, and that they fit."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence

import pytest
from rich.console import Console

from msbal.backend import LevelGroup
from msbal.engine.record import IntervalRecord
from msbal.ui.levels import level_lines
from msbal.ui.look import Look
from msbal.ui.screen import Lines
from msbal.ui.state import HISTORY, Ending, GroupState, RunHeader, RunState
from msbal.ui.text import figure, scientific, signed
from msbal.ui.view import final_frame, frame

Make = Callable[..., IntervalRecord]
LOOK = Look()


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
            state.pace.add(clock(), state.iteration)
            state.interval(record)
        state.evaluated(400, {**metrics, "AP": 0.2, "AP_S": 0.1})
        state.evaluated(500, metrics)
        state.message("checkpoint written")
        return state

    return make


def text_of(lines) -> str:  # type: ignore[no-untyped-def]
    return "\n".join(line.plain for line in lines)


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_numbers_are_those_of_the_record(width: int, state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 8)]
    text = text_of(frame(state(one_group, records), width, 60, LOOK))
    last = records[-1]
    rows = {line[2:].split()[1]: line for line in text.splitlines() if re.match(r"│ ■ P\d ", line)}
    assert list(rows) == list(last.levels), "finest first"
    for i, level in enumerate(last.levels):
        cells = rows[level].split()
        for term in last.loss_by_term:
            assert figure(last.loss_by_term[term][i] / last.count) in cells
        assert figure(last.loss[i] / last.count) in cells
        assert f"{100 * last.loss[i] / sum(last.loss):.0f} %" in rows[level]
        assert scientific(last.variance[i]) in cells
        assert signed(last.variance_reduction[i]) in cells
        assert f"{last.weights[i]:.3f}" in cells
        assert ("▼" if last.variance_reduction[i] > 0 else "▲") in rows[level]
    for name, probability in last.probabilities.items():
        row = next(line for line in text.splitlines() if f" {name} " in line and f"{probability:.3f}" in line)
        assert ("▶" in row) == (name == last.action)
    assert f"reward of {records[-2].action} {last.reward:+d}" in text
    assert "AP      0.231  ▲ +0.031" in text
    assert re.search(r"AP_S +-", text), "undefined, not zero"
    assert "VOC mAP 0.444" in text
    assert "38.2 img/s" in text and "lr 0.01" in text and "2.0 GiB" in text
    assert "700/2,000" in text and "35 %" in text
    assert "interval 7: iterations 601 to 700" in text
    assert "checkpoint written" in text or width == 80


def test_eta_follows_the_pace(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(one_group, [make_record(t, one_group[0]) for t in range(1, 11)])
    assert run.remaining() == pytest.approx(1000 / 10)  # 100 iterations in 10 seconds
    assert "ETA 0:01:40" in text_of(frame(run, 120, 50, LOOK))


@pytest.mark.parametrize("groups", ["one_group", "two_groups"])
@pytest.mark.parametrize("strategy", ["rlo", "avw"])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_no_line_is_too_wide_and_no_frame_too_high(
    groups: str, strategy: str, count: int, state, make_record: Make, request: pytest.FixtureRequest
) -> None:  # type: ignore[no-untyped-def]
    declared = request.getfixturevalue(groups)
    records = [make_record(t, g, strategy) for t in range(1, count + 1) for g in declared]
    run = state(declared, records)
    for width in [*range(1, 60, 4), 79, 80, 81, 100, 119, 120, 149, 150, 200, 300]:
        for height in (1, 2, 5, 9, 10, 14, 18, 23, 30, 39, 50):
            lines = frame(run, width, height, LOOK)
            assert len(lines) <= height
            assert max(line.cell_len for line in lines) <= width, (width, height)
            assert not any("\n" in line.plain for line in lines)


def test_what_is_printed_is_not_wrapped(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(one_group, [make_record(1, one_group[0])])
    for width in (24, 60, 80, 133):
        console = Console(
            record=True, width=width, file=io.StringIO(), force_terminal=True, color_system=None
        )
        lines = frame(run, width, 23, LOOK)
        console.print(Lines(lines, LOOK))
        printed = console.export_text().splitlines()
        assert len(printed) == len(lines)
        assert all(len(line) <= width for line in printed)


def test_columns_go_in_the_documented_order(one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    group = GroupState("all", one_group[0].levels, one_group[0].strides, one_group[0].terms)
    group.add(make_record(1, one_group[0]))
    order = ["Stride", "Share", "Reduction", "Variance", "bbox", "Trend", "Loss"]
    present = []
    for width in range(140, 14, -1):
        head = level_lines(group, width, LOOK, False)[0].plain.split()
        assert head[0] == "Level" and "Weight" in head
        present.append([name for name in order if name in head])
    assert present[0] == order
    for wider, narrower in itertools.pairwise(present):
        assert narrower == wider[len(wider) - len(narrower) :], "the first of the order goes first"
    assert present[-1] == []


def test_very_small_terminals_get_progress_and_weights(state, two_groups, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(two_groups, [make_record(1, g) for g in two_groups])
    text = text_of(frame(run, 45, 6, LOOK))
    assert "100/2,000" in text
    assert "rpn P2 1.65 P3 1.00" in text and "roi P2 1.65" in text


def test_groups_stack_finest_first(state, two_groups, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(two_groups, [make_record(1, g) for g in two_groups])
    text = text_of(frame(run, 120, 60, LOOK))
    assert text.index("rpn RPN") < text.index("roi RoIHeads")
    assert "action rpn" in text and "action roi" in text


def test_before_the_first_interval(state, one_group) -> None:  # type: ignore[no-untyped-def]
    text = text_of(frame(state(one_group, []), 120, 40, LOOK))
    assert "first decision after iteration 100" in text and "no decision yet" in text
    assert text.count("1.000") == 5


def test_a_strategy_without_a_choice(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    text = text_of(frame(state(one_group, [make_record(1, one_group[0], "avw")]), 120, 40, LOOK))
    assert "avw makes no choice" in text
    assert "raised now: P3, P7" in text


def test_trail_marks_the_reward_that_followed(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 5)]
    lines = text_of(frame(state(one_group, records), 120, 40, LOOK)).splitlines()
    trails = {
        r.action: next(x for x in lines if re.search(rf"[ ▶] {r.action} ", x)).split("│")[1] for r in records
    }
    # t=1 min_loss, rewarded at t=2; t=2 max_loss, punished at t=3; t=3 equal, rewarded; t=4 avw, open.
    assert trails["min_loss"].rstrip().endswith("▲···")
    assert trails["max_loss"].rstrip().endswith("·▼··")
    assert trails["equal"].rstrip().endswith("··▲·")
    assert trails["avw"].rstrip().endswith("···●")


def test_interval_without_a_finite_iteration(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = state(one_group, [make_record(1, one_group[0]), make_record(2, one_group[0], bad=100)])
    text = text_of(frame(run, 120, 50, LOOK))
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


def test_final_view_has_the_summary(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    records = [make_record(t, one_group[0]) for t in range(1, 9)]
    run = state(one_group, records)
    run.close(Ending("stopped"))
    text = text_of(final_frame(run, 100, LOOK))
    first, last = (sum(r.loss) / r.count for r in (records[0], records[-1]))
    assert f"loss {first:.4g} -> {last:.4g}" in text
    assert "mean weights P3 1.65  P4 1.00" in text
    assert "chosen avw 2  min_loss 2  max_loss 2  equal 2" in text
    assert "stopped after 0:01:20" in text and "ETA" not in text
    assert "best AP 0.231 at 500" in text


def test_history_continues_the_trends_of_a_resumed_run(
    header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    before = [make_record(t, one_group[0]) for t in range(1, 6)]
    run = RunState(header, before)
    run.started(500, 2000, one_group)
    assert [r.interval for r in run.groups["all"].records] == [1, 2, 3, 4, 5]
    assert "■ P3" in text_of(frame(run, 80, 30, LOOK)) and run.iteration == 500


def test_what_is_kept_is_bounded(header: RunHeader, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    run = RunState(header)
    run.started(0, 10**6, one_group)
    for t in range(1, 2 * HISTORY):
        run.interval(make_record(t, one_group[0]))
        run.message("m")
    assert len(run.groups["all"].records) == HISTORY
    assert len(run.messages) <= 50
    assert run.groups["all"].intervals == 2 * HISTORY - 1, "sums run over all"


def test_ascii_terminals_get_ascii(state, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    look = Look.of(console)
    assert look.ascii
    run = state(one_group, [make_record(t, one_group[0]) for t in range(1, 5)])
    run.message("grüße … from the data")
    console.print(Lines(frame(run, 100, 40, look), look))
    file.flush()
    file.buffer.seek(0)  # type: ignore[attr-defined]
    printed = file.buffer.read().decode("ascii")  # type: ignore[attr-defined]
    assert "* P3" in printed and "gr??e" in printed


def test_without_colours_bars_can_still_be_read() -> None:
    plain = Look.of(Console(file=io.StringIO(), color_system=None))
    assert plain.bar(0.5, 4, "cyan").plain == "━━  "
    assert plain.bar(0.375, 4, "cyan").plain == "━╸  "
    assert Look().bar(2.0, 4, "cyan").plain == "━━━━"
    assert plain.bar(float("nan"), 4, "cyan").plain == "    "
