"""Run cells as an array of SLURM jobs, submitted with submitit (https://github.com/facebookincubator/submitit).

The jobs do not depend on the caller: if it is stopped or killed, they stay with SLURM, and the next call finds them
again. At its time limit, or when it is preempted, a job writes a checkpoint and is queued again.
"""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msbal.ablation.executors.executor import Stage
from msbal.ablation.work import Ended, Order, bring_to_end
from msbal.errors import BackendError, RunError, SpecError
from msbal.records.atomic import write_json

TIME = "24:00:00"
MAX_REQUEUES = 1000  # time limits after which submitit gives a run up; its default is three
LOOK_SECONDS = 10.0  # between two calls of squeue, which the whole cluster shares
LINGER_SECONDS = 60.0
NOT_BEGUN = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})


class SlurmExecutor:
    """Run cells as an array of jobs.

    Args:
        folder: for submitit's files, on a file system that all machines share.
        name: that of the jobs.
        gpus, cpus: for each run.
        jobs: the most runs at once; None for as many as there is room for.
        options: those of sbatch without leading dashes, e.g. ``{"partition": "gpu", "time": "12:00:00"}``.
        cluster: ``local`` for submitit's simulation of SLURM on this machine.

    Raises:
        BackendError: if submitit or SLURM is not installed.
        SpecError: if the time limit cannot be read.
    """

    stays = True
    poll_seconds = 5.0

    def __init__(
        self,
        folder: Path,
        name: str,
        gpus: int = 0,
        cpus: int = 1,
        jobs: int | None = None,
        options: Mapping[str, Any] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        submitit = _submitit()
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise BackendError(
                "--slurm", "there is no `sbatch` here", "a machine from which SLURM jobs are submitted",
                "log in to one, or use --jobs or --ray",
            )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        sbatch = {key.lstrip("-").replace("-", "_"): value for key, value in (options or {}).items()}
        self._folder, self._said = folder, list[str]()
        self._queue = _Queue() if cluster == "slurm" else None
        self._executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=MAX_REQUEUES)
        self._executor.update_parameters(
            name=name,
            timeout_min=minutes(sbatch.pop("time", TIME)),
            cpus_per_task=cpus,
            slurm_additional_parameters={"requeue": True, **sbatch},
            **({"gpus_per_node": gpus} if gpus else {}),
            **({"slurm_array_parallelism": jobs} if jobs else {}),
        )

    def submit(self, orders: Sequence[Order]) -> list[SlurmJob]:
        """See `Executor`. Find again the unfinished runs that an earlier call has submitted."""
        numbers = self._still_there()
        new = [order for order in orders if order.name not in numbers]
        found = len(orders) - len(new)
        tasks: dict[str, Any] = {}
        if new:
            tasks = dict(zip((order.name for order in new), self._submitted(new), strict=True))
            numbers |= {name: str(task.job_id) for name, task in tasks.items()}
            write_json(self._file, {**self._remembered(), **numbers}, indent=1)
            if self._queue is not None:
                self._queue.forget()
            array = numbers[new[0].name].split("_")[0]
            self._said.append(f"{len(new)} runs are SLURM's job {array}: `scancel {array}` ends them")
        if found:
            self._said.append(f"{found} runs are with SLURM already, from an earlier call")
        return [
            SlurmJob(order, numbers[order.name], self._folder, self._queue, tasks.get(order.name))
            for order in orders
        ]

    def _submitted(self, orders: Sequence[Order]) -> list[Any]:
        try:
            return list(self._executor.map_array(Work(), orders))
        except Exception as error:  # submitit raises errors of its own and passes on others
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise RunError(
                "--slurm", f"the jobs were not accepted: {said[-1] if said else repr(error)}",
                "resources and options that this cluster has", "see --gpus, --cpus and --slurm-option",
            ) from error  # fmt: skip

    def stop(self) -> None:
        """Leave the jobs to SLURM."""

    def messages(self) -> list[str]:
        """See `Executor`."""
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        """Leave the jobs to SLURM."""

    @property
    def _file(self) -> Path:
        """The file with the number of each run's last job."""
        return self._folder / "jobs.json"

    def _remembered(self) -> dict[str, str]:
        try:
            found = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _still_there(self) -> dict[str, str]:
        if self._queue is None:
            return {}
        return {
            name: number
            for name, number in self._remembered().items()
            if self._queue.stage(number) != "ended"
        }


@dataclass(frozen=True)
class SlurmJob:
    """See `executor.Job`.

    Attributes:
        number: SLURM's, such as ``12_3``.
        folder: that of submitit's files.
        task: submitit's own job, for the simulation.
    """

    order: Order
    number: str
    folder: Path
    queue: _Queue | None
    task: Any = None

    def stage(self) -> Stage:
        """See `Job`."""
        if self.queue is not None:
            return self.queue.stage(self.number)
        return "ended" if self.task.done() else "running"

    def ended(self) -> Ended:
        """See `Job`. The folder tells whether the run is finished."""
        said = self.folder / f"{self.number}_0_log.err"
        # srun may have added lines after ours.
        text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
        _, ours, rest = text.rpartition("RuntimeError: ")
        reason = rest.splitlines()[0] if ours else "its job is gone from SLURM's queue"
        return Ended("failed", f"{reason} (SLURM job {self.number}; see {said})")


class Work:
    """The work of a job. submitit pickles it, and calls `checkpoint` when SLURM announces the job's end."""

    def __init__(self) -> None:
        self._halt: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, order: Order) -> str:
        """Run a cell to its end.

        Raises:
            RuntimeError: if it failed, so that SLURM counts the job as failed.
        """
        found: list[Ended] = []
        halt = self._halt = threading.Event()

        def work() -> None:
            # SLURM signals all processes of a job. This signal is for `checkpoint` below; the training, which
            # inherits the mask, would die of it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
            found.append(bring_to_end(order, halt.is_set))

        # Signal handlers run in the main thread, so the work goes on in another.
        self._thread = threading.Thread(target=work)
        self._thread.start()
        self._thread.join()
        if not found:
            raise RuntimeError(f"the work on {order.name} broke off")
        if found[0].state == "stopped":
            # Not by `checkpoint`, which never returns here, but by SLURM's SIGTERM to the training: the job is
            # preempted or cancelled. If it ended now, it would not be queued again.
            time.sleep(LINGER_SECONDS)
            raise RuntimeError("it was stopped from outside; the next call resumes it")
        if found[0].state == "failed":
            raise RuntimeError(found[0].reason)
        return found[0].state

    def checkpoint(self, order: Order) -> Any:
        """Stop the training, which writes its checkpoint, and return what is queued again."""
        if self._halt is not None and self._thread is not None:
            self._halt.set()
            self._thread.join()
        return _submitit().helpers.DelayedSubmission(Work(), order)


class _Queue:
    """This user's jobs in SLURM's queue."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._looked: float | None = None

    def stage(self, number: str) -> Stage:
        """Return the stage of a job; one that is not in the queue has ended."""
        if self._looked is None or time.monotonic() > self._looked + LOOK_SECONDS:
            self._look()
        state = self._states.get(number)
        return "ended" if state is None else "queued" if state in NOT_BEGUN else "running"

    def forget(self) -> None:
        """Read the queue again next time, since something has been submitted."""
        self._looked = None

    def _look(self) -> None:
        command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%T"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:  # otherwise SLURM's controller is away, and the last state stands
            rows = (line.strip().partition("|") for line in done.stdout.splitlines())
            self._states = {number: state for number, _, state in rows}
        self._looked = time.monotonic()


def minutes(time_limit: object) -> int:
    """Return the minutes, rounded up, of a time limit as sbatch spells it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        SpecError: if it is none of these.
    """
    text = str(time_limit).strip()
    days, dash, rest = text.rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        day = int(days) if dash else 0
        if dash:
            hour, minute, second = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hour, minute, second = parts
        else:
            hour, (minute, second) = 0, (*parts, 0)[:2]
        if len(parts) > 3 or min(day, *parts) < 0:
            raise ValueError
    except ValueError:
        raise SpecError("slurm: time", f"`{text}`", "minutes, H:M:S or D-H:M:S, e.g. 12:00:00") from None
    return ((day * 24 + hour) * 60 + minute) + (1 if second else 0)


def _submitit() -> Any:
    try:
        import submitit
        import submitit.helpers
    except ImportError as error:
        raise BackendError(
            "--slurm", f"submitit cannot be imported: {error}", "submitit", "pip install 'msbal[slurm]'"
        ) from error
    return submitit
