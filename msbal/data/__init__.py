"""Data sets: COCO, VOC and YOLO folders read and checked, and one that is generated.

Nothing here decodes pixels or knows a framework: every reader gives `DetectionData`.
"""

from msbal.data.coco import read_coco
from msbal.data.generated import generate, read_generated
from msbal.data.load import load
from msbal.data.model import DetectionData, DroppedBox, ImageRecord, subset
from msbal.data.split import hold_out
from msbal.data.voc import VOC_CLASSES, read_voc
from msbal.data.yolo import read_yolo

__all__ = [
    "VOC_CLASSES",
    "DetectionData",
    "DroppedBox",
    "ImageRecord",
    "generate",
    "hold_out",
    "load",
    "read_coco",
    "read_generated",
    "read_voc",
    "read_yolo",
    "subset",
]
