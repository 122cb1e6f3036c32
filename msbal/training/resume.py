"""Whether a spec may continue a run that another spec began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.spec import RunSpec, dump_spec, read_mapping

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
        SpecError: naming the first key that differs.
    """
    before = dict(_leaves(read_mapping(run.spec_file)))
    now = dict(_leaves(dump_spec(spec)))
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key) and not key.startswith(_FREE):
            raise SpecError(
                key,
                f"{now.get(key)!r}, but the run in {run.path} began with {before.get(key)!r}",
                fix="resume with the run's own spec.yaml, or start anew with another `output` or --force",
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
