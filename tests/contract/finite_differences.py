"""Each level's gradient against differences of its loss: what is measured is the derivative of what is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from msbal.backend import load_backend
from msbal.backend.kit.determinism import precise
from msbal.backend.kit.seeding import seed_everything
from msbal.engine import LevelGradients
from msbal.spec import parse_spec
from msbal.testing.backend_runs import raw_spec
from msbal.training import read_data

STEP = 1e-4
"""Relative to each parameter: large enough for float32, small enough for ReLUs."""


class FiniteDifferences:
    """Subclass it for a backend, as `BackendContract`.

    Attributes:
        case: a raw spec without ``data``, ``balance`` and ``output``, of one group.
    """

    case: ClassVar[dict[str, Any]]

    def kept_targets(self, detector: Any) -> AbstractContextManager[Any]:
        """Keep the targets of the first pass, for an assigner that goes by predictions: no gradient is of them."""
        return nullcontext()

    def test_each_levels_gradient_is_the_slope_of_its_loss(self, tmp_path: Path) -> None:
        spec = parse_spec(raw_spec(self.case, tmp_path, "cpu"))
        data, _ = read_data(spec)
        seed_everything(0)
        detector = load_backend(spec.backend).build(spec, data.classes)
        batch = detector.batch(data, [0, 1])
        parameters = [p for p in detector.model.parameters() if p.requires_grad]

        def losses() -> Tensor:
            seed_everything(0)
            (found,) = detector.split_losses(batch).groups.values()
            return found.values.sum(dim=0)

        with precise(), self.kept_targets(detector):
            gradients = _gradients(losses(), parameters)
            gramian = LevelGradients(parameters).measure(losses())["model"]
            assert gramian.diagonal() == pytest.approx(
                (gradients.double() ** 2).sum(dim=1).tolist(), rel=1e-3
            )
            for seed in range(2):
                direction = _direction(parameters, seed)
                slopes = _slopes(losses, parameters, direction)
                found = gradients @ torch.cat([d.flatten() for d in direction])
                # Of all levels together, as one with few positives changes less than float32 tells.
                assert slopes.tolist() == pytest.approx(
                    found.tolist(), rel=0.03, abs=0.03 * float(found.abs().max())
                )


def _gradients(losses: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
    rows = []
    for loss in losses:
        own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, own, strict=True)]
        rows.append(torch.cat([g.flatten() for g in zeros]))
    return torch.stack(rows)


def _direction(parameters: list[torch.nn.Parameter], seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    noise = [torch.randn(p.shape, generator=draw) for p in parameters]
    return [n * (p.norm() / n.norm()) for n, p in zip(noise, [p.detach() for p in parameters], strict=True)]


@torch.no_grad()
def _slopes(losses: Any, parameters: list[torch.nn.Parameter], direction: list[Tensor]) -> Tensor:
    """Return ``[K]``, the central differences."""
    start, ends = [p.clone() for p in parameters], []
    for sign in (1.0, -1.0):
        for p, own, d in zip(parameters, start, direction, strict=True):
            p.copy_(own + sign * STEP * d)
        with torch.enable_grad():
            ends.append(losses().detach().double())
    for p, own in zip(parameters, start, strict=True):
        p.copy_(own)
    return (ends[0] - ends[1]).float() / (2 * STEP)


@contextmanager
def kept_results(owner: Any, method: str) -> Iterator[None]:
    """Let ``owner.method(...)`` return again what it returned first."""
    first: list[Any] = []
    own = getattr(owner, method)

    def kept(*args: Any, **kwargs: Any) -> Any:
        if not first:
            first.append(own(*args, **kwargs))
        return first[0]

    setattr(owner, method, kept)
    try:
        yield
    finally:
        delattr(owner, method)
