"""Training: a plain loop around torch's own optimizer, scaler, averaging and parallel wrapper."""

from msbal_torchvision.training.loop import train

__all__ = ["train"]
