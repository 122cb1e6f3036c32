"""What can be compared: a run's folder, a predictions file, a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msbal.data import DetectionData, remarks
from msbal.data.remarks import classes_meant
from msbal.errors import DataError, MsbalError, suggest_path
from msbal.evaluation import evaluate
from msbal.evaluation.annotations import read_annotations
from msbal.evaluation.detections import Detections, ground_truth
from msbal.evaluation.foreign import differences, foreign_ids, with_image_ids
from msbal.evaluation.operating_point import best_f1_threshold
from msbal.evaluation.prediction_checks import oddities
from msbal.evaluation.predictions import read_predictions, sift

if TYPE_CHECKING:
    from msbal.records import RunDirectory
    from msbal.spec import DataSpec

_MEANT_BY_SUFFIX = {
    ".json": "predictions are given by --predictions FILE --annotations FILE",
    **dict.fromkeys(
        (".yaml", ".yml", ".toml"), "name the folder of the spec's run; a spec goes with --checkpoint"
    ),
    **dict.fromkeys((".pth", ".pt", ".pkl"), "weights are given by --checkpoint FILE --spec FILE"),
}


@dataclass(frozen=True)
class Evaluated:
    """One set of metrics and what it came from.

    Attributes:
        name: what to call it in a table.
        metrics: as `msbal.evaluation.evaluate` gives them; ``per_class`` may be missing.
        data: the ground truth; None where only recorded metrics are left.
        detections: the predictions as columns; None likewise.
        remarks: what was odd about the predictions, each a sentence.
        data_remarks: what was odd about the ground truth.
        spec: what the run was made with, as it stands in its folder; None where there is no run.
    """

    name: str
    metrics: dict[str, Any]
    data: DetectionData | None = None
    detections: Detections | None = None
    remarks: tuple[str, ...] = ()
    data_remarks: tuple[str, ...] = ()
    spec: Mapping[str, Any] | None = None


def ground_truth_file(path: Path, images: Path | None = None) -> DetectionData:
    """Read a COCO annotation file as ground truth; see `read_annotations`."""
    data = read_annotations(path, images)
    truth = ground_truth(data)
    empty = int((truth.box[:, 2:] <= 0).any(axis=1).sum())
    if not empty:
        return data
    note = f"{empty:,} of {len(truth):,} boxes have no width or height: they count as not found, as in pycocotools"
    return replace(data, notes=(*data.notes, note))


def evaluate_predictions(name: str, path: Path, data: DetectionData) -> Evaluated:
    """Evaluate a predictions file.

    Raises:
        DataError: where the file cannot be used.
    """
    _, detections, odd = read_predictions(path, data)
    return _silent_classes(_evaluated(name, data, detections, odd.lines()))


def evaluate_entries(name: str, entries: Sequence[dict[str, Any]], data: DetectionData) -> Evaluated:
    """Evaluate what a detector has just predicted."""
    detections, _, odd = sift(entries, data)
    return _silent_classes(_evaluated(name, data, detections, odd.lines()))


def _silent_classes(found: Evaluated) -> Evaluated:
    """Add a remark on classes that have boxes and no prediction."""
    missed = {
        class_: entry["boxes"]
        for class_, entry in found.metrics["per_class"].items()
        if entry["boxes"] and not entry["detections"]
    }
    if not missed or not found.detections:
        return found
    silent = f"no prediction is of {classes_meant(missed, ())}: these boxes count as not found"
    return replace(found, remarks=(*found.remarks, silent))


def _evaluated(name: str, data: DetectionData, detections: Detections, remarks_: Sequence[str]) -> Evaluated:
    found = (*remarks_, *oddities(data, detections))
    return Evaluated(name, evaluate(data, detections), data, detections, found, tuple(remarks(data)))


def evaluate_run(name: str, run: RunDirectory, data: DetectionData | None = None) -> Evaluated:
    """Evaluate a run's predictions; where it has none yet, give the last metrics that it recorded.

    Args:
        data: the ground truth; by default the validation split that the run's spec names. The classes of the run
            are found in it by name.

    Raises:
        DataError: where there is no run, or nothing has been evaluated yet.
    """
    if not run.path.is_dir():
        found = "is a file" if run.path.exists() else "no such folder"
        otherwise = "name the folder of its run" if run.path.exists() else suggest_path(run.path)
        fix = _MEANT_BY_SUFFIX.get(run.path.suffix, otherwise)
        raise DataError(str(run.path), found, "a run's folder", fix)
    if run.predictions_file.exists():
        evaluated = _own(name, run) if data is None else _on_other_data(name, run, data)
        return replace(evaluated, spec=_spec(run))
    recorded = _last_recorded(run)
    if recorded is None:
        if not run.exists():
            inside = sorted(str(file.parent) for file in run.path.glob("*/spec.yaml"))[:5]
            fix = f"runs inside it: {' '.join(inside)}" if inside else "a spec's `output` names its run"
            raise DataError(str(run.path), "holds no run (no spec.yaml)", "a run's folder", fix)
        raise DataError(
            str(run.path),
            "has no predictions.json and no evaluation in metrics.json",
            "a run that has been evaluated",
            "wait for its first evaluation, or evaluate a checkpoint with --checkpoint and --spec",
        )
    remark = (
        f"{run.path} has no predictions.json yet: these are the metrics it recorded after iteration "
        f"{recorded.get('iteration', '?')}"
    )
    metrics = {k: v for k, v in recorded.items() if k != "iteration"}
    return Evaluated(name, metrics, remarks=(remark,), spec=_spec(run))


def _spec(run: RunDirectory) -> Mapping[str, Any] | None:
    from msbal.spec import read_mapping

    try:
        return read_mapping(run.spec_file)
    except MsbalError:
        return None


def _own(name: str, run: RunDirectory) -> Evaluated:
    """Evaluate a run's predictions on its own validation split."""
    section = _data_section(run)
    data = _split_of(run, section)
    _, detections, odd = read_predictions(run.predictions_file, data)
    found = _evaluated(name, data, detections, odd.lines())
    if section.format != "coco" or section.holdout is not None:
        return found
    return replace(
        found, data_remarks=tuple(remarks(data, "; `--annotations FILE` counts them as not found"))
    )


def _on_other_data(name: str, run: RunDirectory, data: DetectionData) -> Evaluated:
    """Evaluate a run's predictions on ground truth from elsewhere."""
    try:
        own = run_data(run)
    except MsbalError as error:
        line = (
            f"its own validation split cannot be read, so its category ids are taken for those of {data.name}"
        )
        found = evaluate_predictions(name, run.predictions_file, data)
        return replace(found, remarks=(*found.remarks, f"{line} ({error})"))
    ids, lines = foreign_ids(own, data)
    seen = replace(with_image_ids(own, data), category_ids=ids)
    _, detections, odd = read_predictions(run.predictions_file, seen)
    return _evaluated(name, data, detections, (*differences(own, seen, ids), *lines, *odd.lines()))


def run_data(run: RunDirectory) -> DetectionData:
    """Read the validation split of a run, without the backend that trained it.

    Raises:
        SpecError: where the run's spec.yaml or the data cannot be used.
    """
    return _split_of(run, _data_section(run))


def _split_of(run: RunDirectory, section: DataSpec) -> DetectionData:
    try:
        recorded = _last_recorded(run) or {}
    except MsbalError:
        recorded = {}
    return validation_split(section, str(run.spec_file), list(recorded.get("per_class") or ()))


def _data_section(run: RunDirectory) -> DataSpec:
    from pydantic import BaseModel, ValidationError, create_model

    from msbal.spec import DataSpec, read_mapping
    from msbal.spec.explain import explain

    # The whole spec can be validated only where its backend is installed; the data section needs none.
    only_data: type[BaseModel] = create_model("RunData", data=(DataSpec, ...))
    try:
        spec: Any = only_data.model_validate(
            read_mapping(run.spec_file), context={"base": run.path.absolute()}
        )
    except ValidationError as error:
        raise explain(error, str(run.spec_file), only_data) from error
    section: DataSpec = spec.data
    return section


def validation_split(spec: DataSpec, where: str, classes: Sequence[str] = ()) -> DetectionData:
    """Read the validation split of a spec's ``data:`` section.

    Args:
        where: the file that the section stands in.
        classes: that were trained, where that is known: the training split need not be read for them.

    Raises:
        DataError: where it has none, or it cannot be used.
    """
    from msbal.data import load

    data = load(spec, "val", classes or None)
    if data is None:
        fix = "give the ground truth with --annotations"
        raise DataError(where, "names no validation data", "data.val", fix)
    return data


def trained_classes(spec: DataSpec) -> tuple[str, ...]:
    """Return the class of each label of a model trained on a spec's ``data:`` section.

    Raises:
        DataError: where the training split cannot be read.
    """
    from msbal.data import load

    return tuple(spec.classes or load(spec, "train").classes)


def best_threshold(run: RunDirectory) -> float:
    """Return the score threshold at which a run's predictions on its validation split have the best F1.

    Raises:
        MsbalError: where the run has no predictions, or its validation split cannot be read.
    """
    if not run.predictions_file.exists():
        raise DataError(str(run.predictions_file), "no such file", "a run that has been evaluated at its end")
    data = run_data(run)
    _, detections, _ = read_predictions(run.predictions_file, data)
    if not len(detections):
        raise DataError(str(run.predictions_file), "holds no detections", "some to choose a threshold by")
    return best_f1_threshold(ground_truth(data), detections).threshold


def same_data(first: Evaluated, second: Evaluated) -> bool:
    """Return whether two were evaluated on the same images and boxes, so that they can be paired."""
    if first.data is None or second.data is None:
        return False
    if first.data is second.data:
        return True
    if first.data.classes != second.data.classes:
        return False
    one, other = ground_truth(first.data), ground_truth(second.data)
    return all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for key in ("image_id", "image", "label", "box", "area", "crowd", "difficult")
    )


def _last_recorded(run: RunDirectory) -> dict[str, Any] | None:
    from msbal.records import read_metrics

    metrics = read_metrics(run)
    evaluations = [entry for entry in metrics["evaluations"] if isinstance(entry, dict)]
    final = metrics["final"]
    return final if isinstance(final, dict) else evaluations[-1] if evaluations else None
