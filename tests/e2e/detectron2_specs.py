"""Small detectron2 runs, for the tests: specs, a LazyConfig of one's own, data in COCO's and VOC's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from msbal.data import load
from msbal.spec import parse_spec

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
SIDE = 96
SMALL = [
    "MODEL.RESNETS.NORM=BN",  # frozen at random values, fifty layers explode
    "MODEL.BACKBONE.FREEZE_AT=0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS=8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16",
    "MODEL.RESNETS.WIDTH_PER_GROUP=4",
    "MODEL.FPN.OUT_CHANNELS=32",
    "MODEL.RETINANET.NUM_CONVS=1",
    "MODEL.ROI_BOX_HEAD.FC_DIM=32",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN=100",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=50",
    f"INPUT.MIN_SIZE_TRAIN=({SIDE},)",
    f"INPUT.MIN_SIZE_TEST={SIDE}",
]
FCOS = Path(__file__).parents[1] / "contract" / "detectron2_fcos.py"
GENERATED = {"format": "generated", "train_images": 6, "val_images": 2, "size": SIDE}


def write_spec(folder: Path, config: str = RETINANET, **sections: Any) -> Path:
    """``spec.yaml`` in `folder`, which trains in a second or two.

    Args:
        sections: merged into those of the same name.
    """
    spec: dict[str, Any] = {
        "backend": "detectron2",
        "model": {"config": config, "overrides": SMALL if config.endswith(".yaml") else []},
        "data": {**GENERATED, "root": str(folder / "data")},
        "schedule": {"iterations": 6, "batch_size": 1, "workers": 0, "warmup": 2, "optimizer": {"lr": 1e-3}},
        "balance": {"strategy": "rlo", "interval": 2, "seed": 5},
        "device": "cpu",
    }
    for name, section in sections.items():
        if isinstance(section, dict) and section.get("format") is None:
            spec[name] = {**spec.get(name, {}), **section}
        else:
            spec[name] = section
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def write_lazy(folder: Path) -> Path:
    """A LazyConfig of one's own."""
    path = folder / "mine.py"
    path.write_text(FCOS.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def generated(folder: Path) -> Any:
    """The images of shapes that the specs train on."""
    spec = parse_spec(
        {
            "backend": "detectron2",
            "model": {"config": RETINANET},
            "data": {**GENERATED, "root": str(folder / "data")},
            "output": "unused",
        }
    )
    return load(spec.data, "train")


def write_coco(folder: Path) -> Path:
    """``train.json``: the images in COCO's format; each object's mask is the diamond in its box."""
    document = generated(folder).to_coco()
    for annotation in document["annotations"]:
        x, y, w, h = annotation["bbox"]
        diamond = [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]
        annotation["segmentation"] = [diamond]
    path = folder / "train.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def write_voc(folder: Path) -> Path:
    """The images as ``VOCdevkit/VOC2007``."""
    data = generated(folder)
    root = folder / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for image in data.images:
        with Image.open(image.path) as opened:
            opened.convert("RGB").save(root / "JPEGImages" / f"{image.id:06d}.jpg")
        objects = "".join(
            f"<object><name>{data.classes[label]}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1:.0f}</xmin>"
            f"<ymin>{y1 + 1:.0f}</ymin><xmax>{x2:.0f}</xmax><ymax>{y2:.0f}</ymax></bndbox></object>"
            for (x1, y1, x2, y2), label in zip(image.boxes.tolist(), image.labels.tolist(), strict=True)
        )
        (root / "Annotations" / f"{image.id:06d}.xml").write_text(
            f"<annotation><filename>{image.id:06d}.jpg</filename><size><width>{image.width}</width>"
            f"<height>{image.height}</height><depth>3</depth></size>{objects}</annotation>"
        )
    names = [f"{image.id:06d}" for image in data.images]
    (root / "ImageSets/Main/trainval.txt").write_text("\n".join(names) + "\n")
    (root / "ImageSets/Main/test.txt").write_text("\n".join(names[:2]) + "\n")
    return root.parent
