"""The folder of one run, and what is in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msbal.errors import SpecError
from msbal.records import lock

PROPOSED = "# Proposed by `msbal diagnose`"
"""How the ablation that `msbal diagnose` proposes begins."""


class RunDirectory:
    """The files of one run. Making one of these creates nothing.

    Attributes:
        path: the folder.
        spec_file: the complete spec, reloadable.
        environment_file: versions, machine and command of every start.
        intervals_file: one line for each interval and group.
        losses_file: one row an iteration, the unweighted loss of every term and level.
        metrics_file: all evaluations, and the final one.
        predictions_file: the final detections on the validation split, in COCO results format.
        diagnosis_file: what `msbal diagnose` measured of the levels, at the start and at each checkpoint.
        diagnosis_figure: the same, drawn.
        ablation_file: the ablation that `msbal diagnose` proposes.
        log_file: what was printed, in plain lines.
        checkpoints: the folder of checkpoints.
        best_checkpoint: in it, the checkpoint of the best evaluation.
        images: the folder of drawings: training images with their boxes, detections.
        tensorboard: the folder of TensorBoard's event files.
        trackers: the folder of the other trackers: the ids by which they know the run, and what they write offline.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec_file = path / "spec.yaml"
        self.environment_file = path / "environment.json"
        self.intervals_file = path / "intervals.jsonl"
        self.losses_file = path / "losses.csv"
        self.metrics_file = path / "metrics.json"
        self.predictions_file = path / "predictions.json"
        self.diagnosis_file = path / "diagnosis.json"
        self.diagnosis_figure = path / "diagnosis.png"
        self.ablation_file = path / "ablation.yaml"
        self.log_file = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.pth"
        self.images = path / "images"
        self.tensorboard = path / "tensorboard"
        self.trackers = path / "trackers"
        self._files = (
            self.intervals_file, self.losses_file, self.metrics_file, self.predictions_file, self.log_file,
            self.environment_file, self.diagnosis_file, self.diagnosis_figure, self.ablation_file, self.spec_file,
        )  # fmt: skip

    def exists(self) -> bool:
        """Tell whether a run has been started here."""
        return self.spec_file.exists()

    def proposed(self) -> bool:
        """Tell whether the ablation here is what `msbal diagnose` proposed, and none of the user's own."""
        file = self.ablation_file
        return file.is_file() and file.read_text(encoding="utf-8", errors="replace").startswith(PROPOSED)

    def check(self, resume: bool = False, force: bool = False) -> None:
        """Check that a run can start or be resumed here, and that none is going on; write nothing.

        Args:
            force: an existing run will be deleted; a folder that holds anything else never is.

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
            # Another run may have begun here between the check and the lock.
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
        """Let other processes write here."""
        lock.release(self.path)

    def _abandoned(self) -> list[Path]:
        """Find the temporary files of atomic writes that were killed; a checkpoint's may be large."""
        found = [file for one in self._files for file in self.path.glob(f".{one.name}.*.tmp")]
        found += self.images.glob(".*.tmp")
        return found + [p for name in (".*.tmp", ".partial_*") for p in self.checkpoints.glob(name)]

    def _barely_begun(self) -> bool:
        """Tell whether the folder is empty, or as a run leaves it that is killed before it writes its spec."""
        expected = {*self._abandoned(), self.path / lock.NAME}
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            expected.add(self.checkpoints)
        return all(entry in expected for entry in self.path.iterdir())

    def _clear(self) -> None:
        """Delete what a run leaves, and nothing else; the spec last, since it says that there is a run."""
        for folder in (self.checkpoints, self.images, self.tensorboard, self.trackers):
            shutil.rmtree(folder, ignore_errors=True)
        for file in self._files:
            if file != self.ablation_file or self.proposed():
                file.unlink(missing_ok=True)
