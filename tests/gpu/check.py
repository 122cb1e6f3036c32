"""What only a GPU can tell, in eight minutes: ``python3 tests/gpu/check.py [--wheels FOLDER]``.

Needs a Python with torch and torchvision, setuptools and pytest; no network. What else is missing comes from a folder
of wheels, which ``tests/gpu/wheels.py`` gathers on another machine. The most telling checks come first, each in a
process of its own with a time limit; results are written as they come, so that a run that is cut short still tells.
``--device cpu`` runs the same on a machine without a GPU, to find typing errors before a card's minutes are spent.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests/gpu"
BENCHMARKS = "tests/benchmarks"
WRITING = threading.Lock()


@dataclass(frozen=True)
class Check:
    """One thing to find out.

    Attributes:
        command: arguments of Python; ``{device}``, ``{side}`` (of images, in pixels), ``{seconds}``, ``{data}`` and
            ``{out}`` are replaced.
        limit: seconds, after which it is killed with all that it has started.
        after: a file that another check makes, without which this one is passed over.
        alone: nothing else runs beside it, as it measures time or takes the whole card; the others run side by side.
    """

    name: str
    command: tuple[str, ...]
    limit: int
    after: str = ""
    alone: bool = False


PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")

CHECKS = (
    Check("machine", (f"{HERE}/machine.py", "{device}"), 60, alone=True),
    Check("engine", (*PYTEST, "tests/unit/engine/test_engine_cuda.py"), 90),
    Check("torchvision", (*PYTEST, "tests/contract/test_torchvision.py"), 190),
    Check("runs", (f"{HERE}/runs.py", "torchvision", "--device", "{device}"), 190),
    Check("ultralytics", (*PYTEST, "tests/contract/test_ultralytics.py"), 190),
    Check("runs of ultralytics", (f"{HERE}/runs.py", "ultralytics", "--device", "{device}"), 190),
    Check("detectron2", (*PYTEST, "tests/contract/test_detectron2.py"), 190),
    Check("runs of detectron2", (f"{HERE}/runs.py", "detectron2", "--device", "{device}"), 190),
    Check("mmdet", (*PYTEST, "tests/contract/test_mmdet.py"), 190, after="mmcv.done"),
    Check("runs of mmdet", (f"{HERE}/runs.py", "mmdet", "--device", "{device}"), 190, after="mmcv.done"),
    Check("cost", (f"{HERE}/cost.py", "--device", "{device}"), 100, alone=True),
    Check(
        "measuring",
        (
            f"{BENCHMARKS}/measuring.py",
            "torchvision",
            "--device",
            "{device}",
            "--side",
            "{side}",
            "--pairs",
            "10",
        ),
        60,
        alone=True,
    ),
    Check(
        "share",
        (f"{BENCHMARKS}/share.py", "torchvision", "ultralytics", "--device", "{device}", "--rounds", "40"),
        80,
        alone=True,
    ),
    Check(
        "ablation",
        (f"{HERE}/ablation.py", "--device={device}", "--seconds={seconds}", "--data={data}", "-o={out}"),
        180,
        alone=True,
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--wheels", type=Path, help="a folder that tests/gpu/wheels.py has filled")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gpu"), help="for results, logs and what is built"
    )
    parser.add_argument("--data", default="", help="photographs for the ablation, in Pascal VOC's layout")
    parser.add_argument("--only", nargs="*", help="names of checks")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    out = options.output.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.jsonl").write_text("")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "2" if options.device == "cuda" else "1",
        "MSBAL_TEST_DEVICE": options.device,
        "PYTHONUNBUFFERED": "1",
    }
    if options.wheels is not None:
        site = install(options.wheels.resolve(), out)
        paths = [str(site), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        build_operators(options.wheels.resolve(), out, environment)
    chosen = [check for check in CHECKS if not options.only or check.name in options.only]
    words = {"device": options.device, "data": options.data, "out": out / "ablation"}
    words["side"] = 800 if options.device == "cuda" else 96

    def one(check: Check) -> bool:
        left = until - time.monotonic()
        if left < 15:
            record(out, check.name, "not reached", 0.0, "")
            return True
        if check.after and options.wheels is not None and not wait_for(out / check.after, min(left, 30)):
            record(out, check.name, f"passed over: no {check.after} yet", 0.0, "")
            return True
        limit = min(left, check.limit)
        return run(check, {**words, "seconds": int(limit) - 10}, limit, environment, out)

    held = []
    for alone, group in itertools.groupby(chosen, lambda check: check.alone):
        with ThreadPoolExecutor(1 if alone or options.device == "cpu" else 8) as pool:
            held += pool.map(one, group)
    print((out / "summary.txt").read_text())
    return int(not all(held))


def run(check: Check, words: dict[str, Any], limit: float, environment: dict[str, str], out: Path) -> bool:
    """Run one check; whether it held."""
    command = [sys.executable, *(part.format(**words) for part in check.command)]
    log, start = out / f"{check.name.replace(' ', '_')}.log", time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            outcome = "ok" if code == 0 else f"FAILED ({code})"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            outcome = f"CUT after {limit:.0f} s"
    text = log.read_text(errors="replace")
    record(out, check.name, outcome, time.monotonic() - start, text)
    return outcome == "ok"


def record(out: Path, name: str, outcome: str, seconds: float, text: str) -> None:
    """Add a result, and write the summary anew: what is known so far is on disk."""
    lines = [line for line in text.splitlines() if line.strip()]
    result = {"check": name, "outcome": outcome, "seconds": round(seconds, 1), "tail": lines[-25:]}
    with WRITING:
        with (out / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        parts = [f"{r['check']:<20} {r['outcome']:<28} {r['seconds']:6.1f} s" for r in results]
        for r in results:
            parts += ["", f"== {r['check']}: {r['outcome']}", *r["tail"]]
        (out / "summary.txt").write_text("\n".join(parts) + "\n")
    print(f"{name}: {outcome}, {seconds:.0f} s", flush=True)


def install(wheels: Path, out: Path) -> Path:
    """The wheels, and this checkout's own packages, into a folder of their own."""
    site = out / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
    ]
    found = sorted(wheels.glob("*.whl"))
    if found:
        subprocess.run([*pip, *map(str, found)], check=True)
    own = [ROOT, *sorted((ROOT / "backends").iterdir())]
    subprocess.run([*pip, "--no-build-isolation", *(str(path) for path in own if path.is_dir())], check=True)
    return site


def build_operators(wheels: Path, out: Path, environment: dict[str, str]) -> None:
    """Compile mmcv's operators for this card in the background, where its source lies among the wheels.

    A wheel of mmcv that was compiled elsewhere for this card and Python is taken instead.
    """
    if any(wheels.glob("onedl_mmcv-*.whl")):
        (out / "mmcv.done").touch()
        return
    source = next(wheels.glob("onedl_mmcv-*.tar.gz"), None)
    if source is None or (out / "mmcv.done").exists():
        return
    pip = f"{sys.executable} -m pip install -v --no-index --no-deps --no-build-isolation"
    building = {**environment, "MMCV_WITH_OPS": "1", "FORCE_CUDA": "1", "MAX_JOBS": str(os.cpu_count() or 1)}
    with (out / "mmcv.log").open("w") as log:
        subprocess.Popen(
            ["nice", "sh", "-c", f"{pip} --target {out / 'site'} {source} && touch {out / 'mmcv.done'}"],
            env=building,
            stdout=log,
            stderr=log,
            cwd=out,
        )


def wait_for(path: Path, seconds: float) -> bool:
    """Whether the file is there, soon enough."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


if __name__ == "__main__":
    sys.exit(main())
