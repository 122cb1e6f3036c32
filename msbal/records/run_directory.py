"""The folder of one run: where everything lies."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from msbal.errors import SpecError
from msbal.records import lock


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run. Nothing is created by making one of these."""

    path: Path

    @property
    def spec_file(self) -> Path:
        """The complete spec, reloadable."""
        return self.path / "spec.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, machine and command of every start."""
        return self.path / "environment.json"

    @property
    def intervals_file(self) -> Path:
        """One line an interval and group."""
        return self.path / "intervals.jsonl"

    @property
    def losses_file(self) -> Path:
        """One row an iteration: every term of every level, unweighted."""
        return self.path / "losses.csv"

    @property
    def metrics_file(self) -> Path:
        """All evaluations, and the final one."""
        return self.path / "metrics.json"

    @property
    def predictions_file(self) -> Path:
        """The final detections on the validation split, in COCO results format."""
        return self.path / "predictions.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def log_file(self) -> Path:
        """What was printed in plain words."""
        return self.path / "log.txt"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files, where asked for."""
        return self.path / "tensorboard"

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return self.spec_file.exists()

    def check(self, resume: bool = False, force: bool = False) -> None:
        """Find out whether a run can start here, or be resumed, and none goes on here; writes nothing.

        Args:
            force: an existing run is to be deleted. A folder that holds something else never is.

        Raises:
            SpecError: where the folder cannot be used.
        """
        try:
            self._check(resume, force)
        except (OSError, RuntimeError) as error:  # a name too long, a loop of links
            reason = getattr(error, "strerror", None) or str(error)
            raise SpecError("output", f"{self.path}: {reason}", "a folder that can be made") from error

    def _check(self, resume: bool, force: bool) -> None:
        elsewhere = "choose another `output`"
        if self.path.exists() and not self.path.is_dir():
            raise SpecError("output", f"{self.path} is a file", "a folder", elsewhere)
        if resume and not self.exists():
            raise SpecError(
                "--resume", f"{self.path} holds no run", "a run's folder", "start without --resume"
            )
        lock.check(self.path)
        if self.exists() and not (resume or force):
            raise SpecError(
                "output",
                f"{self.path} holds a run already",
                "a new folder",
                "continue it with --resume, or delete it and start anew with --force",
            )
        if self.path.exists() and not self.exists() and not self._barely_begun():
            raise SpecError(
                "output", f"{self.path} has something else in it", "a new or empty folder", elsewhere
            )
        above = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise SpecError("output", f"{above} cannot be written", "a writable folder", elsewhere)

    def prepare(self, resume: bool = False, force: bool = False) -> None:
        """Check, lock the folder until `release` or the end of this process, and make it ready.

        Raises:
            SpecError: where the folder cannot be used.
        """
        self.check(resume, force)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(self.path)
            # Between the check and the lock another run may have begun here.
            self.check(resume, force)
            if force and self.exists():
                self._clear()
            for abandoned in self._abandoned():
                abandoned.unlink(missing_ok=True)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except SpecError:
            self.release()
            raise
        except OSError as error:
            self.release()
            raise SpecError("output", f"{self.path}: {error.strerror}", "a writable folder") from error

    def release(self) -> None:
        """Let others write here, once this process is done."""
        lock.release(self.path)

    def _abandoned(self) -> list[Path]:
        """The temporary files of atomic writes that a kill cut short; a checkpoint's may be large."""
        names = ("spec.yaml", "environment.json", "intervals.jsonl", "losses.csv", "metrics.json")
        found = [file for name in (*names, "predictions.json") for file in self.path.glob(f".{name}.*.tmp")]
        return found + [p for name in (".iteration_*.tmp", ".partial_*") for p in self.checkpoints.glob(name)]

    def _barely_begun(self) -> bool:
        """Whether the folder is empty, or as a run leaves it that was killed before it wrote its spec."""
        abandoned = {*self._abandoned(), self.path / lock.NAME}
        empty = (
            self.checkpoints if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()) else None
        )
        return all(entry in abandoned or entry == empty for entry in self.path.iterdir())

    def _clear(self) -> None:
        """Delete what a run leaves, and nothing else."""
        for folder in (self.checkpoints, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (
            self.intervals_file, self.losses_file, self.metrics_file, self.predictions_file, self.log_file,
            self.environment_file, self.spec_file,
        ):  # fmt: skip
            file.unlink(missing_ok=True)
