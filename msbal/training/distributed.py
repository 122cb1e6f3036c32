"""Several processes of one run, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from msbal.errors import RunError, SpecError
from msbal.training.launch import LOST, UNMET


def rank() -> int:
    """This process's number; 0 in a run of one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def barrier() -> None:
    """Wait for the other processes, if there are any."""
    if world_size() > 1:
        dist.barrier()


def resolve_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun each process its own GPU.

    Raises:
        SpecError: where no machine has that many.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SpecError("device", f"`{name}`", "a GPU that there is, cpu or auto") from error


TIMEOUT = "MSBAL_TIMEOUT"
"""Environment variable: seconds that one process waits for another, 600 by default."""


def _timeout() -> timedelta:
    given = os.environ.get(TIMEOUT, "600")
    try:
        seconds = float(given)
        if not 0 < seconds < 1e7:
            raise ValueError
    except ValueError as error:
        raise SpecError(TIMEOUT, repr(given), "a number of seconds above 0") from error
    return timedelta(seconds=seconds)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes where torchrun started several; otherwise do nothing.

    `TIMEOUT` bounds how long the others wait for a process that hangs; one that died they notice at once.

    Raises:
        SpecError: where the timeout is no number of seconds.
        RunError: in place of the transport's error where another process has gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = _timeout()
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
    except (RuntimeError, ValueError) as error:  # DistError and its kind are RuntimeErrors
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
