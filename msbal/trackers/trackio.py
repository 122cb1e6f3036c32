"""Trackio."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from msbal.trackers.tracker import PROJECT, Tracker


class TrackioTracker(Tracker):
    """Keeps a run in Trackio's local database, or sends it to a Space where ``TRACKIO_SPACE_ID`` names one."""

    name: ClassVar[str] = "trackio"
    package: ClassVar[str] = "trackio"

    def begin(self, iteration: int) -> str:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        kept = self.run.kept_id(self.name)
        self._run = self.api.init(
            project=project,
            name=kept or f"{self.run.name}-{secrets.token_hex(2)}",  # Trackio knows a run by its name alone
            config=dict(self.run.spec),
            resume="allow" if kept else "never",
            embed=False,
        )
        self.run.keep_id(self.name, self._run.name)
        return f"see it with `trackio show --project {project}`"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=iteration)

    def show(self, iteration: int, name: str, path: Path) -> None:
        self._run.log({name: self.api.Image(str(path))}, step=iteration)

    def end(self, how: str) -> None:
        self.api.finish()
