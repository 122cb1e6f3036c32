"""A run: plan it, claim its folder, execute it."""

from msbal.training.execute import Outcome, claim, execute, gather_predictions, latest_checkpoint
from msbal.training.plan import Plan, make_balancers, prepare, read_data, ready_backend, seed_everything

__all__ = [
    "Outcome",
    "Plan",
    "claim",
    "execute",
    "gather_predictions",
    "latest_checkpoint",
    "make_balancers",
    "prepare",
    "read_data",
    "ready_backend",
    "seed_everything",
]
