"""diagnosis.json: what `msbal diagnose` measured of a model's levels, at the start and at each checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from msbal.errors import DataError
from msbal.records.atomic import finite, write_json

FILE = "diagnosis.json"


class Spread(NamedTuple):
    """A mean over batches, and the 95 % interval of that mean. NaN where nothing was finite."""

    mean: float
    low: float
    high: float


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
        equal_norms: the weights that would give all levels with a gradient the same norm, with the sum K.
        ap, recall: AP and the recall among 100 detections an image (0 to 1), each ground-truth box counted for the
            level that the model assigns it to; None for a level without boxes, and empty where nothing was evaluated.
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


@dataclass(frozen=True)
class ModelState:
    """A model at one moment of a training.

    Attributes:
        iteration: 0 at the start.
        metrics: AP, AP50, AP_S, AP_M and AP_L (0 to 1); empty where nothing was evaluated.
    """

    iteration: int
    groups: tuple[GroupState, ...]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know.

    Attributes:
        kind: ``dominates``, ``starves``, ``conflict``, ``no_boxes``, ``balanced``, ...
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
    """

    model: str
    backend: str
    batches: int
    batch_size: int
    boxes: dict[str, tuple[int, ...]]
    boxes_val: dict[str, tuple[int, ...]]
    states: tuple[ModelState, ...]
    findings: tuple[Finding, ...] = ()


_ADAPTER = TypeAdapter(LevelDiagnosis)


def write_diagnosis(path: Path, diagnosis: LevelDiagnosis) -> None:
    """Write it, atomically."""
    write_json(path, finite(asdict(diagnosis)))


def read_diagnosis(path: Path) -> LevelDiagnosis:
    """Read what `write_diagnosis` wrote. Raises: DataError, where it is something else."""
    try:
        return _ADAPTER.validate_python(_nan(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise DataError(str(path), error.strerror or str(error), "what `msbal diagnose` writes") from error
    except (ValueError, ValidationError) as error:
        found = str(error).partition("\n")[0]
        raise DataError(str(path), found, "what `msbal diagnose` writes", "run it again") from error


def _nan(document: Any) -> Any:
    """Put the NaN back that JSON has as null: in spreads, which are lists of three."""
    if isinstance(document, Mapping):
        return {key: _nan(value) for key, value in document.items()}
    if isinstance(document, list):
        if document == [None] * 3:
            return [float("nan")] * 3
        return [_nan(value) for value in document]
    return document
