"""As many runs side by side as the card holds, until the time is up: ``python tests/gpu/ablation.py --seconds 120``.

A small ablation through the command, on photographs where a folder in COCO's layout is given, else on generated ones;
then the report of what has finished.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

REPORT = 25  # seconds that the report may take


def specs(folder: Path, data: Path | None, device: str) -> Path:
    """The ablation's spec, beside that of its runs."""
    side, iterations, batch = (256, 500, 16) if device == "cuda" else (64, 4, 2)
    photographs = {
        "format": "coco",
        "root": str(data),
        **{
            part: {"images": "VOC2007/JPEGImages", "annotations": f"annotations/instances_{part}.json"}
            for part in ("train", "val")
        },
    }
    generated = {
        "format": "generated",
        "root": str(folder / "data"),
        "train_images": 64 if device == "cuda" else 4,
        "val_images": 64 if device == "cuda" else 2,
        "size": side,
    }
    base: dict[str, Any] = {
        "backend": "torchvision",
        "model": {
            "name": "retinanet",
            "backbone": "resnet18",
            "norm": "gn",
            "min_size": side,
            "max_size": side,
        },
        "data": photographs if data else generated,
        "schedule": {
            "iterations": iterations,
            "batch_size": batch,
            "optimizer": {"name": "adamw", "lr": 4e-4, "weight_decay": 0.01},
            "scheduler": "cosine",
            "clip_norm": 10.0,
            "workers": 1 if device == "cuda" else 0,
        },
        "balance": {"strategy": "rlo", "interval": 20 if device == "cuda" else 2},
        "device": device,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(base))
    ablation = {
        "base": "run.yaml",
        "arms": {name: {"balance.strategy": name} for name in ("equal", "rlo")},
        "seeds": 6 if device == "cuda" else 2,
        "baseline": "equal",
        "metric": "AP",
        "gain": 0.005,
        "output": str(folder / "grid"),
    }
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump(ablation, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--data", default="", help="photographs, in COCO's layout; generated ones without")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu/ablation"))
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(options.data).resolve() if options.data else None
    path = specs(folder, data, options.device)
    command = [sys.executable, "-m", "msbal", "ablate", str(path), "--plain"]
    process = subprocess.Popen([*command, "--jobs", str(options.jobs)])
    until = time.monotonic() + options.seconds - REPORT
    try:
        code = process.wait(max(until - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        code = process.wait()
        subprocess.run([*command, "--report-only", "--resamples", "0"], check=False)
    print(f"ablate ended with {code}")
    sys.exit(code not in (0, 130))


if __name__ == "__main__":
    main()
