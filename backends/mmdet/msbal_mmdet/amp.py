"""Mixed precision where mmengine's own ``AmpOptimWrapper`` refuses to: bfloat16 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass under ``torch.autocast("cpu", torch.bfloat16)``.

    bfloat16 has float32's range: no loss is scaled.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[Any]:
        """The forward pass of one batch, and the gradient accumulation that mmengine adds to it."""
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
