"""The learning rate that a spec's schedule asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from msbal.spec import ScheduleSpec

WARMUP_START = 1e-3
MAX_WARMUP = 500


class LearningRate:
    """The learning rate's factor, a pure function of the iteration, so that it resumes exactly.

    Args:
        spec: its `warmup` (by default 500 iterations, at most a tenth of the run), `scheduler` and `decay` are used.
        total: iterations of the run.
    """

    def __init__(self, spec: ScheduleSpec, total: int) -> None:
        self.kind, self.total = spec.scheduler or "step", total
        self.warmup = min(MAX_WARMUP, total // 10) if spec.warmup is None else spec.warmup
        decay = (8 / 12, 11 / 12) if spec.decay is None else spec.decay
        self.milestones = [round(fraction * total) for fraction in decay]

    def __call__(self, done: int) -> float:
        """Return the factor for the iteration after `done` others."""
        warm = 1.0
        if done < self.warmup:
            warm = WARMUP_START + (1 - WARMUP_START) * done / self.warmup
        if self.kind == "step":
            return float(warm * 0.1 ** sum(done >= milestone for milestone in self.milestones))
        if self.kind == "cosine":
            progress = torch.tensor(min(1.0, done / max(1, self.total)), dtype=torch.float64)
            return float(warm * 0.5 * (1 + torch.cos(torch.pi * progress)))
        return warm
