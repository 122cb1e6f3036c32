"""Data sets: COCO, VOC and YOLO folders read and checked, and one that is generated.

No framework here, and pixels are decoded only where a caller asks for them: every reader gives `DetectionData`.
"""

from msbal.data.coco.read_coco import read_coco
from msbal.data.detection_data import DetectionData, DroppedBox, ImageRecord, subset
from msbal.data.generated.generate import generate, read_generated
from msbal.data.images.image_files import read_pixels
from msbal.data.recognition.recognise import recognise
from msbal.data.remarks import remarks, shared_images
from msbal.data.sizing import Sizing, size_range, size_up
from msbal.data.splits import hold_out, load
from msbal.data.voc.read_voc import VOC_CLASSES, read_voc
from msbal.data.yolo.read_yolo import read_yolo

__all__ = [
    "VOC_CLASSES",
    "DetectionData",
    "DroppedBox",
    "ImageRecord",
    "Sizing",
    "generate",
    "hold_out",
    "load",
    "read_coco",
    "read_generated",
    "read_pixels",
    "read_voc",
    "read_yolo",
    "recognise",
    "remarks",
    "shared_images",
    "size_range",
    "size_up",
    "subset",
]
