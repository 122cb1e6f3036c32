"""As many runs side by side as the card holds, until the time is up: ``python tests/gpu/ablation.py --seconds 120``.

The study of examples/evidence with more seeds and fewer arms, through the command, on the photographs of a folder with
Pascal VOC's layout; without one, a tiny study of generated images. Then the report of what has finished.
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

EVIDENCE = Path(__file__).parents[2] / "examples" / "evidence"
ARMS = ("equal", "rlo", "min_loss")  # what eight seeds left open
REPORT = 25  # seconds that the report may take


def specs(folder: Path, data: Path | None, device: str) -> Path:
    """Write the study's spec, beside that of its runs."""
    study: dict[str, Any] = yaml.safe_load((EVIDENCE / "retinanet.yaml").read_text(encoding="utf-8"))
    run: dict[str, Any] = yaml.safe_load((EVIDENCE / "photographs.yaml").read_text(encoding="utf-8"))
    run["device"] = device
    if data:
        sets = {"train": ["VOC2007/train"], "val": ["VOC2007/val", "VOC2007/test"]}
        run["data"] = {"format": "voc", "root": str(data), **{part: {"sets": sets[part]} for part in sets}}
    else:
        run["model"] |= {"min_size": 64, "max_size": 64}
        run["data"] = {"format": "generated", "root": str(folder / "data"), "size": 64}
        run["data"] |= {"train_images": 4, "val_images": 2}
        run["schedule"] |= {"iterations": 4, "batch_size": 2, "warmup": 0}
        run["balance"]["interval"] = 2
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    study |= {
        "base": "run.yaml",
        "arms": {name: study["arms"][name] for name in ARMS},
        "compare": [],
        "seeds": 24 if data else 2,
        "output": str(folder / "grid"),
    }
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument(
        "--data", default="", help="photographs, in Pascal VOC's layout; generated ones without"
    )
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
