"""A checkpoint with any bytes changed or missing loads or is refused in one line; nothing else happens.

``MSBAL_FUZZ_EXAMPLES=10000`` runs this as often.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_torchvision import make_data, run_in

from msbal.errors import SpecError
from msbal.training import checkpoints
from msbal.training.tensors import read_tensors
from msbal_torchvision.training import CHECKPOINTS
from msbal_torchvision.training.loop import Trainer


def _whole() -> bytes:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "iteration": 7, "model": layer.state_dict(), "optimizer": optimizer.state_dict(),
        "scheduler": {"last_epoch": 7}, "scaler": {}, "balancers": {"all.weights": torch.ones(5)},
    }  # fmt: skip
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


WHOLE = _whole()
changes = st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8)


@settings(max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "100")), deadline=None)
@given(changes, st.one_of(st.none(), st.integers(0, len(WHOLE))), st.binary(max_size=4))
def test_damaged_checkpoints(changed: list[tuple[int, int]], length: int | None, more: bytes) -> None:
    content = bytearray(WHOLE)
    for at, value in changed:
        content[at] = value
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoints.path_of(Path(folder), 7)
        path.write_bytes(bytes(content[:length]) + more)
        try:
            CHECKPOINTS.load(path)
        except SpecError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000


@pytest.mark.parametrize("kind", ["deflated", "overlapping"])
def test_an_archive_that_grows_is_refused_unread(tmp_path: Path, kind: str) -> None:
    """A thousandfold of the file's own size, which torch would unpack into memory."""
    path = checkpoints.path_of(tmp_path, 7)
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
    ) as archive:
        archive.writestr("archive/data.pkl", bytes(20_000_000 if kind == "deflated" else 2_000_000))
        if kind == "overlapping":
            # Many names for the same bytes.
            one = archive.infolist()[0]
            for number in range(1000):
                other = copy.copy(one)
                other.filename = f"archive/data/{number}"
                archive.filelist.append(other)
    with pytest.raises(SpecError, match="grows when it is read"):
        CHECKPOINTS.load(path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("inside", ["pickle", "zip"])
def test_a_pickle_that_runs_code_runs_none(tmp_path: Path, protocol: int, inside: str) -> None:
    trap = tmp_path / "trap"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(trap),))

    path = checkpoints.path_of(tmp_path, 7)
    code = pickle.dumps({"iteration": 7, "model": Bomb()}, protocol=protocol)
    if inside == "pickle":
        path.write_bytes(code)
    else:
        with zipfile.ZipFile(io.BytesIO(WHOLE)) as whole, zipfile.ZipFile(path, "w") as archive:
            for name in whole.namelist():
                archive.writestr(name, code if name.endswith("data.pkl") else whole.read(name))
    for read in (CHECKPOINTS.load, read_tensors):
        with pytest.raises(SpecError, match=r"never run|cannot be read|is a text file"):
            read(path)
    assert not trap.exists()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from([10**30, -1]) | st.sampled_from([(), (2,), (3, 1), (2, 3)]).map(torch.zeros),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["params", "lr", "state", "param_groups", "x"]) | st.integers(0, 3), inner, max_size=3
    ),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("trainer")
    run = run_in(folder, make_data(folder / "images"), model={"fpn_channels": 8})
    return Trainer(run.detector, run.detector.device, run.job, total=6)


@settings(
    max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "60")), deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(st.data())
def test_whole_files_with_something_else_inside(trainer: Trainer, data: st.DataObject) -> None:
    """What loads safely need not be what the run needs: one line then, too."""
    state: Any = dict(trainer.state())
    for _ in range(data.draw(st.integers(1, 2))):
        part = data.draw(st.sampled_from(sorted(state)))
        if isinstance(state[part], dict) and state[part] and data.draw(st.booleans()):
            inner = dict(state[part])
            inner[data.draw(st.sampled_from(sorted(inner, key=str)))] = data.draw(values)
            state[part] = inner
        else:
            state[part] = data.draw(values)
    try:
        trainer.restore(copy.deepcopy(state))
    except SpecError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
