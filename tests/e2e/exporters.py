"""The same few images as each exporter of annotations writes them: folders, names, spellings and leftovers.

Every maker gets an empty folder and the images of each split, by stem.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

CLASSES = ("kettle", "lamp")
WIDTH, HEIGHT = 80, 64
Box = tuple[int, int, int, int]  # x1, y1, x2, y2
TRUTH: dict[str, list[tuple[str, Box]]] = {
    "p0": [("kettle", (8, 4, 40, 36)), ("lamp", (44, 20, 76, 60))],
    "p1": [("lamp", (0, 16, 24, 48))],
    "p2": [],
    "p3": [("kettle", (32, 8, 72, 48))],
    "p4": [("lamp", (16, 32, 48, 64)), ("kettle", (40, 0, 80, 24))],
    "p5": [("kettle", (24, 12, 56, 44))],
}
TRAIN, VAL = ("p0", "p1", "p2", "p3"), ("p4", "p5")


def image(path: Path, stem: str) -> None:
    """The image of `stem`, a rectangle for each of its boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.new("RGB", (WIDTH, HEIGHT), (90, 100, 90))
    for name, box in TRUTH[stem]:
        drawn.paste((220, 40, 40) if name == "kettle" else (40, 60, 220), box)
    drawn.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def coco(
    path: Path, stems: Iterable[str], name: str = "{}.jpg", first: int = 1, above: str | None = None
) -> None:
    """A COCO file.

    Args:
        name: of an image of a stem.
        first: the id of the first category.
        above: an unused category before the others.
    """
    super_ = {} if above is None else {"supercategory": above}
    categories = [{"id": first + n, "name": one, **super_} for n, one in enumerate(CLASSES)]
    if above is not None:
        categories.insert(0, {"id": first - 1, "name": above, "supercategory": "none"})
    images, annotations = [], []
    for number, stem in enumerate(stems):
        images.append({"id": number, "file_name": name.format(stem), "width": WIDTH, "height": HEIGHT})
        for category, (x1, y1, x2, y2) in TRUTH[stem]:
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": first + CLASSES.index(category),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": [], "iscrowd": 0,
            })  # fmt: skip
    text(path, json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def voc(path: Path, stem: str) -> None:
    """An XML file; Roboflow's order of the corners."""
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{x1 + 1}</xmin><xmax>{x2}</xmax><ymin>{y1 + 1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in TRUTH[stem]
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    text(path, f"<annotation><folder></folder><filename>{stem}.jpg</filename>{size}{objects}</annotation>")


def yolo(path: Path, stem: str) -> None:
    """A label file."""
    lines = [
        f"{CLASSES.index(name)} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} "
        f"{(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}\n"
        for name, (x1, y1, x2, y2) in TRUTH[stem]
    ]
    text(path, "".join(lines))


def roboflow_coco(root: Path) -> None:
    for split, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        coco(root / split / "_annotations.coco.json", stems, "{}.jpg", above="things")
        for stem in stems:
            image(root / split / f"{stem}.jpg", stem)
    text(root / "README.roboflow.txt", "things - v1")


def roboflow_voc(root: Path) -> None:
    for split, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        for stem in stems:
            image(root / split / f"{stem}.jpg", stem)
            voc(root / split / f"{stem}.xml", stem)
    text(root / "README.dataset.txt", "things")


def roboflow_yolo(root: Path) -> None:
    for split, stems in (("train", TRAIN), ("valid", VAL), ("test", VAL)):
        for stem in stems:
            image(root / split / "images" / f"{stem}.jpg", stem)
            yolo(root / split / "labels" / f"{stem}.txt", stem)
    paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    text(
        root / "data.yaml",
        f"{paths}\nnc: 2\nnames: ['kettle', 'lamp']\n\nroboflow:\n  workspace: w\n  version: 1\n",
    )


def cvat_coco(root: Path) -> None:
    for subset, stems in (("Train", TRAIN), ("Validation", VAL)):
        coco(root / "annotations" / f"instances_{subset}.json", stems)
        for stem in stems:
            image(root / "images" / subset / f"{stem}.jpg", stem)


def cvat_coco_default(root: Path) -> None:
    coco(root / "annotations" / "instances_default.json", TRUTH)
    for stem in TRUTH:
        image(root / "images" / "default" / f"{stem}.jpg", stem)


def _cvat_voc(root: Path, subsets: dict[str, Iterable[str]]) -> None:
    for subset, stems in subsets.items():
        text(root / "ImageSets" / "Main" / f"{subset}.txt", "".join(f"{stem}\n" for stem in stems))
        for name in CLASSES:
            marks = ((stem, 1 if name in dict(TRUTH[stem]) else -1) for stem in stems)
            text(
                root / "ImageSets/Main" / f"{name}_{subset}.txt",
                "".join(f"{stem}  {mark}\n" for stem, mark in marks),
            )
        for stem in stems:
            image(root / "JPEGImages" / f"{stem}.jpg", stem)
            voc(root / "Annotations" / f"{stem}.xml", stem)
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nkettle:1,2,3::\nlamp:3,2,1::\n")


def cvat_voc(root: Path) -> None:
    _cvat_voc(root, {"Train": TRAIN, "Validation": VAL})


def cvat_voc_default(root: Path) -> None:
    _cvat_voc(root, {"default": TRUTH})


def cvat_yolo(root: Path) -> None:
    for subset, stems in (("train", TRAIN), ("valid", VAL)):
        text(root / f"{subset}.txt", "".join(f"data/obj_{subset}_data/{stem}.jpg\n" for stem in stems))
        for stem in stems:
            image(root / f"obj_{subset}_data" / f"{stem}.jpg", stem)
            yolo(root / f"obj_{subset}_data" / f"{stem}.txt", stem)
    text(root / "obj.names", "kettle\nlamp\n")
    lines = (
        "classes = 2",
        "train = data/train.txt",
        "valid = data/valid.txt",
        "names = data/obj.names",
        "backup = b/",
    )
    text(root / "obj.data", "\n".join(lines))


def cvat_ultralytics(root: Path) -> None:
    for subset, stems in (("Train", TRAIN), ("Validation", VAL)):
        text(root / f"{subset}.txt", "".join(f"data/images/{subset}/{stem}.jpg\n" for stem in stems))
        for stem in stems:
            image(root / "images" / subset / f"{stem}.jpg", stem)
            yolo(root / "labels" / subset / f"{stem}.txt", stem)
    text(
        root / "data.yaml",
        "Train: Train.txt\nValidation: Validation.txt\nnames:\n  0: kettle\n  1: lamp\npath: .\n",
    )


def label_studio_coco(root: Path) -> None:
    coco(root / "result.json", TRUTH, r"images\5e6f-my%20{}.jpg", first=0)
    for stem in TRUTH:
        image(root / "images" / f"5e6f-my {stem}.jpg", stem)


def label_studio_voc(root: Path) -> None:
    for stem in TRUTH:
        image(root / "images" / f"1a2b-{stem}.jpg", stem)
        voc(root / "Annotations" / f"1a2b-{stem}.xml", stem)


def label_studio_yolo(root: Path) -> None:
    for stem in TRUTH:
        image(root / "images" / f"1a2b-{stem}.jpg", stem)
        yolo(root / "labels" / f"1a2b-{stem}.txt", stem)
    text(root / "classes.txt", "kettle\nlamp")
    text(root / "notes.json", json.dumps({"categories": [{"id": 0, "name": "kettle"}], "info": {}}))


def labelme_coco(root: Path) -> None:
    coco(root / "annotations.json", TRUTH, "JPEGImages/{}.jpg", above="_background_")
    for stem in TRUTH:
        image(root / "JPEGImages" / f"{stem}.jpg", stem)
        image(root / "Visualization" / f"{stem}.jpg", stem)


def labelme_voc(root: Path) -> None:
    for stem in TRUTH:
        voc(root / "Annotations" / f"{stem}.xml", stem)
        image(root / "AnnotationsVisualization" / f"{stem}.jpg", stem)
        image(root / "JPEGImages" / f"{stem}.jpg", stem)
    text(root / "class_names.txt", "_background_\nkettle\nlamp")


def fiftyone_coco(root: Path) -> None:
    coco(root / "labels.json", TRUTH, first=0)
    for stem in TRUTH:
        image(root / "data" / f"{stem}.jpg", stem)


def fiftyone_voc(root: Path) -> None:
    for stem in TRUTH:
        image(root / "data" / f"{stem}.jpg", stem)
        voc(root / "labels" / f"{stem}.xml", stem)


def fiftyone_yolov4(root: Path) -> None:
    for stem in TRUTH:
        image(root / "data" / f"{stem}.jpg", stem)
        yolo(root / "data" / f"{stem}.txt", stem)
    text(root / "images.txt", "".join(f"data/{stem}.jpg\n" for stem in TRUTH))
    text(root / "obj.names", "kettle\nlamp\n")


def fiftyone_yolov5(root: Path) -> None:
    _ultralytics(root)
    paths = "path: /home/somebody/exported\ntrain: ./images/train/\nval: ./images/val/\n"
    text(root / "dataset.yaml", f"names:\n- kettle\n- lamp\nnc: 2\n{paths}")


def yolo_by_hand(root: Path) -> None:
    _ultralytics(root)
    paths = "path: ../datasets/things # root\ntrain: images/train\nval: images/val\ntest: # optional\n"
    text(
        root / "things.yaml",
        f"{paths}names: {{0: kettle, 1: lamp}}\ndownload: https://example.org/things.zip\n",
    )


def yolo_without_config(root: Path) -> None:
    _ultralytics(root)
    text(root / "labels" / "train" / "classes.txt", "kettle\nlamp\n")


def _ultralytics(root: Path) -> None:
    for split, stems in (("train", TRAIN), ("val", VAL)):
        for stem in stems:
            image(root / "images" / split / f"{stem}.png", stem)
            if TRUTH[stem]:
                yolo(root / "labels" / split / f"{stem}.txt", stem)
    text(root / "labels" / "train.cache", "x")


WITH_SPLIT: tuple[Callable[[Path], None], ...] = (
    roboflow_coco, roboflow_voc, roboflow_yolo, cvat_coco, cvat_voc, cvat_yolo, cvat_ultralytics, fiftyone_yolov5,
    yolo_by_hand, yolo_without_config,
)  # fmt: skip
WITHOUT_SPLIT: tuple[Callable[[Path], None], ...] = (
    cvat_coco_default, cvat_voc_default, label_studio_coco, label_studio_voc, label_studio_yolo, labelme_coco,
    labelme_voc, fiftyone_coco, fiftyone_voc, fiftyone_yolov4,
)  # fmt: skip
