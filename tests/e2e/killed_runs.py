"""Killing a training process at chosen and at random moments, and going on, whatever the backend."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_points
from msbal_process import finish, start

from msbal.training.checkpoints import find

RECORDS = ("intervals.jsonl", "losses.csv")
Due = Callable[[], bool]
Start = Callable[[], Any]


def size(path: Path) -> int:
    """Bytes of a file; 0 where it does not exist."""
    return path.stat().st_size if path.exists() else 0


def kill_when(process: Any, due: Due, seconds: float = 240) -> bool:
    """SIGKILL as soon as `due`; False where the process ended before, even if only just."""
    until = time.monotonic() + seconds
    while process.exitcode is None and not due():
        assert time.monotonic() < until, "neither due nor at its end"
        time.sleep(0.0005)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"exit code {process.exitcode}"
    return process.exitcode != 0


def tear(path: Path, half: str) -> None:
    """What a kill in the middle of an append leaves: too short a moment to hit from outside."""
    if path.exists():
        with path.open("a", encoding="utf-8") as file:
            file.write(half)


def moments(draw: random.Random, run: Path, seconds: float) -> list[tuple[str, Due]]:
    """When to kill: as a checkpoint, a record or a loss is being written, or at any time.

    Args:
        seconds: that a whole run takes.
    """

    def grown(path: Path) -> Due:
        at = size(path)
        return lambda: size(path) > at

    def checkpoint_write() -> bool:
        return any((run / "checkpoints").glob(".iteration_*.tmp")) if run.exists() else False

    end = time.monotonic() + draw.uniform(0.0, seconds)
    return [
        ("checkpoint", checkpoint_write),
        ("record", grown(run / "intervals.jsonl")),
        ("losses", grown(run / "losses.csv")),
        ("any time", lambda: time.monotonic() > end),
    ]


def kill_three_times(start: Start, run: Path, unbroken: Path, round_: int) -> None:
    """Start, or go on with, a run until it has been killed three times. A run that came to its end starts anew.

    Args:
        start: starts the run's process, or resumes it.
        unbroken: the run that was left in peace, and took as long as it takes.
        round_: seeds the moments.
    """
    draw = random.Random(round_)
    landed = 0
    seconds = find(unbroken / "checkpoints")[0].stat().st_mtime - (unbroken / "spec.yaml").stat().st_mtime
    for turn in range(round_, round_ + 12):
        name, due = moments(draw, run, seconds)[turn % 4]
        began = time.monotonic()
        if kill_when(start(), due):
            landed += 1
            after, left = time.monotonic() - began, [path.name for path in run.rglob(".*.tmp")]
            print(f"killed: {name}, after {after:.2f} s, half written: {', '.join(left) or 'nothing'}")
            tear(run / "intervals.jsonl", draw.choice(["", '{"interval": 9, "iterat', "\0\0\0"]))
            tear(run / "losses.csv", draw.choice(["", "2", "29,0.125,0."]))
        else:
            print(f"ended before: {name}")
            shutil.rmtree(run)
        if landed == 3:
            return
    raise AssertionError(f"{landed} of 12 kills landed")


def train(
    folder: Path,
    run: Path,
    *settings: str,
    resume: bool | None = None,
    first: Callable[[], None] | None = None,
) -> Any:
    """Start the run of ``spec.yaml`` in `folder`, or go on with it where it has been started."""
    again = (run / "spec.yaml").exists() if resume is None else resume
    options = [*settings, *(["--resume"] if again else [])]
    return start(folder, "train", "spec.yaml", "-o", run.name, "--plain", *options, first=first)


def die_at(folder: Path, run: Path, point: tuple[str, int], power: bool, *settings: str) -> bool:
    """Train until a point of `fault_points`, which the run may end before; whether it died there."""
    first = functools.partial(fault_points.install, str(run), point, power, str(folder / "events.txt"))
    process = train(folder, run, *settings, first=first)
    process.join(240)
    assert process.exitcode in (0, -signal.SIGKILL), (point, (folder / "output.txt").read_text())
    return process.exitcode != 0


WRITES = [
    "half written temporary iteration.pth", "half written intervals.jsonl", "written temporary iteration.pth",
    "half written losses.csv", "to be named iteration.pth", "synced intervals.jsonl", "named iteration.pth",
    "written intervals.jsonl", "to be deleted iteration.pth", "synced losses.csv",
]  # fmt: skip
"""Points that every run passes at least four times."""


def die_twice(folder: Path, run: Path, round_: int, power: bool) -> None:
    """Die at a write of one kind, the kinds in turn, go on, and die at any point on the way if there is one."""
    draw = random.Random(round_)
    # A power failure at another kind than a kill.
    kind = WRITES[(round_ + power) % len(WRITES)]
    point = (kind, draw.randint(1, 4))
    assert die_at(folder, run, point, power), f"never came to {point}"
    again = (fault_points.ANY, draw.randint(1, 60))
    died = die_at(folder, run, again, power)
    print(f"died at {point}, {'and at point' if died else 'but not at point'} {again[1]} of the next start")


def train_unbroken(folder: Path) -> Path:
    """The run that the others are held against."""
    run = folder / "unbroken"
    finish(train(folder, run, resume=False), folder)
    return run


def assert_same_records(run: Path, unbroken: Path) -> None:
    """The same bytes, and nothing of a killed write beside them."""
    for name in RECORDS:
        assert (run / name).read_bytes() == (unbroken / name).read_bytes(), name
    left = [path.name for path in run.rglob("*.tmp")]
    assert not left, f"temporary files of killed writes stay behind: {left}"


def copied(folder: Path, unbroken: Path, name: str) -> Path:
    """The unbroken run, as if it had died just after its last checkpoint."""
    run = folder / name
    (run / "checkpoints").mkdir(parents=True)
    for file in ("spec.yaml", *RECORDS):
        (run / file).write_bytes((unbroken / file).read_bytes())
    spec = (run / "spec.yaml").read_text().replace(str(unbroken), str(run))
    (run / "spec.yaml").write_text(spec)
    for path in find(unbroken / "checkpoints"):
        (run / "checkpoints" / path.name).write_bytes(path.read_bytes())
    return run


def go_on_without_the_newest(folder: Path, run: Path, damage: Callable[[bytes], bytes], last: int) -> None:
    """Damage the newest checkpoint and resume: that is said, and the one before it used.

    Args:
        damage: what becomes of its bytes.
        last: the run's last iteration.
    """
    newest, before = find(run / "checkpoints")
    newest.write_bytes(damage(newest.read_bytes()))
    output = finish(train(folder, run, resume=True), folder)
    assert newest.name in output and "passed over" in output, output
    assert f"iterations {int(before.stem[-8:]) + 1} to {last}" in output, output


def interrupt_and_go_on(folder: Path) -> Path:
    """Ctrl-C after the first interval: it is said how to continue, and the run does."""
    run = folder / "interrupted"
    process = train(folder, run)
    until = time.monotonic() + 240
    while not size(run / RECORDS[0]) and process.exitcode is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, folder, code=130)
    assert "msbal train interrupted/spec.yaml --resume" in output, output
    assert "Traceback" not in output
    finish(start(folder, "train", "interrupted/spec.yaml", "--resume", "--plain"), folder)
    return run


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}
"""What may have become of a checkpoint's bytes."""
