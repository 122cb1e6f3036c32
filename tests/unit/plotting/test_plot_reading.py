"""Runs in every state that a file can be in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_runs import lines, simulate

from msbal.errors import DataError
from msbal.plotting import read_runs

Write = Callable[..., Path]


def test_a_run_that_is_still_writing(write_run: Write) -> None:
    text = lines(simulate(intervals=5))
    for cut in (1, 30, 200):
        (run,) = read_runs([write_run(f"cut{cut}", text=text[:-cut])])
        # A line of which only the newline is missing is whole.
        assert run.groups[0].interval.tolist() == ([1, 2, 3, 4, 5] if cut == 1 else [1, 2, 3, 4])
        assert run.notes == ()


def test_damaged_lines_are_skipped_and_named(write_run: Write) -> None:
    rows = lines(simulate(intervals=6)).splitlines(keepends=True)
    rows[2] = rows[2][:40] + "\n"
    rows[4] = "\x00\x00\n"
    (run,) = read_runs([write_run(text="".join(rows))])
    assert run.groups[0].interval[~run.groups[0].missing].tolist() == [1, 2, 4, 6]
    assert run.notes[0].startswith("2 damaged lines skipped: ")
    assert "intervals.jsonl:3" in run.notes[0]
    assert "and 1 more" in run.notes[0]


@pytest.mark.parametrize("text", ["", "\n\n", '{"interval": 1, "iter'])
def test_nothing_recorded_yet(write_run: Write, text: str) -> None:
    with pytest.raises(DataError, match="no interval yet") as error:
        read_runs([write_run(text=text)])
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").touch()
    with pytest.raises(DataError, match="no interval yet"):
        read_runs([tmp_path])


def test_nothing_but_damage(write_run: Write) -> None:
    with pytest.raises(DataError, match="no whole record; 3 damaged lines"):
        read_runs([write_run(text="x\ny\n[]\n")])


def test_damaged_metrics_are_noted_and_the_rest_is_read(write_run: Write) -> None:
    folder = write_run(aps={10: 0.2})
    assert read_runs([folder])[0].metrics["AP"].tolist() == [20]
    for text in ("{", '{"evaluations": [{"iteration": 10, "AP": "high"}]}'):
        (folder / "metrics.json").write_text(text)
        (run,) = read_runs([folder])
        assert run.metrics == {} and run.groups
        assert run.notes[0].startswith("no metrics: ")


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_runs([tmp_path / "none"])


def test_a_folder_of_runs_names_them(write_run: Write, tmp_path: Path) -> None:
    write_run("sweep/a")
    write_run("sweep/b")
    with pytest.raises(DataError, match=r"runs inside it: .*sweep/a .*sweep/b"):
        read_runs([tmp_path / "sweep"])


def test_a_file_of_replay_is_a_run(write_run: Write, tmp_path: Path) -> None:
    file = (write_run() / "intervals.jsonl").rename(tmp_path / "replayed.jsonl")
    assert [run.name for run in read_runs([file])] == ["replayed"]


def test_names_are_as_short_as_tells_runs_apart(write_run: Write) -> None:
    runs = [write_run(name, intervals=1) for name in ("x/seed0/rlo", "x/seed1/rlo", "x/seed1/avw")]
    assert [run.name for run in read_runs(runs)] == ["seed0/rlo", "seed1/rlo", "seed1/avw"]
    assert [run.name for run in read_runs(runs[1:])] == ["rlo", "avw"]
    assert [run.name for run in read_runs([runs[0] / "intervals.jsonl"])] == ["rlo"]
