"""diagnosis.json: what `msbal diagnose` measured of a model's levels, at the start and at each checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from msbal.errors import DataError
from msbal.records.atomic import write_json

Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""One that may be NaN, which JSON has as null."""


CLEAR = 2.0
"""How many times its noise the signal of a mean over batches is, by the squared norm, for it to tell a direction."""


class Spread(NamedTuple):
    """A mean over batches, and the 95 % interval of that mean.

    The interval is Student's t interval, cut to the values that are possible (a share lies between 0 and 1), and NaN
    where fewer than two batches have a value. The mean is NaN where none has: a cosine with a level without a gradient.
    """

    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class GroupState:
    """One group's levels at one moment of a training. Tuples run over the K levels, finest first.

    Attributes:
        loss: of each level by term, in a batch.
        positives: positive samples in a batch; None where the head does not tell.
        norm: of the gradient of each level's loss, by part: ``backbone``, ``neck``, ``head``, and ``shared``, all
            parameters that two levels or more have a gradient for.
        share: of the sum of all levels' norms on ``shared``.
        cosine: ``[K][K]``, of the gradients on ``shared``.
        equal_norms: the weights that would give the levels' gradients the same norm, with the sum K; 1 for a level
            without positives or without a gradient.
        ap, recall: AP and the recall among 100 detections an image (0 to 1), each ground-truth box counted for the
            level that the model assigns it to; None for a level without boxes, and empty where nothing was evaluated.
        evaluated: how many boxes those are of.
        signal: how much of the squared norm of a batch's gradient on ``shared`` is common to all batches: that of the
            expected gradient. An estimate without bias, which may be negative; None for a level without a gradient,
            and empty with fewer than two batches.
        signal_cosine: ``[K][K]``, of the expected gradients, without the noise of batches; None where the estimate of
            a signal is not positive, with or without any one batch.
    """

    group: str
    levels: tuple[str, ...]
    loss: dict[str, tuple[Spread, ...]]
    positives: tuple[Spread, ...] | None
    norm: dict[str, tuple[Spread, ...]]
    share: tuple[Spread, ...]
    cosine: tuple[tuple[Spread, ...], ...]
    equal_norms: tuple[float, ...]
    ap: tuple[float | None, ...] = ()
    recall: tuple[float | None, ...] = ()
    evaluated: tuple[int, ...] = ()
    signal: tuple[float | None, ...] = ()
    signal_cosine: tuple[tuple[Spread | None, ...], ...] = ()


@dataclass(frozen=True)
class ModelState:
    """A model at one moment of a training.

    Attributes:
        iteration: 0 at the start.
        metrics: AP, AP50, AP_S, AP_M and AP_L (0 to 1; None without boxes of that size), of `images_val` images;
            empty where nothing was evaluated.
        checkpoint: the name of its file; empty at the start.
    """

    iteration: int
    groups: tuple[GroupState, ...]
    metrics: dict[str, float | None] = field(default_factory=dict)
    checkpoint: str = ""

    @property
    def when(self) -> str:
        return f"after {self.iteration:,} iterations" if self.iteration else "at the start"


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        kind: ``dominates``, ``starves``, ``conflict``, ``noise``, ``no_boxes``, ``balanced``, ...
        levels: that it is about.
        text: a sentence or two, with the numbers.
        strategies: worth an ablation because of it, as ``balance:`` sections.
    """

    kind: str
    group: str
    levels: tuple[str, ...]
    text: str
    strategies: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class LevelDiagnosis:
    """What was measured, and what it comes to.

    Attributes:
        boxes: of the training set by level, by group; a group whose head does not tell is missing.
        boxes_val: of the validation set likewise.
        images_val: how many images of it were evaluated.
        notes: what was left out or could not be measured, a sentence each.
    """

    model: str
    backend: str
    batches: int
    batch_size: int
    boxes: dict[str, tuple[int, ...]]
    boxes_val: dict[str, tuple[int, ...]]
    states: tuple[ModelState, ...]
    findings: tuple[Finding, ...] = ()
    images_val: int = 0
    notes: tuple[str, ...] = ()

    @property
    def moments(self) -> tuple[ModelState, ...]:
        """The first and the last of the states, which are judged and drawn; one where there are no more."""
        return (*self.states[:1], *self.states[1:][-1:])

    def tells(self, group: GroupState, *levels: int) -> bool:
        """Return whether the signal of all these levels is twice the noise that is left in the mean over batches.

        Twice by the squared norm: 20 % of signal in 8 batches, 3 % in 64.
        """
        return bool(group.signal) and all(
            part is not None and self.batches * part >= CLEAR * (1 - part)
            for part in (group.signal[k] for k in levels)
        )


_ADAPTER = TypeAdapter(LevelDiagnosis)


def write_diagnosis(path: Path, diagnosis: LevelDiagnosis) -> None:
    """Write it, atomically."""
    write_json(path, asdict(diagnosis))


def read_diagnosis(path: Path) -> LevelDiagnosis:
    """Read what `write_diagnosis` wrote. Raises: DataError, where it is something else."""
    try:
        return _ADAPTER.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(str(path), error.strerror or str(error), "what `msbal diagnose` writes") from error
    except (ValueError, ValidationError) as error:
        found = str(error).partition("\n")[0]
        raise DataError(str(path), found, "what `msbal diagnose` writes", "run it again") from error
