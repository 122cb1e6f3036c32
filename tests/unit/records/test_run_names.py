"""Short names of runs and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from msbal.records.names import run_names, short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ("runs/a runs/b.json", "a|b"),
        ("runs/a/intervals.jsonl replayed.jsonl", "a|replayed"),
        ("x/a y/a", "x/a|y/a"),
        ("seed0/rlo seed1/rlo seed1/avw", "seed0/rlo|seed1/rlo|seed1/avw"),
        ("x/a x/a", "a (1)|a (2)"),
        ("x/a x/b x/../x/b", "a|b (2)|b (3)"),
        ("", ""),
    ],
)
def test_runs_have_names_as_short_as_tells_them_apart(paths: str, names: str) -> None:
    assert "|".join(run_names([Path(path) for path in paths.split()])) == names


def test_keys_are_shortened_one_by_one() -> None:
    keys = [key.split(".") for key in ("balance.interval", "optimizer.lr", "model.lr", "lr")]
    assert short_names(keys, ".", alike=False) == ["interval", "optimizer.lr", "model.lr", "lr"]
