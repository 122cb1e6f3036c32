"""COCO's metrics, by a library.

Three libraries compute them alike: pycocotools, which defines them; faster-coco-eval (C++); hotcoco (Rust).
Measured on 5,120 images with 375,430 detections (``tests/benchmarks/evaluation.py``): hotcoco gives every
metric and the whole precision array bit for bit as pycocotools does, about 100 times faster;
faster-coco-eval differs in the sixteenth digit and is about 9 times faster. hotcoco has no wheel for
Windows on ARM; where it is missing, the next that is installed is used: faster-coco-eval, then pycocotools.

``difficult`` is VOC's and means nothing here: such a box is ground truth like any other, as in pycocotools.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData
from msbal.errors import BackendError
from msbal.evaluation.detections import Detections, GroundTruth

METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR1", "AR10", "AR100", "AR_S", "AR_M", "AR_L")
CLASS_METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR100")
EVALUATORS = ("hotcoco", "faster_coco_eval", "pycocotools")


@dataclass(frozen=True)
class Accumulated:
    """What pycocotools leaves in ``COCOeval.eval``; -1 where there is no ground truth.

    T = 10 IoU thresholds (0.50 to 0.95), R = 101 recalls, K classes (in ascending category id), A = 4 areas
    (all, small, medium, large), M = 3 limits of detections an image and class (1, 10, 100).

    Attributes:
        precision: ``[T, R, K, A, M]`` float64.
        recall: ``[T, K, A, M]`` float64.
        stats: the twelve metrics, in the order of `METRICS`.
        evaluator: the library that computed them.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    stats: NDArray[np.float64]
    evaluator: str


def accumulate(
    data: DetectionData, truth: GroundTruth, detections: Detections, evaluator: str | None = None
) -> Accumulated:
    """Evaluate with `evaluator`, or with the first of `EVALUATORS` that is installed.

    Raises:
        BackendError: where none is installed, or the one asked for is not.
    """
    # hotcoco takes the ids of detections as float64, which holds whole numbers up to 2^53. Only their order matters
    # (images rank equal scores, categories rank classes), so each id gives way to its place among them, from 1.
    truth = replace(truth, image_id=_places(truth.image_id))
    category_ids = _places(np.array(data.category_ids, dtype=np.int64))
    images = [
        {"id": id_, "width": i.width, "height": i.height, "file_name": i.path.name}
        for id_, i in zip(truth.image_id.tolist(), data.images, strict=True)
    ]
    categories = [
        {"id": id_, "name": name} for id_, name in zip(category_ids.tolist(), data.classes, strict=True)
    ]
    for name in (evaluator,) if evaluator else EVALUATORS:
        prepare = _hotcoco if name == "hotcoco" else _by_dictionaries
        try:
            # The libraries that stand in for pycocotools print as it does.
            with contextlib.redirect_stdout(io.StringIO()):
                evaluation = prepare(name, images, categories, category_ids, truth, detections)
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
        except ImportError as error:
            if evaluator:
                raise _missing(name) from error
            continue
        precision, recall, stats = (
            np.asarray(part, dtype=np.float64)
            for part in (evaluation.eval["precision"], evaluation.eval["recall"], evaluation.stats)
        )
        return Accumulated(precision, recall, stats[: len(METRICS)], name)
    raise _missing("hotcoco")


def metrics(result: Accumulated) -> dict[str, float | None]:
    """Return the twelve metrics by name; None where COCO says -1."""
    return {name: _defined(value) for name, value in zip(METRICS, result.stats.tolist(), strict=True)}


def class_metrics(result: Accumulated, data: DetectionData) -> dict[str, dict[str, float | None]]:
    """Return `CLASS_METRICS` of each class, by its name."""
    position = {id_: k for k, id_ in enumerate(sorted(data.category_ids))}
    found = {}
    for name, id_ in zip(data.classes, data.category_ids, strict=True):
        precision = result.precision[:, :, position[id_], :, -1]
        recall = result.recall[:, position[id_], 0, -1]
        cuts = (
            precision[:, :, 0], precision[0, :, 0], precision[5, :, 0],
            precision[:, :, 1], precision[:, :, 2], precision[:, :, 3], recall,
        )  # fmt: skip
        means = (_mean(cut) for cut in cuts)
        found[name] = dict(zip(CLASS_METRICS, means, strict=True))
    return found


def _places(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    places: NDArray[np.int64] = np.unique(ids, return_inverse=True)[1] + 1
    return places


def _mean(values: NDArray[np.float64]) -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def _defined(value: float) -> float | None:
    return None if value < 0 else value


def _missing(name: str) -> BackendError:
    return BackendError(
        "evaluation", f"`{name}` is not installed", fix=f"pip install {name.replace('_', '-')}"
    )


def _hotcoco(
    _: str, images: Any, categories: Any, ids: NDArray[np.int64], truth: GroundTruth, found: Detections
) -> Any:
    from hotcoco import COCO, COCOeval

    gt = COCO.from_arrays(
        images, categories, truth.image_id[truth.image], ids[truth.label], truth.box, area=truth.area,
        iscrowd=truth.crowd.astype(np.int64),
    )  # fmt: skip
    table = np.column_stack([truth.image_id[found.image], found.box, found.score, ids[found.label]])
    return COCOeval(gt, gt.load_res(table), "bbox")


def _by_dictionaries(
    name: str, images: Any, categories: Any, ids: NDArray[np.int64], truth: GroundTruth, found: Detections
) -> Any:
    """Prepare what takes annotations as pycocotools does (whose ``loadRes`` refuses an empty list of results)."""
    if name == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    def filled(**columns: NDArray[Any]) -> Any:
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        annotations = [
            {"id": n, **dict(zip(columns, row, strict=True))} for n, row in enumerate(rows, start=1)
        ]
        coco = COCO()
        coco.dataset = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        return coco

    gt = filled(
        image_id=truth.image_id[truth.image], category_id=ids[truth.label], bbox=truth.box, area=truth.area,
        iscrowd=truth.crowd.astype(np.int64),
    )  # fmt: skip
    dt = filled(
        image_id=truth.image_id[found.image], category_id=ids[found.label], bbox=found.box,
        area=found.box[:, 2] * found.box[:, 3], score=found.score, iscrowd=np.zeros(len(found), np.int64),
    )  # fmt: skip
    return COCOeval(gt, dt, "bbox")
