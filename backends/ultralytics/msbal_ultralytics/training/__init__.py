"""Training: ultralytics' recipe and samples, in a loop of msbal's that can stop and resume at any iteration."""

from msbal_ultralytics.training.loop import CHECKPOINTS, Trainer

__all__ = ["CHECKPOINTS", "Trainer"]
