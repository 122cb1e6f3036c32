"""A checkpoint with any bytes changed or missing loads or is refused in one line; nothing else happens.

``MSBAL_FUZZ_EXAMPLES=10000`` runs this as often.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.errors import SpecError
from msbal_torchvision import checkpoints


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
            checkpoints.load(path)
        except SpecError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
