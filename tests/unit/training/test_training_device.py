"""The device that a spec names is there."""

from __future__ import annotations

import pytest
import torch

from msbal.errors import SpecError
from msbal.training.distributed import resolve_device


@pytest.mark.parametrize(
    ("there", "name", "said"),
    [
        (1, "cuda:1", "device: `cuda:1`, but torch sees 1 GPU; expected cuda:0, cpu or auto"),
        (4, "cuda:77", "device: `cuda:77`, but torch sees 4 GPUs; expected cuda:0 to cuda:3, cpu or auto"),
    ],
)
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, there: int, name: str, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(SpecError) as error:
        resolve_device(name)
    assert str(error.value) == said
    assert resolve_device("cuda:0") == torch.device("cuda:0")
