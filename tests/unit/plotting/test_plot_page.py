"""What stands in the page's file; what a browser makes of it is in tests/e2e."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_runs import FIVE, lines, simulate

from msbal.errors import SpecError
from msbal.plotting import WHAT, read_runs, write_page
from msbal.plotting.html import to_script

pytest.importorskip("plotly", reason="the page needs the extra `plots`")

Write = Callable[..., Path]


@pytest.fixture
def page_of(tmp_path: Path) -> Callable[..., str]:
    """``page_of(folder, .., what=.., ..)``: the page's text."""

    def text(*runs: Path, what: tuple[str, ...] = WHAT, **options: Any) -> str:
        path = write_page(read_runs(runs), tmp_path / "page.html", what=what, **options)
        return path.read_text(encoding="utf-8")

    return text


def figures_of(page: str) -> dict[str, Any]:
    (content,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    keys = [html.unescape(key) for key in re.findall(r'data-panel="(.*?)"', page)]
    return dict(zip(keys, json.loads(content)["figures"], strict=True))


def curve(figure: dict[str, Any], name: str) -> np.ndarray:
    """What the hover label tells along a curve."""
    (trace,) = [one for one in figure["data"] if one.get("name") == name and one.get("hoverinfo") != "skip"]
    return np.array(trace.get("customdata") or trace["y"], dtype=np.float64)


def test_the_page_carries_the_records_values(write_run: Write, page_of: Callable[..., str]) -> None:
    folder = write_run(intervals=15)
    group, figures = read_runs([folder])[0].groups[0], figures_of(page_of(folder))
    for place, level in enumerate(group.levels):
        for key, values in {
            "loss-bbox": group.mean_loss("bbox")[:, place],
            "variance": group.variance[:, place],
            "variance-reduction": group.variance_reduction[[0, *range(15)], place],
            "weights": group.previous_weights[[0, *range(15)], place],
            "share-weighted": group.share(weighted=True)[[0, *range(15)], place],
        }.items():
            assert np.allclose(curve(figures[f"all/{key}"], level), values, rtol=1e-5), key
    for place, action in enumerate(group.actions):
        assert np.allclose(
            curve(figures["all/probabilities"], action),
            [np.nan, *group.probabilities[[0, *range(14)], place]],  # in force from the second interval on
            rtol=1e-5,
            equal_nan=True,
        )
    assert figures["all/probabilities"]["layout"]["yaxis"]["ticktext"][-4:] == list(group.actions)


def test_the_summary_is_of_what_was_in_force(write_run: Write, page_of: Callable[..., str]) -> None:
    made = simulate(intervals=20, positives=(5, 5, 5, 5, 0))
    page = page_of(write_run(text=lines(made), aps={200: 0.4123}))
    table = re.sub(r"<.*?>", "", page[page.index("<table") : page.index("</table>")])
    assert "200 20 × 10" in table
    assert f"→ {sum(made[-1].loss) / 10:.4g}" in table
    assert "AP 41.2" in table and "AP50 82.5" in table
    for place, level in enumerate((*FIVE[:4], "P7 (no boxes)")):
        assert f"{level} {np.mean([record.previous_weights[place] for record in made]):.3g}" in table
    for action in made[-1].probabilities:
        taken = [t for t, record in enumerate(made[:-1]) if record.action == action]
        rewarded = np.mean([made[t + 1].reward == 1 for t in taken])
        assert f"{action} {len(taken)} ({rewarded:.0%})" in table


def test_runs_on_one_axis(write_run: Write, page_of: Callable[..., str]) -> None:
    runs = [write_run(name, aps={120: 0.4}, seed=n) for n, name in enumerate(("one", "two"))]
    page = page_of(*runs, overlay=True, what=("total", "ap", "weights"))
    figures = figures_of(page)
    for key, name in (("total", "total"), ("ap", "AP"), ("weights", "P3")):
        (key,) = [found for found in figures if found.endswith(f"/{key}")]
        dashes = [
            curve["line"]["dash"] for curve in figures[key]["data"] if curve.get("name") == f"{name} · one"
        ]
        assert set(dashes) == {"solid"}
        assert f"{name} · two" in {curve.get("name") for curve in figures[key]["data"]}
    assert '<option value="overlay" selected>' in page
    many = [write_run(f"run{n}", intervals=2) for n in range(5)]
    assert 'value="overlay"' not in page_of(*many, what=("total",))
    with pytest.raises(SpecError, match="--overlay: found 5 runs"):
        page_of(*many, overlay=True)


def test_axes_have_names(write_run: Write, page_of: Callable[..., str]) -> None:
    for figure in figures_of(page_of(write_run(aps={100: 0.3}, learning_rate=0.1))).values():
        assert figure["layout"]["xaxis"]["title"]["text"] == "Iteration"
        assert figure["layout"]["yaxis"]["title"]["text"]


def test_missing_values_are_null_and_the_rest_is_json(write_run: Write, page_of: Callable[..., str]) -> None:
    made = [record for record in simulate() if record.interval not in (4, 5)]
    page = page_of(write_run(text=lines(made)))
    assert np.flatnonzero(np.isnan(curve(figures_of(page)["all/loss-cls"], "P3"))).tolist() == [3, 4]
    assert "2 intervals are missing" in page
    with pytest.raises(ValueError, match="Out of range"):
        to_script({"x": math.nan})


def test_only_what_was_asked_for(write_run: Write, page_of: Callable[..., str]) -> None:
    page = page_of(write_run(strategy="avw"), what=("losses", "rewards", "weights"))
    assert list(figures_of(page)) == ["all/loss-cls", "all/loss-bbox", "all/weights"]
    titles = re.findall("<h3>(.*?)</h3>", page)
    assert titles == ["Classification loss", "Regression loss", "Level weights"]


def test_nothing_in_the_data_can_end_its_script_or_become_html(
    write_run: Write, page_of: Callable[..., str]
) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    made = simulate(levels=(f"</script>{hostile}", f'"{hostile}'), terms=(hostile,), group=hostile)
    page = page_of(write_run(hostile.replace("/", ""), text=lines([*made, *simulate()])))
    assert "<img" not in page
    assert len(figures_of(page)) > 10


def test_the_page_is_one_file_that_asks_for_nothing(write_run: Write, page_of: Callable[..., str]) -> None:
    from plotly.offline import get_plotlyjs

    page = page_of(write_run("<b>me & co", intervals=500))
    library = get_plotlyjs()
    assert page.count(library) == 1
    own = page.replace(library, "")
    assert "{{" not in own
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", own)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", own)
    assert "@import" not in own
    assert "default-src 'none'" in own
    assert own.count("</script>") == 3
    assert "<title>Level losses of &lt;b&gt;me &amp; co</title>" in own
    assert len(page) < len(library) + 500_000


def test_an_unknown_palette_is_refused(write_run: Write, page_of: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match="palette"):
        page_of(write_run(), palette="x")
