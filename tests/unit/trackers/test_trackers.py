"""What every tracker is told, through one that takes notes; how trackers are found; what a train command says."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import played
import pytest
from rich.console import Console
from typer.testing import CliRunner

from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.spec import LogSpec
from msbal.trackers import ENTRY_POINT_GROUP, TrackedRun, Tracker, find_trackers, make_trackers
from msbal.trackers.scalars import record_scalars
from msbal.ui.monitor import Ending, RunHeader, make_monitor

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "trackers.md").read_text(encoding="utf-8")
OWN = {"tensorboard", "wandb", "mlflow", "clearml", "comet", "trackio"}


class Notes(Tracker):
    """Takes notes, and fails or interrupts where told."""

    name: ClassVar[str] = "notes"
    package: ClassVar[str] = "json"

    def __init__(self, run: TrackedRun, fails: str = "") -> None:
        super().__init__(run)
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.images: list[tuple[int, str, Path]] = []
        self.calls: list[str] = []
        self.fails = fails

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise ConnectionError("no route to host")

    def begin(self, iteration: int) -> str:
        print("Welcome to Notes!", input() if self.fails == "input" else "")
        self._note(f"begin {iteration}")
        return "on paper"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        self._note("write")
        self.rows.append((iteration, dict(row)))

    def show(self, iteration: int, name: str, path: Path) -> None:
        self.images.append((iteration, name, path))

    def end(self, how: str) -> None:
        self._note(f"end {how}")


def run_in(folder: Path, resume: bool = False) -> TrackedRun:
    return TrackedRun(RunDirectory(folder), played.SPEC, resume)


def test_an_iterations_numbers_are_one_row(tmp_path: Path) -> None:
    notes = Notes(run_in(tmp_path))
    played.play(notes, tmp_path / "train.png")
    notes.close(Ending("finished"))
    rows = dict(notes.rows)
    assert [i for i, _ in notes.rows] == sorted(rows), "one row an iteration, in order"
    assert rows[200] == {
        "loss/P3": 0.25, "loss/P4": 0.125, "loss/cls/P3": 0.15, "loss/cls/P4": 0.075, "loss/bbox/P3": 0.1,
        "loss/bbox/P4": 0.05, "weight/P3": 1.5, "weight/P4": 1.0, "variance/P3": 0.5, "variance/P4": 0.25,
        "reduction/P3": 0.125, "probability/avw": 0.75, "probability/min_loss": 0.25, "reward": 1.0, "action": 1.0,
        "train/loss": 0.375, "train/learning_rate": 0.01, "train/images_per_second": 32.0,
        "metrics/AP": 25.0, "metrics/AP50": 50.0, "metrics/voc/mAP": 37.5, "class_AP/cup": 25.0,
    }  # fmt: skip
    assert rows[100]["weight/P3"] == 1.0, "in the first interval all weights are 1"
    assert notes.images == [(0, "images/train", tmp_path / "train.png")]
    assert (notes.calls[0], notes.calls[-1]) == ("begin 0", "end finished")


def test_gradients_come_in_the_rows_of_intervals_that_measured_them() -> None:
    found = record_scalars(
        replace(
            played.record(1), gradient_norm={"head": (3.0, 4.0), "shared": (5.0, 6.0)},
            gradient_cosine=((1.0, -0.5), (-0.5, 1.0)), gradient_count=1,
        ), named=True,
    )  # fmt: skip
    assert {name: value for name, value in found.items() if "gradient" in name or "cosine" in name} == {
        "all/gradient/head/P3": 3.0, "all/gradient/head/P4": 4.0, "all/gradient/shared/P3": 5.0,
        "all/gradient/shared/P4": 6.0, "all/cosine/P3-P4": -0.5,
    }  # fmt: skip


def test_groups_are_told_apart_and_their_losses_summed(tmp_path: Path) -> None:
    notes = Notes(run_in(tmp_path))
    notes.started(0, 400, (played.group("rpn"), played.group("roi")))
    for t in (1, 2):
        notes.interval(played.record(t, "rpn"))
        notes.interval(played.record(t, "roi", count=0 if t == 2 else 100))
    notes.close()
    (_, first), (_, second) = notes.rows
    assert first["rpn/loss/P3"] == first["roi/loss/P3"] == 0.5 and "loss/P3" not in first
    assert first["train/loss"] == 1.5
    assert "roi/loss/P3" not in second and "train/loss" not in second, "no finite loss of one, no total"
    assert notes.calls[-1] == "end failed", "closed without an ending"


def test_an_image_may_come_before_the_start(tmp_path: Path) -> None:
    notes = Notes(run_in(tmp_path))
    notes.drawn(0, "train", tmp_path / "train.png")
    notes.started(0, 400, (played.group(),))
    assert notes.images == [(0, "images/train", tmp_path / "train.png")]


@pytest.mark.parametrize("call", ["begin 0", "write", "end finished", "input"])
@pytest.mark.parametrize("mode", ["plain", "quiet"])
def test_one_that_fails_is_left_out_and_asks_nothing(tmp_path: Path, call: str, mode: Any) -> None:
    console = Console(file=io.StringIO(), width=200)
    bad, good = Notes(run_in(tmp_path), call), Notes(run_in(tmp_path))
    log = tmp_path / "log.txt"
    header = RunHeader("run", "torchvision", "retinanet", "rlo", 100, "cpu")
    with make_monitor(mode, console, header, log_file=log, trackers=[bad, good]) as monitor:
        played.play(monitor, tmp_path / "train.png")
        monitor.close(Ending("finished"))
    assert [i for i, _ in good.rows][-1] == 400 and good.calls[-1] == "end finished"
    error = "EOFError: EOF when reading a line" if call == "input" else "ConnectionError: no route to host"
    if call != "end finished":  # the log is closed by then
        assert log.read_text().count(f"notes failed and is left out: {error}") == 1
    assert "Welcome" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_an_interrupt_waits_for_no_tool(tmp_path: Path) -> None:
    notes = Notes(run_in(tmp_path))
    notes.started(0, 400, (played.group(),))
    notes.interval(played.record(1))
    notes.close(Ending("interrupted"))
    assert notes.calls == ["begin 0"]


def test_what_a_tool_prints_is_dropped_and_its_place_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    notes = Notes(TrackedRun(RunDirectory(tmp_path), {}, say=said.append))
    notes.started(0, 400, (played.group(),))
    assert said == ["notes: on paper"] and capsys.readouterr().out == ""
    print("afterwards")
    assert capsys.readouterr().out == "afterwards\n"


def test_an_id_is_kept_for_the_resumed_run_alone(tmp_path: Path) -> None:
    run_in(tmp_path).keep_id("notes", "abc")
    assert run_in(tmp_path).kept_id("notes") is None
    assert run_in(tmp_path, resume=True).kept_id("notes") == "abc"
    assert run_in(tmp_path, resume=True).kept_id("other") is None


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/shapes", "shapes"), ("seed-0", "seed-0"), ("out/grid/runs/rlo/seed-0", "grid-rlo-seed-0"),
    ],
)  # fmt: skip
def test_the_runs_of_an_ablation_have_names_of_their_own(folder: str, name: str) -> None:
    assert run_in(Path(folder)).name == name


def test_all_are_found_by_entry_point_and_none_is_imported() -> None:
    assert {p.name for p in metadata.entry_points(group=ENTRY_POINT_GROUP)} >= OWN
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.name in OWN:
            assert point.load().name == point.name


def test_an_unknown_one_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SpecError, match=r"log\.trackers: `wandbb` is unknown; did you mean `wandb`\?"):
        find_trackers(["wandbb"])


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (point,) = metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)
    monkeypatch.setattr("msbal.trackers.discovery.find_spec", lambda package: None)
    with pytest.raises(SpecError, match=rf"{name} needs the package {point.load().package}") as caught:
        make_trackers([name], run_in(tmp_path))
    assert f"run `pip install 'msbal[{name}]'`" in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_broken_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_notes.py").write_text("raise TypeError('Descriptors cannot be created directly')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Notes, "package", "broken_notes")
    with pytest.raises(SpecError, match="broken_notes cannot be imported: TypeError: Descriptors cannot"):
        Notes(run_in(tmp_path))
    sys.modules.pop("broken_notes", None)


def test_the_tracker_that_a_page_shows_tracks(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    tracker = names["PrintTracker"](run_in(tmp_path))
    played.play(tracker, tmp_path / "train.png")
    tracker.close(Ending("finished"))
    lines = (tmp_path / "trackers" / "print" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["train/loss"] for line in lines if "reward" in line] == [
        0.75,
        0.375,
        0.25,
        0.1875,
    ]


def test_the_page_has_every_name(tmp_path: Path) -> None:
    notes = Notes(run_in(tmp_path))
    played.play(notes, tmp_path / "train.png")
    written = {name for _, row in notes.rows for name in row} | {name for _, name, _ in notes.images}
    listed = set(re.findall(r"`([\w/]+)`", PAGE.split("## The numbers")[1]))
    kinds = {re.sub(r"P4", "P3", re.sub(r"bbox", "cls", name)) for name in written} - {"probability/min_loss"}
    assert kinds <= listed
    assert set(re.findall(r"^\| `(\w+)` \| `pip install", PAGE, re.MULTILINE)) == OWN


def test_a_command_refuses_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msbal.cli.app import app

    spec = tmp_path / "spec.yaml"
    spec.write_text((ROOT / "examples" / "quickstart.yaml").read_text())
    (tmp_path / "grid.yaml").write_text(
        "base: spec.yaml\narms: {equal: {balance.strategy: equal}}\nseeds: 2\nbaseline: equal\n"
    )
    runner = CliRunner()
    for call in (
        ["train", str(spec), "--track", "wandbb"],
        ["ablate", str(tmp_path / "grid.yaml"), "--set", "base.log.trackers=[wandbb]"],
    ):
        found = runner.invoke(app, [*call, "-o", str(tmp_path / "out")])
        assert isinstance(found.exception, SpecError), found.output
        assert "`wandbb` is unknown; did you mean `wandb`?" in str(found.exception)
        assert not (tmp_path / "out").exists()


def test_both_keys_of_a_spec_ask_for_trackers() -> None:
    assert LogSpec().all_trackers == ()
    assert LogSpec(tensorboard=True, trackers=("wandb",)).all_trackers == ("wandb", "tensorboard")


def test_every_own_tracker_has_an_extra() -> None:
    assert set(metadata.metadata("msbal").get_all("Provides-Extra") or []) >= OWN
