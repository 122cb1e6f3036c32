"""Any text, any tree, any override: a valid spec or one line that says what is wrong, never a traceback.

``MSBAL_FUZZ_EXAMPLES=10000`` runs each of these as often.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msbal.errors import BackendError, SpecError
from msbal.spec import dump_spec, load_spec, parse_spec

pytest.importorskip("msbal_torchvision", reason="the spec's model section is the torchvision backend's")

often = settings(
    max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

VALID: dict[str, Any] = {
    "backend": "torchvision",
    "model": {"name": "retinanet", "backbone": "resnet18"},
    "data": {"format": "coco", "root": "d", "train": {"annotations": "a.json"}, "classes": ["a", "b"]},
    "schedule": {"iterations": 200, "batch_size": 2, "optimizer": {"name": "sgd", "lr": 0.1}, "decay": [0.5]},
    "balance": {"strategy": "rlo", "interval": 10, "actions": ["avw", "equal"], "p_min": 0.1},
    "evaluate": {"every": 5},
    "log": {"tensorboard": False},
    "seed": 0,
    "device": "cpu",
    "output": "out",
}

odd = st.sampled_from(
    [10**400, -(10**25), 2**63, 1e308, float("nan"), float("inf"), -0.0, 0, 1, "", "~nobody/x", "\0", ".", "rlo",
     "avw", "cuda:9", "torchvision", "mmdet", "fixed", True, None, "1e-3", "../..", "a" * 5000, b"\xff"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates() | odd
keys = st.sampled_from(sorted({"x", "strategy", "format", "iterations", *VALID})) | st.text(max_size=3)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.integers(0, 3), inner, max_size=4),
    max_leaves=10,
)


@contextmanager
def one_line() -> Iterator[None]:
    """Let a mistake's one printable line pass, and nothing else."""
    try:
        yield
    except (SpecError, BackendError) as error:
        message = str(error)
        assert "\n" not in message and len(message) < 3000
        assert error.exit_code in (2, 3)


def read(text: str | bytes, suffix: str = ".yaml", overrides: tuple[str, ...] = ()) -> None:
    content = text if isinstance(text, bytes) else text.encode("utf-8", errors="surrogatepass")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"spec{suffix}"
        path.write_bytes(content)
        with one_line():
            load_spec(path, overrides)
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]


@often
@given(
    st.text() | st.text(alphabet="ab:-[]{}!&*|>#'\"%@`,? \n\t0.", max_size=60),
    st.sampled_from([".yaml", ".toml"]),
)
def test_any_text(text: str, suffix: str) -> None:
    read(text, suffix)


@often
@given(st.binary(max_size=80))
def test_any_bytes(content: bytes) -> None:
    read(content)


@often
@given(st.dictionaries(keys, trees, max_size=8))
def test_any_tree(tree: dict[str, Any]) -> None:
    with one_line():
        parse_spec({"backend": "torchvision", **tree})


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A valid spec with one to three of its places changed, removed or added to."""
    spec = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        at: Any = spec
        while True:
            key = draw(st.sampled_from(sorted(at, key=str))) if at else "x"
            if isinstance(at.get(key), dict) and draw(st.booleans()):
                at = at[key]
                continue
            break
        what = draw(st.sampled_from(["change", "remove", "add"]))
        if what == "change":
            at[key] = draw(trees)
        elif what == "remove":
            at.pop(key, None)
        else:
            at[draw(keys)] = draw(trees)
    return spec


@often
@given(damaged())
def test_a_valid_spec_with_something_changed(tree: dict[str, Any]) -> None:
    with one_line():
        spec = parse_spec(tree)
        # What is accepted is also written and read back as the same.
        written = yaml.safe_load(yaml.safe_dump(dump_spec(spec), allow_unicode=True))
        assert dump_spec(parse_spec(written)) == dump_spec(spec)


@often
@given(st.text(max_size=20) | st.builds("{}={}".format, st.sampled_from(["balance.interval", "seed", "model", "a.b.c"]),
                                         st.text(max_size=12)))  # fmt: skip
def test_any_override(override: str) -> None:
    read(yaml.safe_dump(VALID), overrides=(override,))


@pytest.mark.parametrize(
    "text",
    [
        "backend: !!python/object/apply:os.mkdir ['{trap}']\n",
        "backend: !!python/object/new:os.mkdir ['{trap}']\n",
        "backend: !!python/name:os.mkdir ''\n",
        "&a [*a]\n",
        "[" * 20000,
        "a0: &a0 [x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
        + "backend: torchvision\ndata: *a11\n",
        "backend: torchvision\nmodel: {weights: '$(mkdir {trap})'}\n",
    ],
)
def test_hostile_text_executes_nothing(tmp_path: Path, text: str) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "spec.yaml"
    path.write_text(text.replace("{trap}", str(trap)))
    with pytest.raises(SpecError):
        load_spec(path)
    assert not trap.exists()
