"""Run cells on a Ray cluster (https://docs.ray.io), each with the GPUs and CPUs that it is given.

The run of a lost machine goes on elsewhere from its last checkpoint. So does a failed run that may succeed on another
machine, `MAX_TRIES` times in all. (Ray's own retries would neither tell the user nor avoid the machine.)
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from msbal.ablation.executors.executor import Stage
from msbal.ablation.work import Ended, Event, Order, bring_to_end
from msbal.errors import BackendError, RunError

MAX_TRIES = 4
WRONG_SPEC = 2  # the exit code of a training whose spec is wrong, which it is on every machine
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.2  # between two polls of the tasks
NODE = "ray.io/node-id"


class RayExecutor:
    """Run cells as tasks of a Ray cluster.

    Args:
        address: as `ray.init` takes it: ``auto``, ``HOST:6379``, ``ray://HOST:10001``, or ``local`` for a
            cluster of this machine alone.
        gpus: for each run, fractions allowed; None for one if the cluster has any.
        cpus: for each run.
        jobs: the most runs at once; None for as many as there is room for.

    Attributes:
        needs: the resources of each run, as Ray names them.
        avoided: the ids of machines on which a run has failed.

    Raises:
        BackendError: if Ray is not installed.
        RunError: if there is no cluster.
    """

    stays = False
    poll_seconds = 5.0

    def __init__(
        self, address: str, gpus: float | None = None, cpus: float = 1, jobs: int | None = None
    ) -> None:
        self._ray = _ray()
        try:
            _answers(address)
            self._ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False
            )
        except (OSError, ValueError, RuntimeError, SystemExit) as error:
            raise RunError(
                f"--ray {address}", _first_line(error), "the address of a running Ray cluster",
                "start one with `ray start --head`, or say --ray local",
            ) from error  # fmt: skip
        if gpus is None:
            gpus = 1 if self._ray.cluster_resources().get("GPU", 0) else 0
        self.needs = {"CPU": cpus, "GPU": gpus}
        self.avoided: set[str] = set()
        self._jobs = jobs
        self._open: list[RayJob] = []
        self._said: list[str] = []
        self._halted, self._looked = False, 0.0
        # On the caller's machine, so that it is not lost with another one.
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        self.board = self._ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here).remote()
        if not self._room():
            self._said.append(
                f"no machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs: the runs wait until one has"
            )

    def submit(self, orders: Sequence[Order]) -> list[RayJob]:
        """See `Executor`."""
        made = [RayJob(self, order) for order in orders]
        self._open += made
        self.look()
        return made

    def stop(self) -> None:
        """See `Executor`."""
        self._halted = True
        begun = self._ray.get(self.board.halt.remote())
        for job in self._open:
            # A task that has begun would be interrupted, and its training die without a checkpoint.
            if job.task is not None and job.number not in begun:
                self._ray.cancel(job.task)
        self.look()

    def messages(self) -> list[str]:
        """See `Executor`."""
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        """See `Executor`."""
        self._ray.shutdown()

    def look(self) -> None:
        """Update the stage of every open job, and start those there is room for."""
        if time.monotonic() < self._looked + LOOK_SECONDS:
            return
        for number, event in self._ray.get(self.board.events.remote()):
            for job in self._open:
                if job.number == number:
                    job.at = event
        waited_for = {job.task: job for job in self._open if job.task is not None}
        if waited_for:
            done, _ = self._ray.wait(list(waited_for), num_returns=len(waited_for), timeout=0)
            for task in done:
                self._take(waited_for[task])
        for job in self._open:
            if job.task is None and self._halted:
                job.result = Ended("stopped")
        self._open = [job for job in self._open if job.result is None]
        going = sum(job.task is not None for job in self._open)
        for job in self._open:
            if job.task is None and (self._jobs is None or going < self._jobs):
                self._start(job)
                going += 1
        self._looked = time.monotonic()

    def _start(self, job: RayJob) -> None:
        job.number = self._ray.get(self.board.number.remote())
        options: dict[str, Any] = {"num_cpus": self.needs["CPU"], "num_gpus": self.needs["GPU"]}
        if job.avoid and self._room(job.avoid):
            options["label_selector"] = {NODE: f"!in({','.join(sorted(job.avoid))})"}
        # Ray would restart a lost task by itself, but silently.
        task = self._ray.remote(_work).options(max_retries=0, name=f"msbal {job.name}", **options)
        job.task, job.at = task.remote(job.order, job.number, self.board), "queued"
        job.tries += 1

    def _take(self, job: RayJob) -> None:
        """Take the result of a task; its job is over too, unless it is worth another try."""
        task, job.task = job.task, None
        job.number = -1
        try:
            ended, node = self._ray.get(task)
        except self._ray.exceptions.TaskCancelledError:
            job.result = Ended("stopped")
            return
        except self._ray.exceptions.RayError as error:
            ended, node, how = Ended("failed", _first_line(error)), None, "its machine or process was lost"
        else:
            how = f"failed on {ended.place} ({ended.reason})"
        if ended.state == "stopped" and not self._halted:
            ended, how = Ended("failed", ended.reason, ended.code, ended.place), "was stopped from outside"
        if ended.state != "failed" or self._halted or job.tries >= MAX_TRIES or ended.code == WRONG_SPEC:
            job.result = ended
        else:
            job.at = "queued"
            if node is not None:
                job.avoid.add(node)
                self.avoided.add(node)
            self._said.append(f"{job.name}: {how}; it goes on elsewhere")

    def _room(self, avoid: set[str] | frozenset[str] = frozenset()) -> bool:
        """Return whether any machine, except those to avoid, is large enough for a run."""
        return any(
            node["Alive"]
            and node["NodeID"] not in avoid
            and all(node["Resources"].get(kind, 0) >= amount for kind, amount in self.needs.items())
            for node in self._ray.nodes()
        )


@dataclass(eq=False)
class RayJob:
    """See `executor.Job`.

    Attributes:
        number: that of the task working on it now.
        avoid: the machines on which it failed.
    """

    executor: RayExecutor
    order: Order
    task: Any = None
    number: int = -1
    at: Stage = "queued"
    tries: int = 0
    avoid: set[str] = field(default_factory=set)
    result: Ended | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.order.arm}, seed {self.order.seed}"

    def stage(self) -> Stage:
        """See `Job`."""
        if self.result is None:
            self.executor.look()
        return self.at if self.result is None else "ended"

    def ended(self) -> Ended:
        """See `Job`."""
        assert self.result is not None
        return self.result


class _Board:
    """An actor that carries events from the tasks to the caller, and the request to stop back to them."""

    def __init__(self) -> None:
        self._events: list[tuple[int, Event]] = []
        self._begun: set[int] = set()
        self._numbers, self._halted = 0, False

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def begin(self, number: int) -> bool:
        """Return whether a task may begin: none does after a halt, and those that have begun end by themselves."""
        if not self._halted:
            self._begun.add(number)
        return not self._halted

    def told(self, number: int, event: Event) -> None:
        self._events.append((number, event))

    def events(self) -> list[tuple[int, Event]]:
        events, self._events = self._events, []
        return events

    def halt(self) -> set[int]:
        """Ask the tasks to stop; return those that have begun."""
        self._halted = True
        return self._begun

    def halted(self) -> bool:
        return self._halted


def _work(order: Order, number: int, board: Any) -> tuple[Ended, str]:
    """The task; return how it ended and the id of the node."""
    ray = _ray()
    node = ray.get_runtime_context().get_node_id()
    if not ray.get(board.begin.remote(number)):
        return Ended("stopped", place=socket.gethostname()), node
    ended = bring_to_end(
        order,
        halted=lambda: bool(ray.get(board.halted.remote())),
        told=lambda event: board.told.remote(number, event),
    )
    return ended, node


def _answers(address: str) -> None:
    """Check that something answers at HOST:PORT: Ray itself would try for over a minute and then exit.

    Raises:
        OSError: if nothing answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def _ray() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise BackendError(
            "--ray", f"ray cannot be imported: {error}", "Ray on this machine and on the cluster's",
            "pip install 'msbal[ray]'",
        ) from error  # fmt: skip
    return ray


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
