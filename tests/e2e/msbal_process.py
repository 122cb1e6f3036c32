"""The command line in a process of its own that a test can kill, without paying for torch's import each time.

A fork server imports everything once; each command is a fork of it. Where the platform has no fork, each is
a fresh process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TINY = """\
backend: torchvision
model: {{name: retinanet, backbone: resnet18, min_size: 64, max_size: 64, fpn_channels: 8, head_convs: 1, norm: bn}}
data: {{format: generated, root: {root}, train_images: 6, val_images: 2, size: 64}}
evaluate: {{enabled: false}}
schedule: {{iterations: {iterations}, batch_size: 1, workers: 0, checkpoint_every: 4, warmup: 2}}
balance: {{strategy: rlo, interval: 3, seed: 5}}
device: cpu
"""


# Test modules of other frameworks add theirs on import, before the first process starts.
PRELOAD = [
    "msbal.cli.app",
    "msbal.training",
    "msbal.ui.monitor",
    "msbal_torchvision.training.loop",
    "msbal_torchvision.models",
]


def write_spec(folder: Path, iterations: int = 30) -> Path:
    """A spec that trains in a second or so."""
    path = folder / "spec.yaml"
    path.write_text(TINY.format(root=folder / "data", iterations=iterations), encoding="utf-8")
    return path


def context() -> BaseContext:
    """Where the processes come from."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOAD)
    return found


def start(folder: Path, *arguments: str | Path, first: Callable[[], None] | None = None) -> BaseProcess:
    """`msbal ARGUMENTS` in `folder`; its output goes to ``output.txt`` there.

    Args:
        first: called in the new process before the command; it has to be picklable.
    """
    process = context().Process(target=_run, args=(str(folder), [str(a) for a in arguments], first))  # type: ignore[attr-defined]
    process.start()
    return process


def finish(process: Any, folder: Path, code: int = 0, seconds: float = 300) -> str:
    """Wait for the exit code `code`, and give what was printed."""
    process.join(seconds)
    output = (folder / "output.txt").read_text(encoding="utf-8")
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still running after {seconds} s:\n{output}")
    assert process.exitcode == code, f"exit code {process.exitcode}\n{output}"
    return output


def _run(folder: str, arguments: list[str], first: Callable[[], None] | None = None) -> None:
    os.chdir(folder)
    handle = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch
    import torchvision
    from tiny_backbone import TinyResNet

    torch.set_num_threads(1)
    # Eleven million parameters would make the checkpoints, not the training, take all the time.
    torchvision.models.resnet18 = TinyResNet
    from msbal.cli.app import run

    if first is not None:
        first()
    sys.exit(run(arguments))
