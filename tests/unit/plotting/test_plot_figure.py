"""What stands in the axes: the records' values, in the right colours, at the right places."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import FIVE, lines, simulate

from msbal.errors import SpecError
from msbal.plotting import WHAT, RunSeries, describe_panels, draw_figure, draw_files, read_runs, save_figure
from msbal.plotting.style import DASHES, PALETTES
from msbal.records import NonFinite

pytest.importorskip("matplotlib", reason="figures need the extra `plots`")

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

Write = Callable[..., Path]


@pytest.fixture
def run(write_run: Write) -> RunSeries:
    return read_runs([write_run(intervals=40)])[0]


def figure_of(runs: list[RunSeries], *what: str, palette: str = "paper", **options: object) -> Figure:
    return draw_figure(runs, describe_panels(runs, what or WHAT, palette), **options)  # type: ignore[arg-type]


def axes_titled(figure: Figure, title: str) -> list[Axes]:
    return [ax for ax in figure.axes if title in ax.get_title(loc="left")]


def curves_of(ax: Axes) -> dict[str, np.ndarray]:
    return {to_hex(line.get_color()): np.asarray(line.get_ydata()) for line in ax.get_lines()}


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize(("term", "title"), [("cls", "Classification"), ("bbox", "Regression")])
def test_fig_1(run: RunSeries, palette: str, term: str, title: str) -> None:
    figure = figure_of([run], "losses", palette=palette)
    (ax,) = axes_titled(figure, title)
    curves = curves_of(ax)
    assert len(curves) == 5
    group = run.groups[0]
    for place in range(5):
        line = curves[PALETTES[palette][place]]  # the finest level has the first colour
        assert np.allclose(line, group.loss_by_term[term][:, place] / 10)
    assert ax.get_ylabel() == "Mean loss per iteration"
    assert ax.get_ylim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(FIVE)


def test_all_panels_of_one_run(run: RunSeries) -> None:
    titles = [ax.get_title(loc="left") for ax in figure_of([run]).axes]
    for n, word in enumerate(
        ["Total loss", "Classification", "Regression", "weights", "probabilities", "Rewards", "Variance", "reduction",
         "Share of the loss", "weighted"]
    ):  # fmt: skip
        assert word in titles[n]
        assert titles[n].startswith(f"({'abcdefghij'[n]})")


@pytest.mark.parametrize(
    ("number", "style"), [(2, "paper"), (3, "screen"), (6, "paper"), (10, "screen"), (10, "paper")]
)
def test_any_number_of_levels_and_terms(write_run: Write, number: int, style: str) -> None:
    levels, terms = [f"L{n}" for n in range(number)], [f"term{n}" for n in range(number % 4)]
    runs = read_runs([write_run(levels=levels, terms=terms or ["one"])])
    figure = figure_of(runs, style=style)
    figure.draw_without_rendering()
    losses = [ax for ax in figure.axes if ax.get_ylabel() == "Mean loss per iteration"][1:]  # the total first
    assert [len(ax.get_lines()) for ax in losses] == [number] * max(1, len(terms))


def test_records_without_terms_show_the_whole_loss(write_run: Write) -> None:
    made = [dataclasses.replace(record, loss_by_term={}) for record in simulate()]
    (run,) = read_runs([write_run(text=lines(made))])
    (ax,) = figure_of([run], "losses").axes
    assert np.allclose(curves_of(ax)[PALETTES["paper"][0]], [record.loss[0] / 10 for record in made])


def test_weights_are_steps_over_the_iterations_in_which_they_are_in_force(write_run: Write) -> None:
    made = simulate(intervals=30)
    (run,) = read_runs([write_run(text=lines(made))])
    ax, *_ = figure_of([run], "weights").axes
    held = np.array([record.previous_weights for record in made])
    low, high = 1.0, np.ceil(held.max() * 20) / 20
    for place, color in enumerate(PALETTES["paper"][:5]):
        line = next(line for line in ax.get_lines() if to_hex(line.get_color()) == color)
        x, y = (
            np.asarray(line.get_xdata())[1:],
            np.asarray(line.get_ydata())[1:],
        )  # the first corner is doubled
        weights = (y - (4 - place)) / 0.78 * (high - low) + low
        # Two corners an interval: 1 in the first; what is decided at the end of the last is not drawn.
        assert x.tolist() == [end for t in range(30) for end in (10 * t, 10 * t + 10)]
        assert weights == pytest.approx(np.repeat([1, *(record.weights[place] for record in made[:-1])], 2))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(FIVE)


def test_equal_weights_are_flat_lines(write_run: Write) -> None:
    (run,) = read_runs([write_run(strategy="equal")])
    ax, *_ = figure_of([run], "weights").axes
    for color in PALETTES["paper"][:5]:
        (line,) = [line for line in ax.get_lines() if to_hex(line.get_color()) == color]
        assert np.ptp(line.get_ydata()) < 1e-9


def bars_of(ax: Axes) -> list[dict[float, float]]:
    """Where each bar starts, and where it ends; a dictionary for each colour and row."""
    found = [[path.vertices[:, 0] for path in part.get_paths()] for part in ax.collections]
    return [{min(x): max(x) for x in bars} for bars in found]


def test_probabilities_and_actions_are_steps_over_the_interval_after_the_decision(run: RunSeries) -> None:
    (ax,) = figure_of([run], "probabilities").axes
    group = run.groups[0]
    steps = [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in ax.get_lines()]
    for place in range(4):
        expected = np.repeat(group.probabilities[:-1, place], 2)  # two corners an interval, none in the first
        assert any(np.array_equal(y[-78:], expected) for _, y in steps)
    assert all(x[np.isfinite(y)][0] == 10 for x, y in steps if len(x) > 2)
    bars = bars_of(ax)
    starts = sorted(start for row in bars for start in row)
    assert starts == group.iteration[:-1].tolist()  # one bar an interval but the first, no more and no less
    for place, action in enumerate(group.actions):
        dark, light = bars[2 * place : 2 * place + 2]
        rewarded = {
            10 * t: 10 * t + 10 for t in range(1, 40) if group.action[t - 1] == action and group.reward[t] > 0
        }
        assert dark == rewarded
        assert ax.collections[2 * place].get_alpha() > ax.collections[2 * place + 1].get_alpha()
        assert not dark.keys() & light.keys()
    assert [label.get_text() for label in ax.get_yticklabels()][-4:] == list(group.actions)
    assert ax.get_ylabel() == "Probability"


def test_rewards_and_their_mean(run: RunSeries) -> None:
    (ax,) = figure_of([run], "rewards", smooth=40).axes
    group = run.groups[0]
    up, down = bars_of(ax)
    assert list(up.values()) == group.iteration[group.reward > 0].tolist()
    assert list(down.values()) == group.iteration[group.reward < 0].tolist()
    mean = next(np.asarray(line.get_ydata()) for line in ax.get_lines() if len(line.get_xdata()) == 40)
    assert mean[19] == pytest.approx(group.reward.mean())


def test_total_loss_ap_in_points_and_learning_rate(write_run: Write) -> None:
    (run,) = read_runs([write_run(aps={40: 0.1, 120: 0.412}, learning_rate=0.01)])
    figure = figure_of([run], "total", "ap", "lr")
    total, ap, rate = figure.axes
    ends = {text.get_text(): text for ax in figure.axes for text in ax.texts}
    (line,) = total.get_lines()
    assert np.asarray(line.get_ydata()) == pytest.approx(run.groups[0].loss.sum(axis=1) / 10)
    assert [np.asarray(line.get_ydata()).tolist() for line in ap.get_lines()] == [
        pytest.approx([10, 41.2]),
        pytest.approx([20, 82.4]),
    ]
    assert np.asarray(ap.get_lines()[0].get_xdata()).tolist() == [40, 120]
    assert {"AP", "AP50"} <= ends.keys()
    assert set(np.asarray(rate.get_lines()[0].get_ydata())) == {0.01}
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "Mean loss per iteration",
        "AP (points)",
        "Learning rate",
    ]
    assert all(ax.get_xlim()[0] == 0 < 120 < ax.get_xlim()[1] for ax in figure.axes)


def test_what_was_not_recorded_has_no_panel(run: RunSeries) -> None:
    (ax,) = figure_of([run], "total", "ap", "lr").axes
    assert "Total loss" in ax.get_title(loc="left")


def test_a_level_without_boxes_is_called_so(write_run: Write) -> None:
    (run,) = read_runs([write_run(positives=(9, 8, 7, 6, 0))])
    figure = figure_of([run], "losses", "weights")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*FIVE[:4], "P7 (no boxes)"]
    (weights,) = axes_titled(figure, "weights")
    assert [label.get_text() for label in weights.get_yticklabels()] == [*FIVE[:4], "P7\n(no boxes)"]


def test_levels_are_told_apart_without_colours(run: RunSeries) -> None:
    figure = figure_of([run], "losses")
    for ax in figure.axes:
        assert len({line.get_marker() for line in ax.get_lines()}) == 5
        # Each line has its level's name at its end, in the lines' order from the top.
        ends = {text.get_text(): text.xy[1] for text in ax.texts}
        last = {level: float(line.get_ydata()[-1]) for level, line in zip(FIVE, ax.get_lines(), strict=True)}
        assert sorted(ends, key=ends.__getitem__) == sorted(last, key=last.__getitem__)


def test_variance_is_on_a_log_scale(run: RunSeries) -> None:
    ax = axes_titled(figure_of([run], "variance"), "Variance")[0]
    assert ax.get_yscale() == "log"
    assert np.array_equal(curves_of(ax)[PALETTES["paper"][4]], run.groups[0].variance[:, 4])


def test_a_level_that_never_varied_does_not_break_the_log_scale(write_run: Write) -> None:
    made = [
        dataclasses.replace(record, variance=(0.0, *record.variance[1:]), loss=(0.0, *record.loss[1:]))
        for record in simulate()
    ]
    runs = read_runs([write_run(text=lines(made))])
    figure_of(runs).draw_without_rendering()
    dead = read_runs(
        [write_run("dead", text=lines([dataclasses.replace(r, variance=(0.0,) * 5) for r in made]))]
    )
    figure_of(dead, "variance").draw_without_rendering()


def test_shares_stack_to_the_whole(run: RunSeries) -> None:
    figure = figure_of([run], "share")
    for ax, weighted in zip(figure.axes, (False, True), strict=True):
        areas = [part for part in ax.collections if isinstance(part, PolyCollection)]
        stacked = np.cumsum(run.groups[0].share(weighted=weighted), axis=1)
        for place, area in enumerate(areas):
            corners = area.get_paths()[0].vertices[:, 1]
            assert corners.max() == pytest.approx(stacked[:, place].max())
            assert set(np.round(stacked[:, place], 9)) <= set(np.round(corners, 9))


def test_the_weighted_share_is_not_drawn_twice_for_equal_weights(write_run: Write) -> None:
    (run,) = read_runs([write_run(strategy="equal")])
    assert len(figure_of([run], "share").axes) == 1


def test_gradients_are_drawn_where_they_were_measured(write_run: Write) -> None:
    (run,) = read_runs([write_run(intervals=12, measure=4)])
    made = simulate(intervals=12, measure=4)
    rows = [record for record in made if record.gradient_count]
    panels = {row.panels[0].key: row.panels[0] for row in describe_panels([run], ["gradients"])}
    assert list(panels) == ["gradient-shared", "gradient-backbone", "gradient-share", "gradient-cosine"]
    for part in ("shared", "backbone"):
        panel = panels[f"gradient-{part}"]
        assert panel.log
        for i, level in enumerate(FIVE):
            curves = [c for c in panel.curves if c.level == level and not c.if_smoothed]
            norms = [record.gradient_norm[part][i] or np.nan for record in rows]
            assert np.array_equal(curves[0].x, [10, 50, 90]), "one line through all that was measured"
            assert np.array_equal(curves[0].y, norms, equal_nan=True)
    for area, i in zip(panels["gradient-share"].curves, range(5), strict=True):
        parts = [
            record.previous_weights[i] * record.gradient_norm["shared"][i]
            / sum(w * n for w, n in zip(record.previous_weights, record.gradient_norm["shared"], strict=True))
            for record in rows
        ]  # fmt: skip
        assert np.array_equal(area.x, [0, 10, 50, 90])
        assert np.allclose(area.y, [parts[0], *parts])
    for curve in panels["gradient-cosine"].curves:
        i = FIVE.index(curve.level)
        smallest = [
            min(record.gradient_cosine[i][j] for j in range(4) if j != i) if i < 4 else np.nan
            for record in rows
        ]
        assert np.array_equal(curve.y, smallest, equal_nan=True), "a level without a gradient is in no pair"
    figure_of([run], "gradients").draw_without_rendering()


def test_gradients_of_several_runs_and_of_a_gap(write_run: Write) -> None:
    whole = simulate(intervals=9, measure=1)
    runs = read_runs(
        [write_run("old", intervals=9), write_run("gap", text=lines([*whole[:3], *whole[6:]])),
         write_run("measured", intervals=9, measure=2, seed=1)]
    )  # fmt: skip
    norm = describe_panels(runs, ["gradients"])[0]
    assert [bool(panel) for panel in norm.alone] == [False, True, True]
    assert norm.together is not None and norm.together.runs == (1, 2)
    (of_gap,) = [c for c in norm.together.curves if c.level == "P3" and c.run == 1 and not c.if_smoothed]
    assert np.isnan(of_gap.y).any(), "it breaks where records are missing"
    figure_of(runs, "gradients", overlay=True).draw_without_rendering()
    assert not any("radient" in ax.get_title(loc="left") for ax in figure_of([runs[0]]).axes)


def test_smoothing_keeps_the_values_behind_the_average(run: RunSeries) -> None:
    ax = figure_of([run], "losses", smooth=7).axes[0]
    finest = [line for line in ax.get_lines() if to_hex(line.get_color()) == PALETTES["paper"][0]]
    raw, mean = (np.asarray(line.get_ydata()) for line in finest)
    assert finest[0].get_alpha() < finest[1].get_alpha()
    assert mean[20] == pytest.approx(raw[17:24].mean())


def test_runs_side_by_side_share_their_scale_and_have_a_column_each(write_run: Write) -> None:
    runs = read_runs([write_run("one", seed=1), write_run("two", seed=2, strategy="equal")])
    figure = figure_of(runs, "losses", "weights", "probabilities")
    left, right = axes_titled(figure, "Classification")
    assert left.get_ylim() == right.get_ylim()
    assert left.get_title(loc="left").startswith("one\n")
    assert right.get_title(loc="left").startswith("two\n")
    assert any("nothing recorded" in text.get_text() for ax in figure.axes for text in ax.texts)
    # The lanes of the weights too: equal weights beside RLO's are to the same scale.
    scales = [[t.get_text() for t in child.get_yticklabels()] for ax in axes_titled(figure, "weights")
              for child in ax.child_axes]  # fmt: skip
    assert scales[0] == scales[1]


def test_overlaid_runs_differ_by_their_line_style(write_run: Write) -> None:
    runs = read_runs([write_run("one", seed=1), write_run("two", seed=2, strategy="equal")])
    figure = figure_of(runs, overlay=True)
    (ax,) = axes_titled(figure, "Classification")
    finest = [line for line in ax.get_lines() if to_hex(line.get_color()) == PALETTES["paper"][0]]
    assert [np.asarray(line.get_ydata())[0] for line in finest] == [
        run.groups[0].mean_loss("cls")[0, 0] for run in runs
    ]
    assert finest[0].get_linestyle() != finest[1].get_linestyle()
    assert [text.get_text() for text in figure.legends[1].get_texts()] == ["one", "two"]
    # Weights are on one scale, those of both runs in each lane.
    (lanes,) = axes_titled(figure, "weights")
    finest = [line for line in lanes.get_lines() if to_hex(line.get_color()) == PALETTES["paper"][0]]
    assert [np.ptp(line.get_ydata()) > 0.1 for line in finest] == [True, False]
    # What cannot be overlaid stands once for each run that has it.
    assert len(axes_titled(figure, "Share of the loss")) == 2
    assert len(axes_titled(figure, "probabilities")) == 1


def test_no_more_runs_are_overlaid_than_can_be_told_apart(write_run: Write) -> None:
    runs = read_runs([write_run(f"run{n}", intervals=3) for n in range(len(DASHES) + 1)])
    figure_of(runs[:-1], "total", overlay=True)
    with pytest.raises(SpecError, match=r"--overlay: found 5 runs; expected at most 4, .*--side-by-side"):
        figure_of(runs, "total", overlay=True)


def test_runs_with_other_levels_keep_one_colour_a_level(write_run: Write) -> None:
    runs = read_runs([write_run("a"), write_run("b", levels=("P2", "P3", "P4", "P5", "P6"))])
    figure = figure_of(runs, "losses")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["P2", *FIVE]
    left, right = axes_titled(figure, "Classification")
    p3 = PALETTES["paper"][1]
    assert np.array_equal(curves_of(left)[p3], runs[0].groups[0].mean_loss("cls")[:, 0])
    assert np.array_equal(curves_of(right)[p3], runs[1].groups[0].mean_loss("cls")[:, 1])


def test_groups_have_their_own_panels(write_run: Write) -> None:
    text = lines(simulate(group="rpn", terms=("objectness", "bbox"))) + lines(simulate(group="roi"))
    (run,) = read_runs([write_run(text=text)])
    titles = [ax.get_title(loc="left") for ax in figure_of([run], "losses").axes]
    assert [title[4:] for title in titles] == [
        "rpn · Objectness loss", "rpn · Regression loss", "roi · Classification loss", "roi · Regression loss",
    ]  # fmt: skip


def test_curves_break_where_records_are_missing(write_run: Write) -> None:
    made = [record for record in simulate(intervals=12) if record.interval not in (5, 6, 7)]
    (run,) = read_runs([write_run(text=lines(made))])
    figure = figure_of([run])
    ax = axes_titled(figure, "Classification")[0]
    line = ax.get_lines()[0]
    inside = (np.asarray(line.get_xdata()) > 40) & (np.asarray(line.get_xdata()) < 80)
    assert inside.any()
    assert np.isnan(np.asarray(line.get_ydata())[inside]).all()


def test_steps_are_whole_beside_a_gap(write_run: Write) -> None:
    made = [record for record in simulate(intervals=12) if record.interval not in (5, 6, 7)]
    (run,) = read_runs([write_run(text=lines(made))])
    ax, *_ = figure_of([run], "weights").axes
    line = next(line for line in ax.get_lines() if to_hex(line.get_color()) == PALETTES["paper"][0])
    known = np.isfinite(np.asarray(line.get_ydata()))
    drawn = set(np.asarray(line.get_xdata())[known].tolist())
    assert drawn == {0, 10, 20, 30, 40, 70, 80, 90, 100, 110, 120}


def test_a_loss_that_was_not_finite_is_marked_in_its_term(write_run: Write) -> None:
    made = simulate()
    made[4] = dataclasses.replace(made[4], count=9, nonfinite=(NonFinite(47, "bbox", "P4", 0, "nan"),))
    (run,) = read_runs([write_run(text=lines(made))])
    cls, bbox = figure_of([run], "losses").axes
    assert not [part for part in cls.collections if isinstance(part, PathCollection)]
    (mark,) = [part for part in bbox.collections if isinstance(part, PathCollection)]
    assert mark.get_offsets().tolist() == [[47, 1]]
    assert to_hex(mark.get_edgecolor()[0]) == PALETTES["paper"][1]


def test_one_interval_is_enough(write_run: Write) -> None:
    runs = read_runs([write_run(intervals=1)])
    figure = figure_of(runs)
    figure.draw_without_rendering()
    assert all(
        line.get_marker() in {"o", "s", "^", "D", "v"}
        for line in axes_titled(figure, "Classification")[0].get_lines()
    )


def test_nothing_to_show_says_what_and_why(write_run: Write) -> None:
    runs = read_runs([write_run(strategy="avw")])
    with pytest.raises(SpecError, match=r"found nothing of rewards .*strategies that choose"):
        describe_panels(runs, ["rewards"])


# ---------------------------------------------------------------- files


def points(pdf: bytes) -> tuple[float, float]:
    _, _, width, height = map(float, re.search(rb"/MediaBox \[(.*?)\]", pdf)[1].split())  # type: ignore[index]
    return width / 72, height / 72


def test_paper_style_fits_a_two_column_paper(run: RunSeries, tmp_path: Path) -> None:
    draw_files([run], tmp_path / "fig1.pdf", what=["losses"], style="paper")
    draw_files([run], tmp_path / "all.pdf", what=WHAT, style="paper")
    column, full = (tmp_path / "fig1.pdf").read_bytes(), (tmp_path / "all.pdf").read_bytes()
    assert points(column)[0] == pytest.approx(3.3)
    assert points(full)[0] == pytest.approx(7)
    for pdf in (column, full):
        assert b"/Type3" not in pdf
        assert b"/FontFile2" in pdf  # TrueType, embedded
    figure = figure_of([run], "losses", style="paper")
    assert figure.axes[0].title.get_fontsize() == 8
    assert figure.axes[0].yaxis.label.get_fontsize() == 8


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats_are_what_they_say_and_the_same_each_time(
    run: RunSeries, tmp_path: Path, form: str, magic: bytes
) -> None:
    first, second = (
        draw_files([run], tmp_path / f"{n}.{form}", what=["losses", "probabilities"])[0].read_bytes()
        for n in (1, 2)
    )
    assert first.startswith(magic)
    assert first == second


def test_svg_needs_no_font_of_the_reader(run: RunSeries, tmp_path: Path) -> None:
    (file,) = draw_files([run], tmp_path / "a.svg", what=["losses"], style="paper")
    assert "<text" not in file.read_text()


def test_a_folder_gets_a_file_a_panel(run: RunSeries, tmp_path: Path) -> None:
    files = draw_files([run], tmp_path / "new" / "plots", what=WHAT, form="svg")
    assert [file.name for file in files] == [
        "total.svg", "loss-cls.svg", "loss-bbox.svg", "weights.svg", "probabilities.svg", "rewards.svg", "variance.svg",
        "variance-reduction.svg", "share.svg", "share-weighted.svg",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "new" / "plots").iterdir()) == sorted(
        f.name for f in files
    )


def test_names_of_groups_and_terms_cannot_leave_the_folder(write_run: Write, tmp_path: Path) -> None:
    text = lines(simulate(group="../../x", terms=("a/b", "..")) + simulate(group="y"))
    (run,) = read_runs([write_run(text=text)])
    out = tmp_path / "deep" / "plots"
    files = draw_files([run], out, what=["losses"])
    assert len({*files}) == 4
    assert all(file.resolve().parent == out.resolve() and file.exists() for file in files)


def test_a_failed_write_leaves_nothing_behind(run: RunSeries, tmp_path: Path) -> None:
    figure = figure_of([run], "losses")
    figure.savefig = lambda *_, **__: (_ for _ in ()).throw(OSError("full"))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="full"):
        save_figure(figure, tmp_path / "a.png", "screen")
    assert list(tmp_path.glob("*.png*")) == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_unknown_ending_is_refused(run: RunSeries, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"one of png, svg, pdf"):
        save_figure(figure_of([run], "losses"), tmp_path / "a.jpg", "screen")
