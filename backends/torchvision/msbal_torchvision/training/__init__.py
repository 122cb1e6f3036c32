"""Training: a plain loop around torch's own optimizers, gradient scaler, weight averaging and parallel wrapper."""

from msbal_torchvision.training.loop import CHECKPOINTS, Trainer

__all__ = ["CHECKPOINTS", "Trainer"]
