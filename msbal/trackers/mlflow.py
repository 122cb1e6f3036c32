"""MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from msbal.trackers.tracker import PROJECT, Tracker

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker(Tracker):
    """Sends a run to where MLflow's ``MLFLOW_TRACKING_URI`` says, by default a database in the working folder."""

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str] = "mlflow"
    loggers: ClassVar[Sequence[str]] = ("mlflow", "alembic")

    def begin(self, iteration: int) -> str:
        if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"} & set(os.environ):
            self.api.set_experiment(PROJECT)
        kept = self.run.kept_id(self.name)
        run = self.api.start_run(run_id=kept, run_name=None if kept else self.run.name)
        self.run.keep_id(self.name, run.info.run_id)
        if kept is None:  # MLflow refuses other values for parameters that it has
            self.api.log_params(dict(_flat(self.run.spec)))
        self.api.log_artifact(str(self.run.folder.spec_file))
        return f"run {run.info.run_id} at {self.api.get_tracking_uri()}"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        named = {re.sub(r"[^\w./: -]", "_", name): value for name, value in row.items()}
        self.api.log_metrics(named, step=iteration, synchronous=False)

    def show(self, iteration: int, name: str, path: Path) -> None:
        self.api.log_artifact(str(path), name.partition("/")[0])

    def end(self, how: str) -> None:
        self.api.flush_async_logging()
        self.api.end_run(STATUS[how])


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``balance.interval``, 100 and the like."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
