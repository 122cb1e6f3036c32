"""Comet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from msbal.errors import RunError, SpecError, as_typed
from msbal.trackers.tracker import PROJECT, Tracker


class CometTracker(Tracker):
    """Sends a run to Comet, or keeps it under the run's folder where ``COMET_START_ONLINE=0``."""

    name: ClassVar[str] = "comet"
    package: ClassVar[str] = "comet_ml"
    loggers: ClassVar[Sequence[str]] = ("comet_ml",)

    def check(self) -> None:
        self._config = self.api.config.get_config()
        self._online = self._config["comet.start.online"] is not False
        if self._online and not self._config["comet.api_key"]:
            raise SpecError(
                "log.trackers", "comet has no API key", fix="run `comet login`, or set COMET_START_ONLINE=0"
            )

    def begin(self, iteration: int) -> str:
        kept = self.run.kept_id(self.name)
        folder = os.environ.get("COMET_OFFLINE_DIRECTORY") or str(self.run.files(self.name))
        settings = self.api.ExperimentConfig(
            name=self.run.name,
            offline_directory=folder,
            display_summary_level=0,
            log_code=False,
            log_graph=False,
            log_git_metadata=False,
            log_git_patch=False,
            parse_args=False,
            auto_output_logging=False,
            auto_param_logging=False,
            auto_metric_logging=False,
        )
        self._experiment = self.api.start(
            project_name=self._config["comet.project_name"] or PROJECT,
            experiment_key=kept,
            experiment_config=settings,
        )
        if not self._experiment.alive:
            raise RunError("comet", "its server cannot be reached, or refuses the API key")
        self.run.keep_id(self.name, self._experiment.get_key())
        self._experiment.log_parameters(dict(self.run.spec), nested_support=True)
        if self._online:
            return str(self._experiment.url)
        return f"offline; send it with `comet upload {as_typed(folder)}/*.zip`"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        self._experiment.log_metrics(row, step=iteration)

    def show(self, iteration: int, name: str, path: Path) -> None:
        self._experiment.log_image(str(path), name=name, step=iteration)

    def end(self, how: str) -> None:
        self._experiment.log_other("ending", how)
        self._experiment.end()
