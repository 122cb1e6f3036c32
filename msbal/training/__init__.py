"""A run: plan it, claim its folder, execute it."""

from msbal.training.execute import Outcome, claim, execute
from msbal.training.plan import Plan, make_balancers, prepare, read_data, ready_backend
from msbal.training.resume import choose_checkpoint

__all__ = [
    "Outcome", "Plan", "choose_checkpoint", "claim", "execute", "make_balancers", "prepare", "read_data",
    "ready_backend",
]  # fmt: skip
