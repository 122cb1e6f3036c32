"""Where torchvision's losses become level losses; one file a head."""

from msbal_torchvision.splitters.find import find

__all__ = ["find"]
