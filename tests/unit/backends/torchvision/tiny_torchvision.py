"""Tiny models, images and runs, for the tests of the torchvision backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msbal.backend import Monitor
from msbal.data import DetectionData, ImageRecord

SIZE = 96
SMALL: dict[str, Any] = {
    "backbone": "resnet18", "min_size": SIZE, "max_size": 128, "fpn_channels": 16, "head_convs": 1,
}  # fmt: skip


def make_data(folder: Path, images: int = 6, widths: tuple[int, int] = (96, 120)) -> DetectionData:
    """Grey noise with coloured squares of many sizes; one image has no box."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    records = []
    for number in range(images):
        height, width = 96, widths[number % 2]
        pixels = draw.integers(0, 60, (height, width, 3), dtype=np.uint8)
        boxes, labels = [], []
        for _ in range(0 if number == 1 else 3):
            side = int(draw.integers(6, 80))
            x, y = int(draw.integers(0, width - side)), int(draw.integers(0, height - side))
            label = int(draw.integers(3))
            pixels[y : y + side, x : x + side, label] = 250
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        array = np.array(boxes, np.float32).reshape(-1, 4)
        records.append(
            ImageRecord(
                id=number + 10,
                path=path,
                width=width,
                height=height,
                boxes=array,
                labels=np.array(labels, np.int64),
                area=(array[:, 2:] - array[:, :2]).prod(axis=1),
                crowd=np.zeros(len(boxes), np.bool_),
                difficult=np.zeros(len(boxes), np.bool_),
            )
        )
    return DetectionData("tiny", ("red", "green", "blue"), (5, 7, 9), tuple(records))


class Listener(Monitor):
    """A monitor that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def started(self, iteration: int, total: int, groups: Any) -> None:
        self.calls.append(("started", (iteration, total)))

    def stepped(self, iteration: int, scalars: Any) -> None:
        self.calls.append(("stepped", (iteration, dict(scalars))))

    def interval(self, record: Any) -> None:
        self.calls.append(("interval", record))

    def evaluated(self, iteration: int, metrics: Any) -> None:
        self.calls.append(("evaluated", iteration))

    def message(self, text: str) -> None:
        self.calls.append(("message", text))

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.calls if name == kind]


@dataclass
class Run:
    """A run of the loop on tiny data."""

    detector: Any
    job: Any
    monitor: Listener

    def train(self) -> Run:
        self.detector.train(self.job)
        self.job.recorder.flush()
        return self

    @property
    def state(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.detector.model.state_dict().items()}

    @property
    def intervals(self) -> bytes:
        return bytes(self.job.run.intervals_file.read_bytes())


def run_in(
    folder: Path,
    data: DetectionData,
    name: str = "run",
    model: dict[str, Any] | None = None,
    schedule: dict[str, Any] | None = None,
    balance: dict[str, Any] | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    evaluate: Any = None,
    **sections: Any,
) -> Run:
    """A run as the core prepares it, on `data`."""
    from msbal.backend import Job, load_backend
    from msbal.records import Recorder, RunDirectory
    from msbal.spec import parse_spec
    from msbal.training import choose_checkpoint, make_balancers
    from msbal.training.distributed import rank

    spec = parse_spec(
        {
            "backend": "torchvision",
            "model": {**SMALL, "name": "retinanet", **(model or {})},
            "data": {"format": "coco", "root": ".", "train": {"annotations": "none.json"}},
            "schedule": {
                "iterations": 6, "batch_size": 2, "checkpoint_every": 2, "warmup": 2,
                "optimizer": {"name": "sgd", "lr": 0.01}, **(schedule or {}),
            },
            "balance": {"strategy": "rlo", "interval": 2, **(balance or {})},
            "device": "cpu",
            "output": str(folder / name),
            **sections,
        },
        base=folder,
    )  # fmt: skip
    detector = load_backend("torchvision").build(spec, data.classes)
    run = RunDirectory(folder / name)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    monitor = Listener()
    balancers = make_balancers(spec, detector)
    recorder = Recorder(run if rank() == 0 else None, monitor.interval)
    recorder.attach(balancers)
    asked = iter(range(1, 10**6))
    job = Job(
        spec=spec,
        train=data,
        val=data,
        run=run,
        balancers=balancers,
        recorder=recorder,
        monitor=monitor,
        checkpoint=choose_checkpoint(run, recorder, monitor.message) if resume else None,
        evaluate=evaluate,
        stop_requested=lambda: stop_after is not None and next(asked) >= stop_after,
    )
    return Run(detector, job, monitor)
