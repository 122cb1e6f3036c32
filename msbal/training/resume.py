"""Whether a spec may continue a run that another spec began, and from where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from msbal.errors import SpecError
from msbal.records import Recorder, RunDirectory, read_starts
from msbal.spec import RunSpec, differences, dump_spec, read_mapping
from msbal.training.checkpoints import find, iteration_of
from msbal.training.distributed import rank, world_size

_FREE = (
    "output",
    "device",
    "evaluate.",
    "log.",
    "schedule.iterations",
    "schedule.epochs",
    "schedule.checkpoint_every",
    "schedule.workers",
)
"""What may differ: where and how long it runs and what it writes, not what it computes."""


def check_same_run(spec: RunSpec, run: RunDirectory) -> None:
    """Refuse to continue a run as a different one.

    Raises:
        SpecError: naming the first key that differs, or the number of processes.
    """
    starts = read_starts(run)
    processes = starts[-1].get("processes") if starts else None
    if isinstance(processes, int) and processes != world_size():
        raise SpecError(
            "--resume",
            f"{_processes(world_size())}, but the run in {run.path} is one of {_processes(processes)}, which "
            "share its batches",
            _processes(processes),
            f"add --nproc {processes}" if processes > 1 else "leave out --nproc",
        )
    for key, before, now in differences(read_mapping(run.spec_file), dump_spec(spec)):
        if not key.startswith(_FREE):
            raise SpecError(
                key,
                f"{now!r}, but the run in {run.path} began with {before!r}",
                fix="resume with the run's own spec.yaml, or start anew with another `output` or --force",
            )


def choose_checkpoint(run: RunDirectory, recorder: Recorder, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint, by name, whose records are all there; on all ranks what the first one finds.

    The backend falls back on an older one where it is damaged. Where none has all its records, the newest:
    what was learned is worth more than what was written down.

    Args:
        recorder: of the run's balancers, which it has not rewound yet.
        say: told of each checkpoint that is passed over, and of records that are lost.
    """
    chosen: list[Path | None] = [None]
    if rank() == 0:
        chosen = [_newest_recorded(run, recorder, say)]
    if world_size() > 1:
        dist.broadcast_object_list(chosen)
    return chosen[0]


def _newest_recorded(run: RunDirectory, recorder: Recorder, say: Callable[[str], None]) -> Path | None:
    found = find(run.checkpoints)
    recorded = recorder.whole_up_to()
    for path in found:
        if iteration_of(path) - recorded < recorder.interval:
            return path
        say(
            f"passed over the checkpoint {path.name}: the records of the run are whole only up to "
            f"iteration {recorded}"
        )
    if not found:
        return None
    say(f"no checkpoint is as old as that: continuing from {found[0].name} without the records in between")
    return found[0]


def _processes(count: int) -> str:
    return f"{count} process" + ("es" if count > 1 else "")
