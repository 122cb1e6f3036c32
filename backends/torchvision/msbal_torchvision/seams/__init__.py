"""Where torchvision's losses become level losses; one file a head."""

from msbal_torchvision.seams.installer import install
from msbal_torchvision.seams.seam import Seam, UnsplittableModelError

__all__ = ["Seam", "UnsplittableModelError", "install"]
