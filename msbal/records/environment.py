"""environment.json: command, versions and machine of every start of a run."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from msbal.records.atomic import write_json
from msbal.records.run_directory import RunDirectory

_PACKAGES = ("msbal", "torch", "numpy", "pydantic")


def read_starts(run: RunDirectory) -> list[dict[str, Any]]:
    """Return environment.json's entry for each start of the run; none where it is missing or damaged."""
    try:
        starts = json.loads(run.environment_file.read_bytes())["starts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def write_environment(
    run: RunDirectory, versions: Mapping[str, str], device: str, processes: int, data: Mapping[str, Any]
) -> None:
    """Add this start of the run: time, command, versions, machine, training data."""
    starts = read_starts(run)
    starts.append(
        {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": sys.argv,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": device,
            "processes": processes,
            "data": dict(data),
            "packages": {**{name: _version(name) for name in _PACKAGES}, **versions},
        }
    )
    write_json(run.environment_file, {"starts": starts}, indent=1)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
