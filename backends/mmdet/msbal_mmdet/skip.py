"""Leaves out optimizer steps whose loss or gradient was not finite (``on_nonfinite: skip``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class SkipNonFinite:
    """Stands between an ``OptimWrapper`` and its ``step``.

    The backward pass still runs: DistributedDataParallel waits for it on every rank. Whether to step is
    asked of the device once a step, which is a wait that training without this does not have.

    Args:
        wrapper: mmengine's.

    Attributes:
        skipped: steps left out.
        say: told of a step left out though every loss was finite; the losses themselves are in the records.
    """

    def __init__(self, wrapper: Any) -> None:
        self.wrapper, self.skipped = wrapper, 0
        self.say: Callable[[str], None] = lambda text: None
        self._bad: Tensor | None = None
        self._scale, self._step = wrapper.scale_loss, wrapper.step
        self._before = {name: vars(wrapper).get(name) for name in ("scale_loss", "step")}
        vars(wrapper)["scale_loss"] = self.scale_loss
        vars(wrapper)["step"] = self.step

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Note whether a loss of this step is finite."""
        bad = ~torch.isfinite(loss.detach())
        self._bad = bad if self._bad is None else self._bad | bad
        result: Tensor = self._scale(loss)
        return result

    def step(self, **kwargs: Any) -> None:
        """Step unless a loss since the last step, or what came of it, was not finite, on any rank."""
        bad, self._bad = self._bad, None
        if bad is not None:
            flags = torch.stack([bad, self._spoilt(bad)]).to(torch.float32)
            if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                dist.all_reduce(flags, dist.ReduceOp.MAX)
            loss, gradient = flags.tolist()
            if loss or gradient:
                self.skipped += 1
                if not loss:
                    self.say("the gradient of a finite loss is not finite")
                return
        self._step(**kwargs)

    def _spoilt(self, like: Tensor) -> Tensor:
        """Whether a gradient is not finite; fp16's scaler looks at its own, which it has to find now and then."""
        groups = self.wrapper.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not gradients or hasattr(self.wrapper, "loss_scaler"):
            return torch.zeros_like(like)
        return ~torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all()

    def remove(self) -> None:
        """Give the wrapper the methods back that it had."""
        for name, before in self._before.items():
            vars(self.wrapper).pop(name, None)
            if before is not None:
                vars(self.wrapper)[name] = before
