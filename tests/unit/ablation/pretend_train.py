"""Stands in for ``msbal train SPEC --plain [--resume | --force]``: same files, no training, no imports of torch.

Environment: ``PRETEND_FAIL=ARM`` fails that arm's runs; ``PRETEND_HANG=ARM`` waits in them until killed,
after the run has begun, and ``PRETEND_HANG_ONCE=ARM`` unless it is resumed. Each start is a line in
``starts.txt`` beside the spec's folder. The arm `better` is clearly better than the others, and `noisy` varies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml


def main(spec: str, *rest: str) -> int:
    spec_file, options = Path(spec), [o for o in rest if o != "--plain"]
    content = yaml.safe_load(spec_file.read_text())
    run, seed = Path(content["output"]), content["seed"]
    arm = run.parent.name
    with (spec_file.parent.parent / "starts.txt").open("a") as starts:
        starts.write(f"{arm} {seed} {' '.join(options)}".strip() + "\n")
    if (run / "spec.yaml").exists() and not options:
        print("the folder holds a run already")
        return 2
    if "--resume" in options and not (run / "spec.yaml").exists():
        print("holds no run")
        return 2
    run.mkdir(parents=True, exist_ok=True)
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "spec.yaml").write_text(spec_file.read_text())
    if os.environ.get("PRETEND_FAIL") == arm:
        print("some words before")
        print("error: it went wrong")
        return 1
    once = os.environ.get("PRETEND_HANG_ONCE") == arm and "--resume" not in options
    if once or os.environ.get("PRETEND_HANG") == arm:
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
        (run / "hanging").write_text(str(os.getpid()))
        for _ in range(6000):
            time.sleep(0.1)
            if stopped:
                (run / "hanging").unlink()
                return 130
        return 1
    (run / "hanging").unlink(missing_ok=True)
    value = 0.2 + seed / 100 + (0.1 + (seed - 1) / 1000 if arm == "better" else 0)
    value += 0.03 * (-1) ** seed if arm == "noisy" else 0
    final = {"iteration": 4, "AP": value, "AP_S": value, "AP_M": value, "AP_L": None, "voc": {"mAP": value}}
    (run / "metrics.json").write_text(json.dumps({"evaluations": [final], "final": final}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
