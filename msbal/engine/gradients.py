"""The gradient of each level's loss: its norm on the parts of a model, and how the levels' gradients point.

A measurement is one partial backward pass for each level, by `torch.autograd.grad`. It writes no ``.grad``, runs none
of DistributedDataParallel's hooks and draws nothing, so that the training around it keeps its bits.

Shapes: K levels, n numbers of a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from msbal.engine.processes import all_gather, world_size
from msbal.engine.statistics import Array

SHARED = "shared"
"""The part of all parameters that two levels or more have a gradient for, whatever other part they belong to."""
LOSS_SCALES = (2.0**16, 2.0**8, 1.0)
"""The loss is scaled as under AMP, so that no gradient in half precision underflows; less, where one overflows. Powers
of 2, which change no bit of another gradient."""

Parts: TypeAlias = Mapping[str, Iterable[nn.Parameter]]
Backward: TypeAlias = Callable[[int, float, Sequence[nn.Parameter]], Sequence[Tensor | None]]
"""Returns the gradient of level k's loss, times a scale, for each parameter."""


class LevelGradients:
    """Measures the gradients of levels, for the parameters of a model.

    Args:
        parts: parameters by the name of the part that they belong to, such as ``backbone``, ``neck`` and ``head``.
            Those that do not require a gradient when it measures are left out.

    Attributes:
        seconds: spent on measuring so far.
        count: measurements so far.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = {name: list(parameters) for name, parameters in parts.items()}
        self.seconds, self.count = 0.0, 0

    def measure(self, losses: Tensor, backward: Backward | None = None) -> dict[str, Array]:
        """Return the Gramian ``[K, K]`` of the levels' gradients on each part, and on `SHARED`.

        In a process group it is that of the gradients averaged over all ranks, as DistributedDataParallel averages
        them: a collective. Waits for the device.

        Args:
            losses: ``[K]``, attached to the graph, which is kept.
            backward: of a level; by default that of its loss.

        Raises:
            RuntimeError: where autograd cannot run backward twice through this graph, or no parameter is trained.
        """
        if losses.is_cuda:
            torch.cuda.synchronize(losses.device)  # so that `seconds` is the measurement's own
        began = time.perf_counter()
        named = [(part, p) for part, each in self.parts.items() for p in each if p.requires_grad]
        if not named:
            raise RuntimeError("no parameter to measure gradients for requires a gradient")
        parameters = [parameter for _, parameter in named]
        of_loss = backward or (lambda k, scale, p: _gradients(losses[k] * scale, p))
        with torch.autocast(losses.device.type, enabled=False):  # backward passes do not run under it
            by_level = [_unscaled(of_loss, k, parameters) for k in range(len(losses))]
        shared = _known(by_level, losses.device).sum(dim=0) >= 2
        k = len(losses)
        found: dict[str, Array] = {
            part: np.zeros((k, k)) for part in dict.fromkeys([*(part for part, _ in named), SHARED])
        }
        for i, (part, parameter) in enumerate(named):
            gramian = _gramian([gradients[i] for gradients in by_level], parameter)
            found[part] += gramian
            if shared[i]:
                found[SHARED] += gramian
        if world_size() > 1:  # equal but for what a reduction may round differently on each
            flat = torch.from_numpy(np.stack(list(found.values()))).flatten().to(losses.device)
            found = dict(zip(found, all_gather(flat)[0].cpu().numpy().reshape(-1, k, k), strict=True))
        self.seconds += time.perf_counter() - began
        self.count += 1
        return found


def norms(gramian: Array) -> Array:
    """Return ``[K]``, the norm of each level's gradient."""
    return np.asarray(np.sqrt(np.diagonal(gramian)))


def cosines(gramian: Array) -> Array:
    """Return ``[K, K]``; 0 where a gradient is 0, and 1 on the diagonal otherwise."""
    length = norms(gramian)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.clip(gramian / np.outer(length, length), -1.0, 1.0))


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def _unscaled(of_loss: Backward, level: int, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Return a level's gradients, in float32 or better."""
    found: list[Tensor | None] = []
    for scale in LOSS_SCALES:
        found = [
            None
            if gradient is None
            else gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / scale
            for gradient in of_loss(level, scale, parameters)
        ]
        finite = [torch.isfinite(gradient).all() for gradient in found if gradient is not None]
        if not finite or bool(torch.stack(finite).all()):
            break
    return found


def _known(by_level: list[list[Tensor | None]], device: torch.device) -> Tensor:
    """Return a mask ``[K, parameters]`` of the gradients that any rank has."""
    mask = torch.tensor(
        [[float(gradient is not None) for gradient in each] for each in by_level], device=device
    )
    return all_gather(mask.flatten()).amax(dim=0).view(mask.shape).bool().cpu()


def _gramian(gradients: list[Tensor | None], like: nn.Parameter) -> Array:
    """Return ``[K, K]``, of the gradients for one parameter, averaged over ranks."""
    zero = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    rows = torch.stack([(zero if g is None else g).flatten() for g in gradients])
    if world_size() > 1:
        dist.all_reduce(rows)
        rows /= world_size()
    rows = rows.double()
    return (rows @ rows.T).cpu().numpy()
