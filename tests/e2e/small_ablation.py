"""Data and an ablation so easy and small that a RetinaNet learns in seconds on one core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

BASE: dict[str, Any] = {
    "backend": "torchvision",
    "model": {
        "name": "retinanet", "backbone": "resnet18", "min_size": 64, "max_size": 64, "norm": "bn",
        "fpn_channels": 16, "head_convs": 1,
    },
    "data": {
        "format": "coco",
        "root": "squares",
        "train": {"annotations": "train.json", "images": "train"},
        "val": {"annotations": "val.json", "images": "val"},
    },
    "schedule": {
        "iterations": 60, "batch_size": 4, "workers": 0, "warmup": 5, "scheduler": "cosine",
        "optimizer": {"name": "adamw", "lr": 0.004, "weight_decay": 0.01},
        "clip_norm": 10.0, "checkpoint_every": 10,
    },
    "balance": {"strategy": "equal", "interval": 5},
    "device": "cpu",
}  # fmt: skip

ARMS: dict[str, dict[str, Any]] = {
    "equal": {},
    "twin": {"balance.strategy": "equal"},
    "stuck": {"schedule.optimizer.lr": 0.0},
}


def write_ablation(folder: Path, **keys: Any) -> None:
    """``grid.yaml`` in `folder`, its base beside it, and the pictures: one bright square on dark noise each."""
    for split, count, first in (("train", 32, 0), ("val", 24, 1000)):
        _draw(folder / "squares", split, count, first)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    spec = {"base": "base.yaml", "arms": ARMS, "seeds": 3, "metric": "AP50", **keys}
    (folder / "grid.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))


def _draw(root: Path, split: str, count: int, first: int) -> None:
    from PIL import Image

    size, images, boxes = 64, [], []
    (root / split).mkdir(parents=True)
    for i in range(count):
        draw = np.random.Generator(np.random.PCG64(first + i))
        pixels = (draw.random((size, size, 3)) * 60).astype(np.uint8)
        side = int(20 * 2.5 ** draw.random())
        x, y = (int(draw.random() * (size - side)) for _ in range(2))
        pixels[y : y + side, x : x + side] = 230
        Image.fromarray(pixels).save(root / split / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": size, "height": size})
        boxes.append(
            {
                "id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": [x, y, side, side],
                "area": side * side, "iscrowd": 0,
            }
        )  # fmt: skip
    found = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
    (root / f"{split}.json").write_text(json.dumps(found))


def ablate(folder: Path, *arguments: str, output: str = "out", **environment: str) -> subprocess.Popen[bytes]:
    """`msbal ablate grid.yaml` in `folder`, in a process group of its own; it prints into OUTPUT.txt."""
    with (folder / f"{output}.txt").open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "msbal", "ablate", "grid.yaml", "-o", output, "--plain", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", **environment},
        )


def finish(process: subprocess.Popen[bytes], folder: Path, output: str = "out", code: int = 0) -> str:
    """Wait for its end, and give what was printed."""
    try:
        found = process.wait(1800)
    finally:
        if process.poll() is None:
            process.kill()
    text = (folder / f"{output}.txt").read_text()
    assert found == code, text
    return text


def wait_for(process: subprocess.Popen[bytes], due: Callable[[], bool], seconds: float = 1200) -> None:
    """Wait until `due`, while the process runs."""
    until = time.monotonic() + seconds
    while not due():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def starts(output: Path) -> dict[str, int]:
    """How often each run's training was started, by ``ARM/seed-N``."""
    files = sorted((output / "runs").glob("*/*/environment.json"))
    return {
        str(f.parent.relative_to(output / "runs")): len(json.loads(f.read_text())["starts"]) for f in files
    }


def finished(output: Path) -> set[str]:
    """The runs that have their metrics."""
    files = sorted((output / "runs").glob("*/*/metrics.json"))
    return {str(f.parent.relative_to(output / "runs")) for f in files if json.loads(f.read_text())["final"]}


def begun(output: Path) -> set[str]:
    """The runs that have saved a checkpoint, and are not finished."""
    files = (output / "runs").glob("*/*/checkpoints/iteration_*")
    return {str(f.parents[1].relative_to(output / "runs")) for f in files} - finished(output)


def young(output: Path) -> set[str]:
    """Those of them that have most of their 60 iterations before them."""
    return {
        run
        for run in begun(output)
        if all(int(f.stem.partition("_")[2]) <= 20 for f in (output / "runs" / run).glob("checkpoints/*.pth"))
    }


def assert_same_results(one: Path, other: Path) -> None:
    """Same runs, to the last bit, and the same tables."""
    names = sorted(str(f.relative_to(one)) for f in one.rglob("*") if f.is_file() and _counts(f))
    assert names == sorted(str(f.relative_to(other)) for f in other.rglob("*") if f.is_file() and _counts(f))
    assert any(name.endswith("predictions.json") for name in names)
    for name in names:
        # The page has the folder's name as its title.
        texts = [(f / name).read_bytes().replace(f"Ablation {f.name}".encode(), b"") for f in (one, other)]
        assert texts[0] == texts[1], name


def _counts(file: Path) -> bool:
    return file.parent.name == "report" or file.name in (
        "intervals.jsonl", "losses.csv", "metrics.json", "predictions.json",
    )  # fmt: skip
