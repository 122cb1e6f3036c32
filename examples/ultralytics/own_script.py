"""Balance a YOLO model in your own ultralytics script: one import and one call, and nothing else changes.

Run it as it stands: ``python examples/ultralytics/own_script.py FOLDER``. The images are made up and small, so that it
ends in a minute; yours are what ``data=`` names. Where it was stopped, ``--resume`` goes on from ``last.pt``, and the
balancer with it.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw
from ultralytics import YOLO

from msbal_ultralytics import balance


def make_data(folder: Path, count: int = 16, side: int = 160) -> Path:
    """Draw images with one coloured square each, in ultralytics' layout; return the data's YAML."""
    random.seed(0)
    colours = {"red": (220, 40, 40), "green": (40, 180, 40)}
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, size = Image.new("RGB", (side, side), (90, 90, 90)), random.randint(16, side // 2)
            x, y = (random.randint(0, side - size) for _ in range(2))
            label, colour = random.choice([*enumerate(colours.values())])
            ImageDraw.Draw(image).rectangle((x, y, x + size, y + size), fill=colour)
            image.save(folder / "images" / split / f"{i}.png")
            box = [(x + size / 2) / side, (y + size / 2) / side, size / side, size / side]
            (folder / "labels" / split / f"{i}.txt").write_text(" ".join(map(str, [label, *box])))
    data = folder / "data.yaml"
    data.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\nnames: {[*colours]}\n")
    return data


if __name__ == "__main__":  # ultralytics starts processes that import this file
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    run = options.folder.resolve() / "run"

    model = YOLO(run / "weights" / "last.pt" if options.resume else "yolov8n.yaml")
    balanced = balance(model, "rlo", interval=2)  # <- the one call, also where a run is resumed
    if options.resume:
        model.train(resume=True)
    else:
        data = make_data(options.folder / "data")
        model.train(
            data=data, epochs=options.epochs, imgsz=160, batch=4, workers=0, project=run.parent, name=run.name,
            exist_ok=True,
        )  # fmt: skip
    for group in balanced.groups:
        print(f"balanced {group.name}: {', '.join(group.levels)}; see {run / 'intervals.jsonl'}")
