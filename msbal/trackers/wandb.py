"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from msbal.errors import SpecError, as_typed
from msbal.trackers.tracker import PROJECT, Tracker

OFFLINE = ("offline", "dryrun", "disabled")
SECONDS = 30.0  # for its server to answer


class WandbTracker(Tracker):
    """Sends a run to Weights & Biases, or keeps it under the run's folder where ``WANDB_MODE=offline``.

    Neither code, nor git's state, nor what the terminal shows is sent.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"

    def check(self) -> None:
        self._settings = self.api.setup(self.api.Settings(silent=True, console="off")).settings
        if self._settings.mode not in OFFLINE:
            try:
                self.api.login(verify=False)
            except self.api.Error as error:
                raise SpecError(
                    "log.trackers",
                    "wandb is not logged in",
                    fix="run `wandb login`, or set WANDB_MODE=offline",
                ) from error

    def begin(self, iteration: int) -> str:
        kept = self.run.kept_id(self.name)
        self._run = self.api.init(
            project=self._settings.project or PROJECT,
            name=self._settings.run_name or self.run.name,
            id=kept,
            resume="allow" if kept else None,
            config=dict(self.run.spec),
            dir=self.run.files(self.name),
            settings=self.api.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                init_timeout=SECONDS,
            ),
        )
        self.run.keep_id(self.name, self._run.id)
        # An axis of their own: W&B refuses steps before its last, as those of a run resumed from a checkpoint.
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")
        later = f"`wandb sync {as_typed(Path(self._run.dir).parent)}`"
        return self._run.url or f"{self._settings.mode}; send it with {later}"

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        self._run.log({**row, "iteration": iteration})

    def show(self, iteration: int, name: str, path: Path) -> None:
        self._run.log({name: self.api.Image(str(path)), "iteration": iteration})

    def end(self, how: str) -> None:
        self._run.finish(exit_code=0 if how == "finished" else 1)
