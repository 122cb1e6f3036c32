"""Records survive the way to disk and back, cuts and foreign lines included."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.engine import BalancerSet, GroupNames, LevelLosses
from msbal.engine.record import IntervalRecord, NonFinite
from msbal.errors import DataError, SpecError
from msbal.records import (
    Recorder,
    RunDirectory,
    from_json,
    open_losses,
    parse_intervals,
    read_intervals,
    to_json,
)
from msbal.records.atomic import replace_with, write_json, write_text
from msbal.records.run_directory import PROPOSED

numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def records(draw: st.DrawFn) -> IntervalRecord:
    k = draw(st.integers(2, 6))
    row = st.tuples(*[numbers] * k)
    gradients: dict[str, Any] = {}
    if draw(st.booleans()):
        gradients = {"gradient_norm": {"head": draw(row), "shared": draw(row)},
                     "gradient_cosine": tuple(draw(row) for _ in range(k)), "gradient_count": 2}  # fmt: skip
    return IntervalRecord(
        interval=draw(st.integers(1, 10**6)),
        iteration=draw(st.integers(1, 10**8)),
        levels=tuple(f"P{i + 3}" for i in range(k)),
        loss=draw(row),
        loss_by_term={"cls": draw(row), "bbox": draw(row)},
        variance=draw(row),
        variance_reduction=draw(row),
        weights=draw(row),
        reward=draw(st.sampled_from([None, -1, 0, 1])),
        action=draw(st.text(max_size=8)),
        probabilities={"avw": draw(numbers)},
        group=draw(st.sampled_from(["all", "rpn"])),
        count=draw(st.integers(0, 100)),
        previous_weights=draw(row),
        nonfinite=draw(st.sampled_from([(), (NonFinite(3, "cls", "P3", 1, "nan"),)])),
        positives=draw(st.one_of(st.none(), row)),
        learning_rate=draw(st.one_of(st.none(), numbers)),
        **gradients,
    )


@given(records())
def test_round_trip(record: IntervalRecord) -> None:
    line = to_json(record)
    assert "\n" not in line
    assert from_json(line) == record


def test_nan_is_null_and_back() -> None:
    record = IntervalRecord(
        1, 2, ("a", "b"), (1.0, 2.0), {"x": (1.0, 2.0)}, (math.nan, 0.0), (0.0, 0.0), (1.0, 1.0)
    )
    assert "NaN" not in to_json(record)
    assert math.isnan(from_json(to_json(record)).variance[0])


@pytest.mark.parametrize(
    "damaged",
    [{"gradient_norm": {"head": [1.0]}}, {"gradient_norm": None}, {"gradient_cosine": [[1.0, 0.0]]},
     {"gradient_cosine": [[1.0], [0.0]]}],
)  # fmt: skip
def test_gradients_of_another_number_of_levels_are_damage(damaged: dict[str, Any]) -> None:
    record = IntervalRecord(
        1, 2, ("a", "b"), (1.0, 2.0), {"x": (1.0, 2.0)}, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0),
        gradient_norm={"head": (1.0, 2.0)}, gradient_cosine=((1.0, 0.5), (0.5, 1.0)), gradient_count=1,
    )  # fmt: skip
    with pytest.raises(ValueError):
        from_json(json.dumps({**json.loads(to_json(record)), **damaged}))


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(),
        st.binary().map(lambda b: b.decode("latin-1")),
        st.recursive(
            st.none() | st.booleans() | numbers | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([f.name for f in dataclasses.fields(IntervalRecord)]), inner, max_size=8
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value)),
    )
)
def test_foreign_lines_are_value_errors(line: str) -> None:
    with contextlib.suppress(ValueError):
        from_json(line)


def test_a_cut_last_line_is_passed_over_and_a_damaged_one_named(tmp_path: Path) -> None:
    good = to_json(IntervalRecord(1, 2, ("a", "b"), (1.0, 2.0), {}, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0)))
    path = tmp_path / "intervals.jsonl"
    path.write_text(good + "\n{broken\n" + good + "\n" + good[:40])
    found, damaged = parse_intervals(path)
    assert len(found) == 2
    assert len(damaged) == 1 and ":2:" in damaged[0]
    with pytest.raises(DataError):
        read_intervals(tmp_path / "nothing")


def run_balancers(
    groups: dict[str, GroupNames], recorder: Recorder, steps: range, balancers: BalancerSet
) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        balancers(
            {
                name: LevelLosses(torch.rand(len(names.terms), len(names.levels), generator=generator))
                for name, names in groups.items()
            }
        )
        recorder.step(step + 1, learning_rate=0.1 / (step + 1))


@pytest.mark.parametrize("killed_at", [4, 5, 7, 9])
def test_a_rewound_recording_is_that_of_an_unbroken_run(tmp_path: Path, killed_at: int) -> None:
    groups = {
        "rpn": GroupNames(("P2", "P3", "P4"), ("cls", "bbox")),
        "roi": GroupNames(("P2", "P3", "P4"), ("cls",)),
    }

    def start(folder: str) -> tuple[RunDirectory, Recorder, BalancerSet]:
        run = RunDirectory(tmp_path / folder)
        run.path.mkdir(exist_ok=True)
        recorder, balancers = Recorder(run), BalancerSet(groups, interval=3)
        recorder.attach(balancers)
        return run, recorder, balancers

    whole, recorder, balancers = start("whole")
    run_balancers(groups, recorder, range(14), balancers)

    parts, recorder, balancers = start("parts")
    run_balancers(groups, recorder, range(4), balancers)
    recorder.flush()
    state = balancers.state_dict()
    run_balancers(groups, recorder, range(4, killed_at), balancers)
    for file in (parts.intervals_file, parts.losses_file):
        text = file.read_text()
        file.write_text(text[: len(text) - (7 if killed_at > 5 else 0)])

    _, recorder, balancers = start("parts")
    balancers.load_state_dict(state)
    recorder.rewind(4)
    run_balancers(groups, recorder, range(4, 14), balancers)
    assert parts.intervals_file.read_text() == whole.intervals_file.read_text()
    assert parts.losses_file.read_text() == whole.losses_file.read_text()
    assert [r.learning_rate for r in read_intervals(parts.intervals_file)[::2]] == [
        0.1 / 3,
        0.1 / 6,
        0.1 / 9,
        0.1 / 12,
    ]
    assert whole.losses_file.read_text().startswith("iteration,rpn:P2/cls,")
    assert len(whole.losses_file.read_text().splitlines()) == 1 + 12


@pytest.mark.parametrize(
    "edited", [lambda b: b.replace(b"\n", b"\r\n"), lambda b: b"\xef\xbb\xbf" + b], ids=["line ends", "mark"]
)
def test_what_an_editor_of_windows_does_to_records_is_undone(
    tmp_path: Path, edited: Callable[[bytes], bytes]
) -> None:
    groups = {"all": GroupNames(("P3", "P4", "P5"), ("cls",))}
    run = RunDirectory(tmp_path)
    recorder, balancers = Recorder(run), BalancerSet(groups, interval=2)
    recorder.attach(balancers)
    run_balancers(groups, recorder, range(8), balancers)
    files = (run.intervals_file, run.losses_file)
    kept = [file.read_bytes() for file in files]
    for file, content in zip(files, kept, strict=True):
        file.write_bytes(edited(content))
    assert recorder.whole_up_to() == 8
    recorder.rewind(8)
    assert [file.read_bytes() for file in files] == kept


def test_losses_are_read_back(tmp_path: Path) -> None:
    groups = {"all": GroupNames(("P3", "P4", "P5"), ("cls", "bbox"))}
    run = RunDirectory(tmp_path)
    recorder, balancers = Recorder(run), BalancerSet(groups, interval=2)
    recorder.attach(balancers)
    run_balancers(groups, recorder, range(4), balancers)
    (found,) = open_losses(run.losses_file)
    assert (found.levels, found.terms, found.group) == (("P3", "P4", "P5"), ("cls", "bbox"), "all")
    rows = list(found.rows())
    assert len(rows) == 4
    expected = torch.rand(2, 3, generator=torch.Generator().manual_seed(3)).double().tolist()
    assert rows[3] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("1,2,3\n", "header"),
        ("P3,P3\n1,2\n", "different"),
        ("P3/cls,P4/bbox\n1,2\n", "no column"),
    ],
)
def test_bad_headers(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "losses.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=expected):
        open_losses(path)


def test_a_bad_row_is_named_unless_it_is_the_last(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("P3,P4\n1,2\n3,x\n")
    assert list(open_losses(path)[0].rows()) == [[[1.0, 2.0]]]
    path.write_text("P3,P4\n1,2\n3,x\n5,6\n")
    with pytest.raises(DataError, match=r"losses\.csv:3"):
        list(open_losses(path)[0].rows())


def test_writes_are_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "before")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_with(path, fail)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_json(path, {"a": (math.nan, 1.0)})
    assert path.read_text() == '{"a": [null, 1.0]}\n'


class TestRunDirectory:
    def test_new(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path / "a" / "b")
        run.check()
        assert not run.path.exists()
        run.prepare()
        assert run.checkpoints.is_dir()

    def test_existing_needs_resume_or_force(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path / "run")
        run.prepare()
        run.spec_file.write_text("x")
        (run.path / "mine.txt").write_text("kept")
        with pytest.raises(SpecError, match=r"--resume.*--force"):
            run.prepare()
        run.prepare(resume=True)
        assert run.exists()
        run.prepare(force=True)
        assert not run.exists()
        assert (run.path / "mine.txt").exists(), "--force deletes only what a run leaves"

    @pytest.mark.parametrize(("text", "kept"), [("base: spec.yaml\n", True), (f"{PROPOSED} for it\n", False)])
    def test_force_keeps_an_ablation_of_the_users(self, tmp_path: Path, text: str, kept: bool) -> None:
        run = RunDirectory(tmp_path / "run")
        run.prepare()
        run.spec_file.write_text("x")
        run.ablation_file.write_text(text)
        run.prepare(force=True)
        assert run.ablation_file.exists() == kept

    def test_foreign_folder_and_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(SpecError, match="is a file"):
            RunDirectory(tmp_path / "file").prepare()
        with pytest.raises(SpecError, match="something else"):
            RunDirectory(tmp_path).prepare()
        with pytest.raises(SpecError, match="something else"):
            RunDirectory(tmp_path).prepare(force=True)
        with pytest.raises(SpecError, match="holds no run"):
            RunDirectory(tmp_path / "none").prepare(resume=True)
        with pytest.raises(SpecError, match="cannot be written"):
            RunDirectory(tmp_path / "file" / "below").prepare()
