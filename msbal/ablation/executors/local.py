"""Run cells on this machine, several at once, each in a process of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue

from msbal.ablation.executors.executor import Stage
from msbal.ablation.work import Ended, Event, Order, bring_to_end


class LocalExecutor:
    """Run `jobs` cells at once; with several GPUs, each gets one of its own, in turn.

    Args:
        gpus: whether runs may use GPUs.
    """

    stays = False
    poll_seconds = 1.0

    def __init__(self, jobs: int = 1, gpus: bool = True) -> None:
        if jobs < 1:
            raise ValueError(f"Parameter `jobs` should be at least 1. Found {jobs}.")
        self.jobs = jobs
        self._pool = ThreadPoolExecutor(jobs)
        self._halt = threading.Event()
        self._devices: SimpleQueue[str] = SimpleQueue()
        for device in _devices(jobs) if gpus and jobs > 1 else ():
            self._devices.put(device)

    def submit(self, orders: Sequence[Order]) -> list[LocalJob]:
        """See `Executor`."""
        jobs = [LocalJob() for _ in orders]
        for job, order in zip(jobs, orders, strict=True):
            job.future = self._pool.submit(self._work, order, job)
        return jobs

    def stop(self) -> None:
        """See `Executor`."""
        self._halt.set()

    def messages(self) -> list[str]:
        """None."""
        return []

    def close(self) -> None:
        """Stop, and wait for the end."""
        self._halt.set()
        self._pool.shutdown(wait=True)

    def _work(self, order: Order, job: LocalJob) -> Ended:
        if self._halt.is_set():
            return Ended("stopped")
        try:
            device: str | None = self._devices.get_nowait()
        except Empty:
            device = None
        try:
            return bring_to_end(order, self._halt.is_set, job.told, self.environment(device))
        finally:
            if device is not None:
                self._devices.put(device)

    def environment(self, device: str | None) -> dict[str, str]:
        """Return the variables that a training gets on top of this process's environment."""
        found = {}
        # Jobs that each take all cores slow one another down.
        if self.jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            found["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.jobs))
        if device is not None:
            found["CUDA_VISIBLE_DEVICES"] = device
        return found


class LocalJob:
    """See `executor.Job`."""

    def __init__(self) -> None:
        self.future: Future[Ended] | None = None
        self._stage: Stage = "queued"

    def told(self, event: Event) -> None:
        """Note where it is; called by the thread that works on it."""
        self._stage = event

    def stage(self) -> Stage:
        """See `Job`."""
        return "ended" if self.future is not None and self.future.done() else self._stage

    def ended(self) -> Ended:
        """See `Job`."""
        assert self.future is not None
        return self.future.result()


def _devices(jobs: int) -> list[str]:
    """Return a GPU for each job, in turn; empty with fewer than two GPUs."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(count)]
    return [names[job % count] for job in range(jobs)] if count > 1 else []
