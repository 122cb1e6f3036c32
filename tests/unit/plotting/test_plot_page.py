"""The page's content; what a browser makes of it is in tests/e2e."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_runs import lines, simulate

from msbal.errors import SpecError
from msbal.plotting import WHAT, choose_panels, read_runs, write_page
from msbal.plotting.html import payload, to_script

Write = Callable[..., Path]


def content_of(runs: list[Any], *what: str) -> dict[str, Any]:
    panels = choose_panels(runs, what or WHAT)
    content = payload(runs, panels, palette="paper", smooth=1, overlay=False)
    return json.loads(to_script(content))  # type: ignore[no-any-return]


def test_the_page_carries_the_records_values(write_run: Write) -> None:
    runs = read_runs([write_run(intervals=15)])
    content = content_of(runs)
    group, written = runs[0].groups[0], content["runs"][0]["groups"][0]
    for key, values in {
        "loss": group.loss, "variance": group.variance, "varianceReduction": group.variance_reduction,
        "weights": group.weights, "previousWeights": group.previous_weights,
        "probabilities": group.probabilities,
    }.items():  # fmt: skip
        assert np.allclose(np.array(written[key]).T, values, rtol=1e-5), key
    assert np.allclose(np.array(written["lossByTerm"]["bbox"]).T, group.loss_by_term["bbox"], rtol=1e-5)
    assert written["reward"] == group.reward.tolist()
    assert written["action"] == list(group.action)
    assert written["iteration"] == group.iteration.tolist()
    assert written["outcome"][:-1] == group.reward[1:].tolist()
    assert written["outcome"][-1] is None


def test_the_summary_counts_what_was_taken_and_what_it_earned(write_run: Write) -> None:
    made = simulate(intervals=20)
    summary = content_of(read_runs([write_run(text=lines(made))]))["runs"][0]["groups"][0]["summary"]
    assert (summary["intervals"], summary["iterations"], summary["length"]) == (20, 200, 10)
    assert summary["last"] == pytest.approx(sum(made[-1].loss) / 10, rel=1e-5)
    assert summary["weights"] == pytest.approx(made[-1].weights, rel=1e-5)
    for action in summary["actions"]:
        taken = [t for t, record in enumerate(made) if record.action == action["name"]]
        judged = [made[t + 1].reward for t in taken if t + 1 < 20]
        assert action["taken"] == len(taken)
        assert action["judged"] == len(judged)
        assert action["rewarded"] == judged.count(1)


def test_missing_values_are_null_and_the_rest_is_json(write_run: Write) -> None:
    made = [record for record in simulate() if record.interval not in (4, 5)]
    content = content_of(read_runs([write_run(text=lines(made))]))
    group = content["runs"][0]["groups"][0]
    assert [i for i, value in enumerate(group["loss"][0]) if value is None] == [3, 4]
    assert content["runs"][0]["notes"]
    assert "NaN" not in to_script({"x": [None]})
    with pytest.raises(ValueError, match="Out of range"):
        to_script({"x": math.nan})


def test_only_what_was_asked_for(write_run: Write) -> None:
    content = content_of(read_runs([write_run(strategy="avw")]), "losses", "rewards", "weights")
    assert [panel["kind"] for panel in content["panels"]] == ["loss", "loss", "weights"]
    assert "$" not in "".join(panel["title"] for panel in content["panels"])


def test_nothing_in_the_data_can_end_its_script(write_run: Write) -> None:
    text = to_script(content_of(read_runs([write_run("</script><script>alert(1)")])))
    assert "<" not in text
    assert json.loads(text)["runs"][0]["name"] == "script><script>alert(1)"


def test_the_page_is_one_file_that_asks_for_nothing(write_run: Write, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs the extra `plots`")
    from plotly.offline import get_plotlyjs

    runs = read_runs([write_run("<b>me & co", intervals=500)])
    page = write_page(runs, tmp_path / "page.html", what=WHAT).read_text(encoding="utf-8")
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


def test_an_unknown_palette_is_refused(write_run: Write, tmp_path: Path) -> None:
    runs = read_runs([write_run()])
    with pytest.raises(SpecError, match="palette"):
        payload(runs, choose_panels(runs, WHAT), palette="x", smooth=1, overlay=False)
