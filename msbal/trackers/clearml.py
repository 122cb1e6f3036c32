"""ClearML."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.error import HTTPError
from urllib.request import urlopen

from msbal.errors import SpecError, as_typed
from msbal.trackers.tracker import PROJECT, Tracker

FRAMEWORKS = (
    "catboost", "detect_repository", "fastai", "gradio", "hydra", "joblib", "jsonargparse", "lightgbm", "matplotlib",
    "megengine", "pytorch", "scikit", "tensorboard", "tensorflow", "tfdefines", "xgboost",
)  # fmt: skip
"""What ClearML would patch or inspect, to send things that nobody has asked for."""
SECONDS = 20.0  # for its server to answer


class ClearmlTracker(Tracker):
    """Sends a run to a ClearML server, or keeps it on this machine where ``CLEARML_OFFLINE_MODE=1``."""

    name: ClassVar[str] = "clearml"
    package: ClassVar[str] = "clearml"
    loggers: ClassVar[Sequence[str]] = ("clearml",)

    def check(self) -> None:
        offline = self.api.Task.is_offline()
        file = Path(os.environ.get("CLEARML_CONFIG_FILE", "~/clearml.conf")).expanduser()
        if not (offline or file.exists() or "CLEARML_API_ACCESS_KEY" in os.environ):
            raise SpecError(
                "log.trackers", "clearml is not set up on this machine",
                fix="run `clearml-init`, or set CLEARML_OFFLINE_MODE=1",
            )  # fmt: skip

    def begin(self, iteration: int) -> str:
        self._reach()
        kept = self.run.kept_id(self.name)
        self._task = self.api.Task.init(
            project_name=os.environ.get("CLEARML_PROJECT", PROJECT),
            task_name=os.environ.get("CLEARML_TASK", self.run.name),
            reuse_last_task_id=kept or False,
            continue_last_task=0 if kept else False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict.fromkeys(FRAMEWORKS, False),
            auto_connect_streams=False,
        )
        self.run.keep_id(self.name, self._task.id)
        self._task.connect_configuration(dict(self.run.spec), name="spec")
        if self.api.Task.is_offline():
            folder = self._task.get_offline_mode_folder()
            return f"offline; send it with `clearml-task --import-offline-session {as_typed(folder)}.zip`"
        return str(self._task.get_output_log_web_page())

    def _reach(self) -> None:
        """Refuse a server that does not answer, for which ClearML would wait for ever."""
        if not self.api.Task.is_offline():
            host = self.api.backend_api.Session.get_api_server_host()
            with contextlib.suppress(HTTPError):  # any answer will do
                urlopen(host, timeout=SECONDS)

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        logger = self._task.get_logger()
        for name, value in row.items():
            title, _, series = name.rpartition("/")  # all levels in one chart
            logger.report_scalar(title or series, series, value, iteration)

    def show(self, iteration: int, name: str, path: Path) -> None:
        title, _, series = name.rpartition("/")
        self._task.get_logger().report_image(title, series, iteration, local_path=str(path))

    def end(self, how: str) -> None:
        if how == "failed":
            self._task.mark_failed()
        self._task.close()
