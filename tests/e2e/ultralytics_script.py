"""A user's script that `test_ultralytics_killed` kills: start or resume, whichever is due."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny_yolo import arguments
from ultralytics import YOLO

from msbal_ultralytics import balance

torch.set_num_threads(1)
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
last = folder / "run" / "weights" / "last.pt"
yolo = YOLO(last if last.exists() else data.with_name("yolov8n.yaml"))
balance(yolo, interval=3)
if last.exists():
    yolo.train(resume=True)
else:
    yolo.train(**arguments(data, folder, epochs=6, val=False, exist_ok=True))
