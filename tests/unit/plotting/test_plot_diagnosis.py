"""The drawings of a diagnosis: what stands in them, that nothing overlaps, and that the page has them too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crafted_diagnoses import FIVE, make_diagnosis, make_group

from msbal.plotting import describe_panels, draw_diagnosis, draw_figure, draw_files, read_runs, write_page
from msbal.plotting.figure import diagnosis_figure
from msbal.plotting.levels import describe_diagnosis
from msbal.records.diagnosis import Finding, LevelDiagnosis, write_diagnosis

pytest.importorskip("matplotlib", reason="figures need the extra `plots`")

Write = Callable[..., Path]
POSITIVES = (40, 20, 10, 5, 2)
AP = (0.08, 0.35, 0.41, 0.42, None)


@pytest.fixture
def diagnosis() -> LevelDiagnosis:
    start = make_group((10.8, 18.2, 6.1, 6.5, 2.4), positives=POSITIVES, cosines={(0, 3): -0.6})
    last = make_group((1.8, 1.2, 1.1, 1.5, 0), positives=POSITIVES, ap=AP)
    return make_diagnosis(start, last)


@pytest.fixture
def diagnosed(write_run: Write, diagnosis: LevelDiagnosis) -> Path:
    folder = write_run()
    found = Finding("dominates", "all", ("P4",), "P4 <dominates>.")
    write_diagnosis(folder / "diagnosis.json", replace(diagnosis, findings=(found,)))
    return folder


def test_panels_have_what_was_measured(diagnosis: LevelDiagnosis) -> None:
    norms, shares, cosines, (weights, ap) = describe_diagnosis(diagnosis)
    start, last = diagnosis.states[0].groups[0], diagnosis.states[1].groups[0]
    assert [panel.title for panel in norms] == [
        "Gradient norm, at the start",
        "Gradient norm, after 300 iterations",
    ]
    assert norms[0].range == norms[1].range and shares[0].range == shares[1].range
    assert [one.name for one in norms[0].spreads] == ["backbone", "neck", "head", "shared"]
    assert np.array_equal(norms[0].spreads[3].y, [each.mean for each in start.norm["shared"]])
    assert np.isnan(norms[1].spreads[3].y[4])  # a norm of 0 has no place on a log scale
    by_name = {one.name: one.y for one in shares[0].spreads}
    assert by_name["boxes"] == pytest.approx(np.array(diagnosis.boxes["all"]) / sum(diagnosis.boxes["all"]))
    assert by_name["positives"] == pytest.approx(np.array(POSITIVES) / sum(POSITIVES))
    assert by_name["gradient"].tolist() == [each.mean for each in start.share]
    assert all(by_name[name].sum() == pytest.approx(1) for name in by_name)
    assert shares[0].rules == [0.2]
    matrix = cosines[0].matrix
    assert matrix is not None and matrix.values.shape == (4, 4)
    assert matrix.values[2, 0] == start.cosine[3][0].mean  # the row of P6, the column of P3
    assert matrix.bold[2, 0]
    assert np.isnan(matrix.values[0, 1:]).all()
    assert cosines[0].ticks is not None and list(cosines[0].ticks.values()) == list(FIVE[1:])
    assert [one.y.tolist() for one in weights.spreads] == [list(start.equal_norms), list(last.equal_norms)]
    assert ap.spreads[0].y[:4] == pytest.approx([8, 35, 41, 42]) and np.isnan(ap.spreads[0].y[4])
    assert ap.xticks is not None and ap.xticks[0] == "P3\n1,500"


@pytest.mark.parametrize(
    ("style", "levels", "width"), [("paper", 3, 7.0), ("paper", 7, 7.0), ("screen", 5, 15.0)]
)
def test_no_text_of_the_figure_overlaps(style: str, levels: int, width: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    names = [f"P{n + 2}" for n in range(levels)]
    made = make_group(np.geomspace(9, 0.3, levels).tolist(), levels=names, positives=[3] * levels)
    evaluated = replace(made, ap=(0.5,) * levels, recall=(0.9,) * levels, evaluated=(12345,) * levels)
    figure = diagnosis_figure(make_diagnosis(made, evaluated, boxes=[9] * levels), style)
    assert figure.get_size_inches()[0] == pytest.approx(width)
    assert len(figure.axes) == 8
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for ax in figure.axes:
        legend = ax.get_legend()
        texts = [*ax.get_xticklabels(), *ax.texts, ax._left_title, *(legend.get_texts() if legend else ())]
        boxes = [text.get_window_extent(renderer).shrunk(0.95, 0.9) for text in texts if text.get_text()]
        assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
        bars = [patch.get_window_extent(renderer) for patch in ax.patches]
        over = [text.get_window_extent(renderer) for text in (legend.get_texts() if legend else ())]
        assert not any(bar.overlaps(text) for bar in bars for text in over)


def test_a_spec_has_one_moment_and_groups_have_their_own_panels() -> None:
    one = describe_diagnosis(make_diagnosis(make_group((1,) * 5)))
    assert [len(row) for row in one] == [1, 1, 1, 1]
    rpn, roi = make_group((1,) * 5, group="rpn"), make_group((1,) * 4, group="roi")
    both = [panel for row in describe_diagnosis(make_diagnosis((rpn, roi), boxes=None)) for panel in row]
    assert [panel.group for panel in both] == ["rpn"] * 4 + ["roi"] * 4


def test_nothing_measured_is_drawn_as_nothing(tmp_path: Path) -> None:
    dead = make_group((0,) * 5, batches=1)
    draw_diagnosis(make_diagnosis(dead, batches=1, boxes=(0,) * 5), tmp_path / "a.svg")


def test_plot_losses_draws_a_runs_diagnosis(diagnosed: Path, write_run: Write, tmp_path: Path) -> None:
    (run,) = read_runs([diagnosed])
    files = draw_files([run], tmp_path / "plots", what=("diagnosis",), style="paper")
    assert [file.stem for file in files] == [
        "levels-norms-start", "levels-norms-last", "levels-shares-start", "levels-shares-last",
        "levels-cosines-start", "levels-cosines-last", "levels-weights", "levels-ap-last",
    ]  # fmt: skip
    # Beside a run that has none, and among panels over iterations.
    both = read_runs([diagnosed, write_run("other")])
    figure = draw_figure(both, describe_panels(both, ("losses", "diagnosis")))
    figure.draw_without_rendering()
    labels = {ax.get_title(loc="left").partition(") ")[2]: ax.get_xlabel() for ax in figure.axes}
    assert labels["Gradient norm, at the start"] == ""
    assert labels["Regression loss"] == "Iteration"


def test_a_damaged_diagnosis_is_noted_and_passed_over(write_run: Write) -> None:
    folder = write_run()
    (folder / "diagnosis.json").write_text("{")
    (run,) = read_runs([folder])
    assert run.diagnosis is None
    assert len(run.notes) == 1 and "no diagnosis: " in run.notes[0]


def test_the_page_has_the_findings_and_the_panels(diagnosed: Path, write_run: Write, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs the extra `plots`")
    runs = read_runs([diagnosed, write_run("other")])
    page = write_page(runs, tmp_path / "page.html", what=("losses", "diagnosis")).read_text(encoding="utf-8")
    assert "<li>P4 &lt;dominates&gt;.</li>" in page
    assert page.count("nothing recorded by other") == 8
    (content,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    keys = re.findall(r'data-panel="(.*?)"', page)
    figures = dict(zip(keys, json.loads(content)["figures"], strict=True))
    shares = figures["/levels-shares-start"]
    assert [trace["name"] for trace in shares["data"]] == ["boxes", "positives", "loss", "gradient"]
    assert shares["data"][3]["error_y"]["array"][0] > 0
    assert shares["layout"]["meta"]["fixed"] and shares["layout"]["xaxis"]["ticktext"] == list(FIVE)
    heat = figures["/levels-cosines-start"]["data"][0]
    assert heat["z"][1][0] == pytest.approx(-0.57, abs=0.01)  # rows from below: P7, P6, ..
    assert heat["text"][1][0] == "<b>\N{MINUS SIGN}0.57</b>" and heat["text"][3][3] == ""
