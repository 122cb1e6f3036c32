"""Records damaged in any way: whole ones are kept, the rest is passed over or named in one line.

``MSBAL_FUZZ_EXAMPLES=10000`` runs each of these as often.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msbal.errors import DataError
from msbal.record import IntervalRecord
from msbal.records import (
    RunDirectory,
    intervals,
    losses_log,
    open_losses,
    parse_intervals,
    read_metrics,
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
        intervals.rewind(path, 10**9)
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
        losses_log.rewind(path, 40)
        kept = path.read_bytes()
        assert kept == b"" or kept.endswith(b"\n"), "what follows is appended to a whole line"
        losses_log.rewind(path, 40)
        assert path.read_bytes() == kept


@often
@given(trees.map(lambda tree: json.dumps(tree).encode()) | st.binary(max_size=30))
def test_any_metrics(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        run.metrics_file.write_bytes(content)
        try:
            found: dict[str, Any] = read_metrics(run)
            assert isinstance(found["evaluations"], list)
        except DataError as error:
            assert "\n" not in str(error)


def test_a_header_cut_short_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("iteration,P3/cl")
    losses_log.rewind(path, 0)
    assert path.read_bytes() == b""
