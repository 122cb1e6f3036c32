"""An imitation of a GPU, to find out where the host would wait for one.

torch's meta device has no values, so that reading one raises an error. Copies to the host, for which a real card makes
the host wait, are counted here and return random numbers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Card(TorchDispatchMode):
    """Counts the operators that run within its ``with`` block on tensors of the meta device.

    Attributes:
        waits: copies for which the host would wait.
        calls: operators, by name (``aten.copy_``).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = 0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator, and run it."""
        kwargs = kwargs or {}
        name = str(func.overloadpacket)
        if name == "aten._to_copy":
            source, target = args[0].device, torch.device(kwargs.get("device") or args[0].device)
            if source.type == "meta" and target.type == "cpu":
                self.waits += 1
                return torch.rand(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype) + 0.1
            self.waits += source != target and not kwargs.get("non_blocking")
        if name == "aten.copy_":
            self.waits += args[0].device != args[1].device
        self.calls[name] += 1
        return func(*args, **kwargs)
