"""Small data sets on disk, in every layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def save_image(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)


def coco_document(names: Sequence[str] = ("a.png", "b.png"), first_id: int = 1) -> dict[str, Any]:
    """Images of 40 x 30 with one box each, of the first and the second category by turns."""
    ids = range(first_id, first_id + len(names))
    return {
        "images": [
            {"id": i, "file_name": name, "width": 40, "height": 30}
            for i, name in zip(ids, names, strict=True)
        ],
        "annotations": [
            {
                "id": 100 + n,
                "image_id": i,
                "category_id": (3, 7)[n % 2],
                "bbox": [2.0, 3.0, 10.0, 20.0],
                "area": 150.0,
                "iscrowd": 0,
            }
            for n, i in enumerate(ids)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def write_coco(
    folder: Path,
    document: Any,
    annotations: str = "instances.json",
    images: str = "images",
) -> tuple[Path, Path]:
    """Write the annotation file and the images that it lists; returns their paths."""
    path = folder / annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    (folder / images).mkdir(parents=True, exist_ok=True)
    for entry in document["images"]:
        save_image(folder / images / entry["file_name"], entry["width"], entry["height"])
    return path, folder / images


def voc_xml(
    *things: tuple[str, tuple[object, object, object, object]], size: str = "", difficult: object = 0
) -> str:
    size = size or "<size><width>40</width><height>30</height><depth>3</depth></size>"
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
        f"<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for name, box in things
    )
    return f"<annotation>{size}{objects}</annotation>"


def write_voc(folder: Path, files: dict[str, str], sets: dict[str, str] | None = None) -> Path:
    """Write XML files (stem to text), an image for each, and set files (name to text)."""
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, text in files.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
        save_image(folder / "JPEGImages" / f"{stem}.jpg")
    for name, text in (sets or {}).items():
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder
