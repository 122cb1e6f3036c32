"""``checkpoints/best.pth``: the checkpoint of a run's best evaluation, by AP."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msbal.engine.processes import rank
from msbal.errors import SpecError
from msbal.records import RunDirectory, read_metrics, rewind_metrics
from msbal.records.atomic import replace_with
from msbal.training.checkpoints import path_of
from msbal.training.distributed import from_first_rank
from msbal.training.tensors import read_tensors


class Best:
    """See `msbal.backend.protocol.BestCheckpoint`. The first rank writes; all know which iteration is the best."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.iteration: int | None = None

    def evaluated(self) -> None:
        """Find out which evaluation is the best, after one was added to metrics.json; a collective."""
        self.iteration = from_first_rank(self._recorded)

    def saved(self, iteration: int) -> None:
        checkpoint = path_of(self.run.checkpoints, iteration)
        if rank() == 0 and iteration == self.iteration and checkpoint.exists():
            link(checkpoint, self.run.best_checkpoint)

    def rewind(self, iteration: int) -> None:
        self.iteration = from_first_rank(lambda: self._rewound(iteration))

    def _recorded(self) -> int | None:
        best = read_metrics(self.run)["best"]
        return None if best is None else int(best["iteration"])

    def _rewound(self, iteration: int) -> int | None:
        rewind_metrics(self.run, iteration)
        best, file = self._recorded(), self.run.best_checkpoint
        if best is None:
            file.unlink(missing_ok=True)
        elif best != iteration_in(file):
            checkpoint = path_of(self.run.checkpoints, best)
            if checkpoint.exists():  # the run was killed before it was linked
                link(checkpoint, file)
            else:
                file.unlink(missing_ok=True)
        return best


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no hard links."""

    def write(temporary: Path) -> None:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except (OSError, NotImplementedError):
            shutil.copyfile(source, temporary)

    # Renaming a link to the file that it links to would leave both names.
    if not (target.exists() and target.samefile(source)):
        replace_with(target, write)


def iteration_in(checkpoint: Path) -> int | None:
    """Return the iteration of a checkpoint; None where there is none that can be read."""
    try:
        found = read_tensors(checkpoint).get("iteration")
    except SpecError:
        return None
    return found if isinstance(found, int) else None
