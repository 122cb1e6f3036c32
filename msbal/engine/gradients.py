"""The gradient of each level's loss: its norm on the parts of a model, and how the levels' gradients point.

A measurement is one partial backward pass for each level, by `torch.autograd.grad`. It writes no ``.grad``, runs none
of DistributedDataParallel's hooks, and undoes what recomputation changes, so that the training around it keeps its
bits.

Shapes: K levels, P parameters, n numbers of a parameter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from msbal.engine.processes import all_gather, world_size
from msbal.engine.record import SHARED as SHARED
from msbal.engine.repeated_backward import CAUSES, may_change, recomputation_undone, require_alike
from msbal.engine.repeated_backward import GradientError as GradientError
from msbal.engine.repeated_backward import SpoiltGraphError as SpoiltGraphError
from msbal.engine.statistics import Array

MODEL = "model"
"""The one part of parameters that are given without parts."""
LOSS_SCALES = (2.0**16, 2.0**8, 1.0)
"""The loss is scaled as under AMP, so that no gradient in half precision underflows; less, where one overflows. Powers
of 2, which change no bit of another gradient."""

Parts: TypeAlias = Mapping[str, Iterable[nn.Parameter]]

_COLUMNS, _COLUMNS_CPU = 2**20, 2**16  # of float64 numbers at a time, which a CPU has room for in its cache
_FINE, _FAILED, _SPOILT, _NO_MEMORY = range(4)


class LevelGradients:
    """Measures the gradients of levels, for the parameters of a model.

    A copy within a deep copy of the model measures the copied parameters.

    Args:
        parameters: of the model; or, by name, those of its parts, such as ``backbone``, ``neck`` and ``head``. Those
            that do not require a gradient when it measures are left out.

    Attributes:
        parts: the parameters by part.
        count: measurements so far.
        failed: those that raised an error.
        seconds: spent on both.

    Raises:
        ValueError: where they are something else.
    """

    def __init__(self, parameters: Iterable[nn.Parameter] | Parts) -> None:
        parts = parameters if isinstance(parameters, Mapping) else {MODEL: parameters}
        wrong: list[Any] = [each for each in parts.values() if not isinstance(each, Iterable)]
        # In a dictionary for their order; tensors are equal to themselves alone there.
        self.parts = {name: list(dict.fromkeys(each)) for name, each in parts.items()} if not wrong else {}
        wrong += [each for part in self.parts.values() for each in part if not isinstance(each, Tensor)]
        if wrong or SHARED in parts:
            found = f"a {type(wrong[0]).__name__}" if wrong else f"a part named {SHARED!r}"
            raise ValueError(
                f"parameters should be a model's parameters(), or those of each part by its name. Found {found}."
            )
        self.count = self.failed = 0
        self.seconds = 0.0

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter] | Parts | LevelGradients) -> LevelGradients:
        """Return it as it is, so that several balancers share it, or make one of parameters."""
        return parameters if isinstance(parameters, LevelGradients) else cls(parameters)

    def measure(self, losses: Tensor) -> dict[str, Array]:
        """Return the Gramian ``[K, K]`` of the levels' gradients on each part, and on `SHARED`.

        In a process group it is that of the gradients averaged over all ranks, as DistributedDataParallel averages
        them: a collective, which returns or raises the same on all. Waits for the device. It takes the memory of K
        gradients of the model, and hooks on tensors and modules see each level's pass.

        Args:
            losses: ``[K]``, attached to the graph, which is kept.

        Returns:
            NaN or infinity where a loss or a gradient is not finite.

        Raises:
            GradientError: where nothing is trained, or autograd cannot run backward twice through this graph. As
                `SpoiltGraphError` where it can, but to another result, which the first measurement finds out.
            OutOfMemoryError: where a device has not enough memory.
        """
        began = _clock(losses.device)
        trained = list(dict.fromkeys(p for part in self.parts.values() for p in part if p.requires_grad))
        try:
            gramians = self._gramians(losses, trained)
        except RuntimeError:
            self.failed += 1
            raise
        finally:
            self.seconds += _clock(losses.device) - began
        self.count += 1
        place = {parameter: i for i, parameter in enumerate(trained)}
        found = {
            name: gramians[[place[p] for p in part if p in place]].sum(axis=0)
            for name, part in self.parts.items()
        }
        several = (np.diagonal(gramians, axis1=1, axis2=2) != 0).sum(axis=1) >= 2  # NaN too
        return found | {SHARED: gramians[several].sum(axis=0)}

    def _gramians(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> Array:
        """Return ``[P, K, K]``, the Gramian of the levels' gradients for each parameter, the same on all ranks."""
        levels, device = len(losses), losses.device
        gradients: list[Sequence[Tensor | None]] = [()] * levels
        scales, found = np.ones(levels), np.zeros((len(parameters), levels, levels))
        pending: Sequence[int] = range(levels)
        for scale in LOSS_SCALES:
            state, why = _FINE, ""
            try:
                # A backward pass does not run under autocast.
                with torch.autocast(device.type, enabled=False):
                    changes = self.count == 0 and self._may_change(losses)
                    for k in pending if parameters else ():
                        gradients[k], scales[k] = self._gradients(losses, k, scale, parameters), scale
                    if changes and parameters:
                        k = int(losses.detach().abs().argmax())
                        require_alike(gradients[k], self._gradients(losses, k, float(scales[k]), parameters))
                # What the products take, so that no rank runs out of memory between the others' collectives.
                largest = max((p.numel() for p in parameters), default=0)
                torch.empty(16 * levels * largest, dtype=torch.uint8, device=device)
            except GradientError as error:
                state, why = _SPOILT if isinstance(error, SpoiltGraphError) else _FAILED, str(error)
            except Exception as error:  # not kept: it would keep the gradients
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                short = isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in text
                state = _NO_MEMORY if short else _FAILED
                why = next((CAUSES[sign] for sign in CAUSES if sign in text), text)
            _agree(state, why, parameters, gradients, device)
            products = torch.stack(
                [products_of(p, [each[i] for each in gradients]).to(device) for i, p in enumerate(parameters)]
            )
            if world_size() > 1:
                dist.broadcast(products, 0)  # a rank may round otherwise
            found = products.cpu().numpy() / np.outer(scales, scales)
            pending = [k for k in range(levels) if not np.isfinite(found[:, k, k]).all()]
            if not pending:
                break
        return found

    @contextmanager
    def _loss(self, losses: Tensor, level: int) -> Iterator[Tensor]:
        """Yield a scalar that has, for as long as this lasts, the gradient of a level's loss."""
        yield losses[level]

    def _may_change(self, losses: Tensor) -> bool:
        with torch.enable_grad(), self._loss(losses, 0) as loss:
            return may_change(loss)

    def _gradients(
        self, losses: Tensor, level: int, scale: float, parameters: Sequence[nn.Parameter]
    ) -> Sequence[Tensor | None]:
        with torch.enable_grad(), self._loss(losses, level) as loss:
            if not loss.requires_grad:
                return [None] * len(parameters)
            with recomputation_undone(losses.device):
                return torch.autograd.grad(loss * scale, parameters, retain_graph=True, allow_unused=True)


def norms(gramian: Array) -> Array:
    """Return ``[K]``, the norm of each level's gradient."""
    return np.asarray(np.sqrt(np.diagonal(gramian)))


def cosines(gramian: Array) -> Array:
    """Return ``[K, K]``; 0 where a gradient is 0, and 1 on the diagonal otherwise."""
    length = norms(gramian)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.nan_to_num(np.clip(gramian / np.outer(length, length), -1.0, 1.0))
    np.fill_diagonal(found, length > 0)
    return found


def products_of(parameter: nn.Parameter, gradients: Sequence[Tensor | None]) -> Tensor:
    """Return ``[K, K]`` float64, of the gradients for one parameter, averaged over ranks."""
    levels, n, cpu = len(gradients), parameter.numel(), parameter.device.type == "cpu"
    zero = parameter.detach().new_zeros(()).expand(n)
    flat = [zero if gradient is None else gradient.reshape(-1) for gradient in gradients]
    if world_size() > 1:
        rows = torch.stack(flat).to(torch.promote_types(parameter.dtype, torch.float32))
        dist.all_reduce(rows)
        flat = list(rows.div_(world_size()))
    columns = max(1, min(n, _COLUMNS_CPU if cpu else _COLUMNS))
    wide = zero.new_empty(levels, columns, dtype=torch.float64)
    found = zero.new_zeros(levels, levels, dtype=torch.float64)
    for start in range(0, n, columns):
        block = wide[:, : n - start]
        for row, one in zip(block, flat, strict=True):
            row.copy_(one[start : start + columns])
        found += block @ block.T
    return found


def _agree(
    state: int,
    why: str,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Sequence[Tensor | None]],
    device: torch.device,
) -> None:
    """Raise the same kind of error on all ranks, where one of them cannot go on, or they do not fit together."""
    size = sum(parameter.numel() for parameter in parameters)
    reached = any(gradient is not None for each in gradients for gradient in each)
    own = torch.tensor([state, size, reached], dtype=torch.float64, device=device)
    states, sizes, reaches = all_gather(own).cpu().numpy().T
    if (states == _NO_MEMORY).any():
        raise torch.cuda.OutOfMemoryError(why or "another process has not enough memory")
    for kind, error in ((_SPOILT, SpoiltGraphError), (_FAILED, GradientError)):
        if (states == kind).any():
            raise error(why or "another process cannot measure them")
    if (sizes != size).any():
        raise GradientError("the processes train different parameters")
    if not size:
        raise GradientError("none of the parameters requires a gradient")
    if not reaches.any():
        raise GradientError("no loss has a gradient for any of the parameters; are they this model's?")


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
