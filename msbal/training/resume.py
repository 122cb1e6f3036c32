"""Whether a spec may continue a run that is there, and from which checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msbal.engine.processes import world_size
from msbal.errors import SpecError
from msbal.records import Recorder, RunDirectory, read_metrics, read_starts
from msbal.spec import RunSpec, differences, dump_spec, read_mapping
from msbal.training.checkpoints import find, iteration_of
from msbal.training.distributed import from_first_rank

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
"""Keys that may differ: where and how long a run runs and what it writes, but not what it computes."""


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
            f"{_processes(world_size())}, but the run in {run.path} has {_processes(processes)}, which share its "
            "batches",
            _processes(processes),
            f"add --nproc {processes}" if processes > 1 else "leave out --nproc",
        )
    # A measurement changes nothing, but for a strategy that decides by it.
    free = _FREE if spec.balance.make_strategy().needs_gradients else (*_FREE, "balance.measure")
    for key, before, now in differences(read_mapping(run.spec_file), dump_spec(spec)):
        if not key.startswith(free):
            raise SpecError(
                key,
                f"{now!r}, but the run in {run.path} began with {before!r}",
                fix="resume with the run's own spec.yaml, or start anew with another `output` or --force",
            )


def final_metrics(spec: RunSpec, run: RunDirectory) -> Mapping[str, Any] | None:
    """Return a run's final metrics where `spec` leaves nothing to do, else None."""
    final = read_metrics(run)["final"]
    changed = [key for key, *_ in differences(read_mapping(run.spec_file), dump_spec(spec))]
    if not isinstance(final, dict) or {"schedule.iterations", "schedule.epochs"} & set(changed):
        return None
    return final


def choose_checkpoint(run: RunDirectory, recorder: Recorder, say: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint, by name, that has all its records; all ranks take the first one's choice.

    The backend falls back on an older one where this is damaged. Where no checkpoint has all its records, the newest
    is taken, since what was learned is worth more than what was written down.

    Args:
        recorder: of the run's balancers, not yet rewound.
        say: called with a line for each checkpoint that is skipped, and for records that are lost.
    """
    return from_first_rank(lambda: _newest_recorded(run, recorder, say))


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
    say(f"no checkpoint is that old: continuing from {found[0].name} without the records in between")
    return found[0]


def _processes(count: int) -> str:
    return f"{count} process" + ("es" if count > 1 else "")
