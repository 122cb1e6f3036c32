"""Records damaged in any way: whole ones are kept, the rest is passed over or named in one line.

``MSBAL_FUZZ_EXAMPLES=10000`` runs each of these as often.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msbal.cli.app import run as command_line
from msbal.data import DetectionData, ImageRecord
from msbal.engine.record import IntervalRecord
from msbal.errors import DataError
from msbal.evaluation.predictions import read_predictions
from msbal.records import (
    RunDirectory,
    add_evaluation,
    intervals,
    losses_log,
    open_losses,
    parse_intervals,
    read_metrics,
    read_starts,
    to_json,
)

often = settings(
    max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

RECORD = json.loads(
    to_json(
        IntervalRecord(
            interval=1, iteration=3, levels=("P3", "P4"), loss=(1.0, 2.0), loss_by_term={"cls": (1.0, 2.0)},
            variance=(0.1, 0.2), variance_reduction=(0.3, 0.4), reward=1, action="avw",
            probabilities={"avw": 0.5}, weights=(1.0, 1.5),
        )
    )
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from([10**400, "P3", "nan", -1, 10**19])
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
lines = st.one_of(
    st.just(json.dumps(RECORD)),
    st.text(max_size=30),
    trees.map(json.dumps),
    st.builds(lambda key, value: json.dumps({**RECORD, key: value}), st.sampled_from(sorted(RECORD)), trees),
    st.sampled_from(["[" * 5000, "\0\0\0", '{"interval": 1, "iter', '{"interval": ' + "9" * 5000 + "}"]),
)


def file_of(folder: str, name: str, content: bytes) -> Path:
    path = Path(folder) / name
    path.write_bytes(content)
    return path


@often
@given(
    st.lists(lines, max_size=5).map("\n".join).map(lambda t: t.encode("utf-8", "surrogatepass")) | st.binary()
)
def test_any_intervals(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(folder, "intervals.jsonl", content)
        records, damaged = parse_intervals(path)
        assert all("\n" not in word for word in damaged)
        intervals.rewind(path, lambda record: True)
        assert 0 <= intervals.whole_up_to(path, ["all"]) <= max([0, *(r.iteration for r in records)])
        # What is kept is whole, and keeping it again changes nothing.
        again, rest = parse_intervals(path)
        assert not rest
        assert [to_json(r) for r in again] == [to_json(r) for r in records if r.iteration <= 10**9]
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]


rows = st.one_of(
    st.builds("{},{!r},{!r}".format, st.integers(0, 50), st.floats(), st.floats()),
    st.text(max_size=12),
    st.sampled_from(["²,1,1", "9" * 5000 + ",1,1", "1,1", '3,"', "4,\0,1", "5,nan,inf"]),
)
headers = st.just("iteration,P3/cls,P4/cls") | st.text(max_size=20)


@often
@given(
    st.builds(
        lambda h, r, end: "\n".join([h, *r]) + end,
        headers,
        st.lists(rows, max_size=5),
        st.sampled_from(["", "\n"]),
    )
)
def test_any_losses(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(folder, "losses.csv", text.encode("utf-8", "surrogatepass"))
        try:
            for group in open_losses(path):
                for row in group.rows():
                    assert [len(term) for term in row] == [len(group.levels)] * len(group.terms)
        except DataError as error:
            assert "\n" not in str(error)
        whole = losses_log.whole_up_to(path)
        losses_log.rewind(path, 40)
        assert whole is not None and (losses_log.whole_up_to(path) or 0) <= 40
        kept = path.read_bytes()
        assert kept == b"" or kept.endswith(b"\n"), "what follows is appended to a whole line"
        losses_log.rewind(path, 40)
        assert path.read_bytes() == kept


@often
@given(
    st.builds(
        lambda h, r, end: "\n".join([h, *r]) + end,
        headers,
        st.lists(rows, max_size=5),
        st.sampled_from(["", "\n"]),
    ),
    st.sampled_from(["rlo", "avw", "cov", "uw", "nothing"]),
)
def test_any_replay(text: str, strategy: str) -> None:
    """By the command: a whole file of records, or one line and none."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()) as said,
    ):
        path = file_of(folder, "losses.csv", text.encode("utf-8", "surrogatepass"))
        out = Path(folder) / "out.jsonl"
        code = command_line(["replay", str(path), "-s", strategy, "--interval", "2", "-o", str(out)])
        assert code in (0, 2), said.getvalue()
        assert out.exists() == (code == 0)
        assert {entry.name for entry in Path(folder).iterdir()} <= {"losses.csv", "out.jsonl"}
        if code:
            assert said.getvalue().startswith("error: ") and said.getvalue().count("\n") == 1, said.getvalue()
            assert "a traceback with" not in said.getvalue(), said.getvalue()
        else:
            assert not parse_intervals(out)[1]


damaged_json = st.one_of(
    trees.map(lambda tree: json.dumps(tree).encode()),
    st.binary(max_size=30),
    st.just(b"[" * 100_000),
    st.builds(
        lambda key, tree: json.dumps({key: tree}).encode(), st.sampled_from(["evaluations", "starts"]), trees
    ),
    st.builds(
        lambda entries, final: json.dumps({"evaluations": entries, "final": final}).encode(),
        st.lists(trees | st.fixed_dictionaries({"iteration": scalars}), max_size=3),
        trees,
    ),
)


@often
@given(damaged_json)
def test_any_metrics(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        run.metrics_file.write_bytes(content)
        run.environment_file.write_bytes(content)
        assert all(isinstance(start, dict) for start in read_starts(run))
        try:
            found: dict[str, Any] = read_metrics(run)
            assert isinstance(found["evaluations"], list)
            add_evaluation(run, 5, {"AP": 0.5}, final=True)
            assert read_metrics(run)["final"] == {"iteration": 5, "AP": 0.5}
        except DataError as error:
            assert "\n" not in str(error)
            assert run.metrics_file.read_bytes() == content
        assert {entry.name for entry in Path(folder).iterdir()} == {"metrics.json", "environment.json"}


IMAGE = ImageRecord(
    1, Path("a.png"), 40, 30, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32),
    np.zeros(0, np.bool_), np.zeros(0, np.bool_),
)  # fmt: skip
DATA = DetectionData("tiny", ("cat",), (3,), (IMAGE,))
GOOD: dict[str, Any] = {"image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}
entries = st.one_of(
    st.just(GOOD),
    st.builds(lambda key, tree: {**GOOD, key: tree}, st.sampled_from(sorted(GOOD)), trees),
    # What it names besides is never looked at.
    st.just(
        {**GOOD, "file_name": "../../etc/passwd", "segmentation": {"counts": "x", "size": [10**9, 10**9]}}
    ),
    trees,
)
predictions = st.one_of(
    damaged_json,
    st.builds(
        lambda found, length, more: json.dumps(found).encode()[:length] + more,
        st.lists(entries, max_size=4),
        st.none() | st.integers(0, 200),
        st.binary(max_size=3),
    ),
)


@often
@given(predictions)
def test_any_predictions(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(folder, "predictions.json", content)
        try:
            found, detections, remarks = read_predictions(path, DATA)
            assert len(found) == len(detections)
            assert all("\n" not in line for line in remarks.lines())
        except DataError as error:
            assert "\n" not in str(error)


def test_a_header_cut_short_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("iteration,P3/cl")
    losses_log.rewind(path, 0)
    assert path.read_bytes() == b""
