"""The objects' outlines, as detectron2 takes them."""

from __future__ import annotations

from typing import Any, ClassVar

from msbal.data import ImageRecord
from msbal.data.coco import outlines

_CORNERS = 3


class Outlines(outlines.Outlines):
    """See `msbal.data.coco.outlines`."""

    instead: ClassVar[str] = (
        "override MODEL.MASK_ON=False (in a LazyConfig model.roi_heads.mask_in_features=null)"
    )

    def of(self, record: ImageRecord) -> list[Any]:
        """The same; an outline of less than three corners is an empty list: detectron2 leaves such objects out."""
        return [_checked(outline) for outline in super().of(record)]


def _checked(outline: Any) -> Any:
    """As ``detectron2.data.datasets.load_coco_json`` does."""
    if outline is None:
        return None
    if isinstance(outline, dict):
        if isinstance(outline["counts"], list):
            from pycocotools import mask

            outline = mask.frPyObjects(outline, *outline["size"])
        return outline
    return [polygon for polygon in outline if len(polygon) % 2 == 0 and len(polygon) >= 2 * _CORNERS]
