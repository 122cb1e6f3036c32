"""The processes of a run, as torchrun or `msbal.training.launch` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from msbal.engine.processes import rank, world_size
from msbal.errors import MsbalError, RunError, SpecError
from msbal.training.launch import LOST, UNMET

TIMEOUT = "MSBAL_TIMEOUT"
"""Environment variable: how many seconds a process waits for another, by default 600."""

T = TypeVar("T")


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    if world_size() > 1:
        dist.barrier()


def from_first_rank(compute: Callable[[], T]) -> T:
    """Return on all ranks what `compute` returns on the first, or raise the `MsbalError` that it raises there."""
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = compute()
        except MsbalError as error:
            outcome[1] = error
    if world_size() > 1:
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]  # type: ignore[no-any-return]


def resolve_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; each of several processes has its own GPU.

    Raises:
        SpecError: where no machine has that many GPUs.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SpecError("device", f"`{name}`", "an existing GPU, cpu or auto") from error
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if there and (device.index or 0) >= there:
        last = f" to cuda:{there - 1}" if there > 1 else ""
        raise SpecError(
            "device", f"`{name}`, but torch sees {there} GPU{'s' * (there > 1)}", f"cuda:0{last}, cpu or auto"
        )
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes where several were started; otherwise a no-op.

    `TIMEOUT` limits how long the others wait for a process that hangs; they notice at once when one dies.

    Raises:
        SpecError: where the timeout is no number of seconds.
        RunError: instead of the transport's error, where another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    given = os.environ.get(TIMEOUT, "600")
    try:
        timeout = timedelta(seconds=float(given))
        if not 0 < timeout.total_seconds() < 1e7:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise SpecError(TIMEOUT, repr(given), "a number of seconds above 0") from error
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        reason = str(error).partition("\n")[0]
        raise RunError(
            f"rank {os.environ.get('RANK')}", f"{UNMET}: {reason}",
            f"all {os.environ['WORLD_SIZE']} within {timeout.total_seconds():g} s",
            "do all of them run, and reach MASTER_ADDR?",
        ) from error  # fmt: skip
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise RunError(f"rank {dist.get_rank()}", LOST, fix="the cause is in their output") from error
        raise
    finally:
        dist.destroy_process_group()
