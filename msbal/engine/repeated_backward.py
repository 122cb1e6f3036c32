"""Backward passes through a graph that will be gone through again: none may change what the next one finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils import _python_dispatch as dispatch

_ALIKE = 1e-2  # of a gradient, which may be summed in another order, or in half precision
_REENTRANT = "use_reentrant=True"
_AGAIN = (
    "set torch._functorch.config.donated_buffer = False at the start of the script, and in its environment once "
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES=1"
)
CAUSES = {
    _REENTRANT: "its activation checkpointing is reentrant; call checkpoint() with use_reentrant=False",
    "donated": f"it is compiled for a single backward pass; {_AGAIN}",
}


class GradientError(RuntimeError):
    """The levels' gradients cannot be measured; the text says why."""


class SpoiltGraphError(GradientError):
    """The measurement has changed what the training's own backward pass will find."""


def may_change(loss: Tensor) -> bool:
    """Return whether a backward pass runs code that may spoil the next: any that is not PyTorch's own.

    Raises: GradientError, where a partial backward pass is known to go wrong.
    """
    nodes = list(_graph(loss))
    for node in nodes:
        kind = type(node).__name__
        if kind == "CheckpointFunctionBackward":
            raise GradientError(CAUSES[_REENTRANT])  # without an error it may leave out what is within
        if kind == "_DDPSinkBackward" and (ddp := node.ddp_weakref()) is not None and ddp.static_graph:
            raise GradientError(
                "DistributedDataParallel takes the first partial backward pass for the whole; make it without "
                "static_graph=True"
            )
    return any(isinstance(node, torch.autograd.function.BackwardCFunction) for node in nodes)


def require_alike(first: Sequence[Tensor | None], second: Sequence[Tensor | None]) -> None:
    """Refuse a graph whose first backward pass spoils the next. Raises: SpoiltGraphError."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    apart = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    if apart > _ALIKE**2 * sum(float(a.double().square().sum()) for a, _ in pairs):
        raise SpoiltGraphError(f"its first backward pass changes the second; if it is compiled, {_AGAIN}")


@contextmanager
def recomputation_undone(device: torch.device) -> Iterator[None]:
    """Undo what activation checkpointing does in a backward pass: running statistics, and draws.

    Raises: GradientError, within the pass, where it would serve no other.
    """
    kept: dict[tuple[nn.Module, str], tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, _: Any) -> None:
        modes = dispatch._get_current_dispatch_mode_stack()
        if any(type(mode).__name__ == "_CachedTorchDispatchMode" for mode in modes):
            raise GradientError(
                "its selective activation checkpointing serves one backward pass; call checkpoint() without context_fn"
            )
        for name, buffer in module.named_buffers(recurse=False):
            if (module, name) not in kept:
                kept[module, name] = buffer, buffer.clone()

    hook = register_module_forward_pre_hook(keep)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        hook.remove()
        for (module, name), (buffer, before) in kept.items():
            module._buffers[name] = buffer
            buffer.data.copy_(before)  # .data: the graph may have it saved, and would refuse another version


def _graph(loss: Tensor) -> Iterator[Any]:
    """Yield the nodes of its graph."""
    todo, seen = [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
            yield node
