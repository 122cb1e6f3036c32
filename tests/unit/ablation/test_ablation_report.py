"""The report, and the command as a whole with a stand-in for training."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ablation_tiny import BASE

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import chosen_shares, mean_weights
from msbal.cli.app import run
from msbal.engine.record import IntervalRecord


def record(interval: int, held: tuple[float, ...], group: str = "all") -> IntervalRecord:
    nothing = (0.0, 0.0)
    return IntervalRecord(
        interval, 2 * interval, ("P3", "P4"), nothing, {}, nothing, nothing, (9.0, 9.0), group=group,
        previous_weights=held,
    )  # fmt: skip


def test_weights_are_those_that_held() -> None:
    assert mean_weights([record(1, (1.0, 1.0)), record(2, (2.0, 1.5))]) == {"P3": 1.5, "P4": 1.25}
    several = mean_weights([record(1, (1.0, 1.0), "rpn"), record(1, (3.0, 1.0), "roi")])
    assert several == {"rpn:P3": 1.0, "rpn:P4": 1.0, "roi:P3": 3.0, "roi:P4": 1.0}
    assert mean_weights([]) == {}


def test_actions_are_those_that_were_in_force() -> None:
    probabilities = {"avw": 0.5, "equal": 0.25, "max_loss": 0.25}
    chosen = [
        ("rpn", "avw"),
        ("roi", "avw"),
        ("rpn", "avw"),
        ("roi", "equal"),
        ("rpn", "max_loss"),
        ("roi", "avw"),
    ]
    records = [
        replace(record(n // 2 + 1, (1.0, 1.0), group), action=action, probabilities=probabilities)
        for n, (group, action) in enumerate(chosen)
    ]
    assert chosen_shares(records) == {"avw": 0.75, "equal": 0.25, "max_loss": 0.0}
    # A part of an interval follows the last whole one: what was chosen there was in force in it.
    assert sum(chosen_shares(records, records[-1].iteration + 1).values()) == pytest.approx(1)
    assert chosen_shares(records, records[-1].iteration + 1) != chosen_shares(records)
    assert chosen_shares([record(1, (1.0, 1.0))]) == chosen_shares([]) == {}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend: Any) -> Callable[..., int]:
    """`msbal ablate` on a spec with two arms and three seeds, plus arguments."""
    monkeypatch.setattr("msbal.ablation.work.PROGRAM", pretend)
    monkeypatch.setattr("msbal.ablation.work.POLL_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    spec = {
        "base": BASE,
        "arms": {"plain": {"balance.strategy": "equal"}, "same": {"balance.strategy": "equal"}, "better": {}},
        "smoke": {"schedule.iterations": 2},
        "published": {"plain": {"AP": 36.1, "GFLOPs": 250.34}},
        "output": "out",
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return lambda *arguments: run(["ablate", "mine.yaml", *arguments])


def test_from_the_spec_to_the_report(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--plain", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert said.index("Planned: AP, in which a difference of 0.5 points matters; 3 seeds") < said.index(
        "Each arm"
    )
    assert (
        "AP: same has exactly the results of plain; better is better than plain by at least 0.5 points."
        in said
    )
    assert "- same and plain have exactly the same AP on each of 3 seeds, as if they were one run" in said
    assert (
        "The mean difference in AP is +10.00 points" in said and "better is better on 3 of 3 seeds." in said
    )
    folder = tmp_path / "out" / "report"
    files = {
        f"{table}.{kind}" for table in ("comparison", "sizes", "runs", "published") for kind in ("tex", "csv")
    }
    assert {path.name for path in folder.iterdir()} == {"report.md", "report.html", "report.json", *files}
    data = json.loads((folder / "report.json").read_text())
    assert data["arms"]["better"]["conclusion"]["verdict"] == "better by at least the gain"
    assert data["arms"]["same"]["conclusion"]["verdict"] == "the same"
    assert data["arms"]["same"]["conclusion"]["paired"]["mean"] == 0
    assert data["arms"]["plain"]["summary"]["mean"] == pytest.approx(0.21)
    rows = list(csv.reader((folder / "published.csv").read_text().splitlines()))
    names = [
        "arm",
        "AP_published",
        "AP",
        "AP_sd",
        "GFLOPs_published",
        "GFLOPs",
        "difference",
        "low",
        "high",
        "verdict",
    ]
    assert rows[:2] == [names, ["plain", "36.1", "21", "1", "250.34", *[""] * 5]]
    text = (folder / "report.md").read_text()
    assert text.startswith("# Ablation out\n\nPlanned: ") and "| better by at least 0.5 |" in text
    # The same command again runs nothing.
    before = (tmp_path / "out" / "starts.txt").read_text()
    assert command("--quiet") == 0
    assert (tmp_path / "out" / "starts.txt").read_text() == before


def test_a_failed_arm_is_one_line_and_the_rest_is_reported(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRETEND_FAIL", "same")
    assert command("--quiet", "--set", "seeds=2") == 1
    out, error = capsys.readouterr()
    assert "arm same, seed 0" in error and "it went wrong (and 1 more run)" in error
    assert "Nothing can be concluded about same and plain" in out
    assert "Left out: seeds 0 and 1, where same failed." in out


def test_smoke_has_its_own_folder_and_says_so_everywhere(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--smoke", "--quiet") == 0
    assert (tmp_path / "out-smoke" / "report" / "report.md").exists()
    assert not (tmp_path / "out").exists()
    report = tmp_path / "out-smoke" / "report"
    data = json.loads((report / "report.json").read_text())
    assert data["seeds"] == [0, 1] and data["smoke"]
    assert {data["arms"][arm]["conclusion"]["verdict"] for arm in ("same", "better")} == {"unknown"}
    said = capsys.readouterr().out
    for text in (said, *((report / f"report.{kind}").read_text() for kind in ("md", "html", "json"))):
        assert "A smoke run: it shows whether everything works, and nothing can be concluded from it." in text
    for file in report.glob("*.tex"):
        assert "(smoke run)}" in file.read_text()


def test_a_report_without_runs(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--report-only") == 0
    said = capsys.readouterr().out
    assert (
        "nothing can be concluded about same and better" in said
        and "no seed has been run by every arm yet" in said
    )


def test_what_does_not_go_together(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--report-only", "--force") == 2
    assert "--report-only" in capsys.readouterr().err
    assert command("--jobs", "0") == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "0.3"])
def test_what_is_no_number_is_no_metric(value: object) -> None:
    assert metric_in({"AP": value}, "AP") is None and metric_in({"voc": {"mAP": value}}, "mAP") is None
