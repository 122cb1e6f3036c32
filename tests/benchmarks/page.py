"""Runs the benchmarks and writes docs/cost.md: ``python tests/benchmarks/page.py [--only WORD]``.

With ``--only``, the sections with that word in their titles are measured anew and the others stay as they are.
About ten minutes on a machine that does nothing else. LibMTL, TorchJD and faster-coco-eval are measured where
they can be imported; ``pip install --target FOLDER --no-deps torchjd LibMTL faster-coco-eval`` and PYTHONPATH=FOLDER
keep them apart.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cost.md"
PACKAGES = (
    "torch",
    "torchvision",
    "mmdet",
    "onedl-mmdetection",
    "detectron2",
    "ultralytics",
    "LibMTL",
    "torchjd",
    "hotcoco",
)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        script: in this folder, with its arguments.
        text: what a reader should know before the metrics.
    """

    title: str
    script: tuple[str, ...]
    text: str


SECTIONS = (
    Section(
        "The balancer's share of a training step",
        ("share.py",),
        "What an iteration of the balancer takes beyond adding up the losses, with a hundredth of an interval's end, "
        "of one step (forward, loss, backward) of the smallest real model that each framework ships. The balancer runs "
        "after every such step, with its code driven out of the processor's caches. The goal is 0.1 % for strategies "
        "that weigh each interval and 0.3 % for those that weigh each step. Larger models and larger images take "
        "longer; the balancer does not.",
    ),
    Section(
        "A training step, with and without balancing",
        ("steps.py", "--pairs", "20"),
        "The same from outside, with what splits the framework's loss into levels: the ratio of a balanced step to the "
        "framework's own, forward and backward apart, with its 95 % interval. `nothing` pairs two untouched models: "
        "what this machine cannot tell from 1. Real heads on shrunk backbones and small images.",
    ),
    Section(
        "A training step of ultralytics",
        ("steps.py", "ultralytics", "--pairs", "12", "--side", "320"),
        "The same for YOLO as its users have it: the nano models, nothing shrunk, four images of 320 pixels.",
    ),
    Section(
        "Measuring gradients",
        ("measuring.py",),
        "What `balance.measure` costs: a measurement is one partial backward pass for each level. In steps (forward, "
        "loss, backward) of the same model, whose backbone is trained whole; and what that is of a run that measures "
        "every 500 iterations.",
    ),
    Section(
        "The engine alone",
        ("engine.py", "--quick"),
        "Microseconds of one process on one thread, and ratios to the plain sum of the losses; LibMTL's and TorchJD's "
        "weightings take the same five losses. Strategies that decide once an interval (`avw`, `rlo`, `dwa`, ...) take "
        "less than any of theirs that looks at the losses. Those that weigh anew at each iteration (`gls`, `uw`, "
        "`rlw`, ...) work in float64, mask levels without positives, and survive a loss that is not finite, without "
        "waiting for a device; their peers, TorchJD's GeometricMean, UW and Random, LibMTL's GLS, UW and RLW, do less "
        "and take less. Then what a device sees: kernels, and waits; and state, records, replay and start-up.",
    ),
    Section(
        "Evaluation",
        ("evaluation.py", "--images", "1000"),
        "COCO metrics from hotcoco, with those of pycocotools on the same detections as the reference.",
    ),
)


def machine() -> list[str]:
    """What the metrics come from."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        processor = found.group(1).strip() if found else processor
    lines = [
        f"date: {datetime.date.today().isoformat()}",
        f"processor: {processor}, {os.cpu_count()} cores",
        f"system: {platform.system()} {platform.release()}, Python {platform.python_version()}",
    ]
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        lines.append(f"memory: {memory / 2**30:.0f} GiB")
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    lines.append(f"packages: {', '.join(versions)}")
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [*lines, f"GPU: {gpu}"]


def command(section: Section) -> str:
    """As a reader would type it."""
    return " ".join(["python", f"tests/benchmarks/{section.script[0]}", *section.script[1:]])


ON_A_GPU = "## On a GPU\n"


def page(outputs: dict[str, str], facts: list[str]) -> str:
    """The page.

    Args:
        outputs: by title, what each section's script printed.
        facts: what `machine` says.
    """
    parts = [
        "# What balancing costs",
        "",
        "Every number here was printed by the command above it, in a run of `python tests/benchmarks/page.py`, which",
        "writes this page. Ratios compare things that ran in turns in one process; absolute times are those of this",
        "machine.",
        "",
        *(f"- {line}" for line in facts),
    ]
    for section in SECTIONS:
        parts += ["", f"## {section.title}", "", section.text, "", f"    $ {command(section)}"]
        parts += [f"    {line}".rstrip() for line in outputs[section.title].splitlines()]
    return "\n".join(parts) + "\n"


def printed(text: str) -> dict[str, str]:
    """By title, what the scripts of a page's sections printed."""
    found = {}
    for section in SECTIONS:
        _, there, rest = text.partition(f"    $ {command(section)}\n")
        if there:
            lines = rest.partition("\n## ")[0].splitlines()
            found[section.title] = "\n".join(line.removeprefix("    ") for line in lines).strip("\n")
    return found


def facts_of(text: str) -> list[str]:
    """What a page says of its machine."""
    return [
        line.removeprefix("- ") for line in text.partition("\n## ")[0].splitlines() if line.startswith("- ")
    ]


def measured_elsewhere(text: str) -> str:
    """The part of a page that a machine with a GPU measured; it stays as it is."""
    _, found, rest = text.partition(ON_A_GPU)
    return "\n" + found + rest if found else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    parser.add_argument(
        "--only", metavar="WORD", default="", help="measure only the sections with it in their titles"
    )
    options = parser.parse_args()
    before = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    outputs, facts = printed(before) if options.only else {}, machine()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for section in [section for section in SECTIONS if options.only in section.title]:
        print("$", command(section), flush=True)
        script = ROOT / "tests" / "benchmarks" / section.script[0]
        done = subprocess.run(
            [sys.executable, str(script), *section.script[1:]],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(done.stdout, flush=True)
        if done.returncode:
            print(done.stderr[-2000:])
            sys.exit(f"{command(section)} failed with {done.returncode}; the page stays as it was")
        lines = [line for line in done.stdout.splitlines() if "OneDL" not in line]  # mmdet's own chatter
        outputs[section.title] = "\n".join(lines).strip("\n")
    if options.only:
        today, (date, *rest) = facts[0], facts_of(before)
        facts = [date if date.startswith(today) else f"{date}; of `{options.only}`, {today}", *rest]
    options.output.write_text(page(outputs, facts) + measured_elsewhere(before), encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
