"""Short runs of the command on a device: ``python tests/gpu/runs.py BACKEND --device cuda``.

Each precision that the device has trains, balances and measures gradients, which changes no bit of it; and a run that
is killed within an interval goes on to the records of an unbroken one, as far as the device adds up in the same order.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

MODELS: dict[str, dict[str, Any]] = {
    "torchvision": {
        "name": "retinanet",
        "backbone": "resnet18",
        "min_size": 160,
        "max_size": 160,
        "norm": "gn",
    },
    "detectron2": {
        "config": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "overrides": ["INPUT.MIN_SIZE_TRAIN=(160,)"],
    },
    "mmdet": {
        "config": "retinanet/retinanet_r50_fpn_1x_coco.py",
        "pretrained": False,
        "cfg_options": {
            "train_dataloader.dataset.pipeline.2.scale": [160, 160],
            "model.backbone.depth": 18,
            "model.neck.in_channels": [64, 128, 256, 512],
        },
    },
    "ultralytics": {"config": "yolov8n.yaml", "overrides": {"imgsz": 160}},
}
INTERVAL, ITERATIONS, MEASURE = 5, 30, 4


def spec(
    folder: Path, backend: str, device: str, name: str, measure: int | None = MEASURE, **schedule: Any
) -> Path:
    """A run's spec, written into a folder of its own."""
    path = folder / f"{name}.yaml"
    content = {
        "backend": backend,
        "model": MODELS[backend],
        "data": {
            "format": "generated",
            "root": str(folder / "data"),
            "train_images": 16,
            "val_images": 4,
            "size": 160,
        },
        "schedule": {
            "iterations": ITERATIONS,
            "checkpoint_every": 3,
            "batch_size": 4,
            "workers": 2 if device == "cuda" else 0,
            **schedule,
        },
        "balance": {"strategy": "rlo", "interval": INTERVAL, "measure": measure},
        "evaluate": {"enabled": False},
        "device": device,
        "deterministic": True,
        "output": str(folder / name),
    }
    path.write_text(yaml.safe_dump(content))
    return path


def train(path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "msbal", "train", str(path), "--plain", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate()
    assert process.returncode == 0, text[-3000:]
    return text


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "intervals.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=sorted(MODELS))
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    backend, device = options.backend, options.device
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        precisions = ("none", "fp16", "bf16") if device == "cuda" else ("none", "bf16")
        for precision in precisions:
            start = time.monotonic()
            finished(train(spec(folder, backend, device, precision, amp=precision)))
            found = records(folder / precision)
            assert len(found) == ITERATIONS // INTERVAL and all(
                record["count"] == INTERVAL for record in found
            )
            norms = [norm for record in found for norm in record["gradient_norm"]["shared"]]
            assert all(math.isfinite(norm) for norm in norms) and max(norms) > 0
            finished(train(spec(folder, backend, device, f"unmeasured {precision}", None, amp=precision)))
            losses = [
                (folder / run / "losses.csv").read_text() for run in (precision, f"unmeasured {precision}")
            ]
            same = "the same bits" if losses[0] == losses[1] else "OTHER BITS"
            total = [sum(record["loss"]) / INTERVAL for record in found]
            print(
                f"{backend} {precision}: {ITERATIONS} iterations in {time.monotonic() - start:.0f} s, mean loss "
                f"{total[0]:.3f} -> {total[-1]:.3f}, actions {' '.join(r['action'] for r in found)}; without "
                f"measuring {same}"
            )
        process = train(spec(folder, backend, device, "killed"))
        until = time.monotonic() + 120
        while not (folder / "killed" / "intervals.jsonl").exists() or len(records(folder / "killed")) < 2:
            assert process.poll() is None and time.monotonic() < until, (
                "the run ended before it could be killed"
            )
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        finished(train(folder / "killed.yaml", "--resume"))
        whole, resumed = records(folder / "none"), records(folder / "killed")
        assert [r["iteration"] for r in resumed] == [r["iteration"] for r in whole]
        apart = max(
            abs(a - b) / max(abs(a), 1e-9)
            for one, other in zip(whole, resumed, strict=True)
            for a, b in zip(one["loss"], other["loss"], strict=True)
        )
        same = (folder / "none" / "intervals.jsonl").read_text() == (
            folder / "killed" / "intervals.jsonl"
        ).read_text()
        print(
            f"{backend} killed and resumed: records {'equal to the last bit' if same else f'within {apart:.1e}'}"
        )
        assert [r["action"] for r in resumed][:3] == [r["action"] for r in whole][:3]


if __name__ == "__main__":
    main()
