"""A run of two evaluations as the trackers are told of it, and a program that plays it to one of them.

Tools patch what is theirs and what is not, start threads and hold on to the process's end: each is tried in a process
of its own, ``python played.py TRACKER FOLDER FIRST LAST``.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from PIL import Image

from msbal.backend import LevelGroup, Monitor
from msbal.engine.record import IntervalRecord
from msbal.records import RunDirectory
from msbal.trackers import TrackedRun, make_trackers
from msbal.ui.monitor import Fanout
from msbal.ui.state import Ending

SPEC = {
    "backend": "torchvision",
    "balance": {"strategy": "rlo", "interval": 100},
    "data": {"classes": ["cup"]},
}
LEVELS = ("P3", "P4")
METRICS = {
    "iteration": 200, "AP": 0.25, "AP50": 0.5, "AP_S": None, "voc": {"mAP": 0.375}, "evaluator": "hotcoco",
    "per_class": {"cup": {"AP": 0.25, "boxes": 7}},
}  # fmt: skip


def group(name: str = "all") -> LevelGroup:
    return LevelGroup(name, "RetinaNetHead", LEVELS, (8, 16), ("cls", "bbox"))


def record(t: int, of: str = "all", count: int = 100) -> IntervalRecord:
    """Sums of 100 iterations: means of 0.5 and 0.25 divided by t."""
    by_term = {"cls": (30.0 / t, 15.0 / t), "bbox": (20.0 / t, 10.0 / t)}
    return IntervalRecord(
        interval=t,
        iteration=100 * t,
        levels=LEVELS,
        loss=(50.0 / t, 25.0 / t),
        loss_by_term=by_term,
        variance=(0.5, 0.25),
        variance_reduction=(0.125, float("nan")),
        weights=(1.75, 1.0),
        reward=1,
        action="min_loss",
        probabilities={"avw": 0.75, "min_loss": 0.25},
        group=of,
        count=count,
        previous_weights=() if t == 1 else (1.5, 1.0),
        learning_rate=0.01,
    )


def play(monitor: Monitor, image: Path, first: int = 0, last: int = 4) -> None:
    """Play the intervals after `first`; there is an evaluation after every second one."""
    monitor.started(100 * first, 400, (group(),))
    monitor.drawn(100 * first, "train", image)
    for t in range(first + 1, last + 1):
        monitor.stepped(100 * t - 50, {"learning_rate": 0.005, "images_per_second": 32.0})
        monitor.interval(record(t))
        monitor.stepped(100 * t, {"learning_rate": 0.01, "images_per_second": 32.0})
        if t % 2 == 0:
            monitor.evaluated(100 * t, METRICS)


def main(tracker: str, folder: Path, first: int, last: int) -> None:
    image = folder / "train.png"
    Image.new("RGB", (32, 24), "red").save(image)
    (folder / "spec.yaml").write_text("backend: torchvision\n")
    run = TrackedRun(RunDirectory(folder), SPEC, first > 0, print)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook
    (monitor,) = make_trackers([tracker], run)
    fanout = Fanout([monitor])
    play(fanout, image, first, last)
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.excepthook)
    fanout.close(Ending("finished"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
