"""Turns torchvision's losses into level losses, one file a head."""

from msbal_torchvision.splitters.find import find

__all__ = ["find"]
