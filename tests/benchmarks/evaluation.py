"""How the evaluators compare: time against pycocotools, and by how much the metrics differ.

    python tests/benchmarks/evaluation.py [--images 5000] [--resamples 20]

Prints ratios; asserts nothing. Evaluators that are not installed are left out, but pycocotools is needed. The
detections are made up (ties, crowds, empty images, images with more than 100 of one class), about as many as a
detector has on COCO's val2017: 65 an image over 80 classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "evaluation"))

from detection_scenes import make_scenes

from msbal.errors import BackendError
from msbal.evaluation import evaluate
from msbal.evaluation.bootstrap import Reweighted, resampled
from msbal.evaluation.coco_metrics import EVALUATORS, METRICS, accumulate
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.predictions import sift


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=20)
    arguments = parser.parse_args()

    data, predictions = make_scenes(
        0, arguments.images, classes=80, boxes=7.2, detections=65, crowds=0.01, flood=arguments.images // 50
    )
    print(f"{len(data):,} images, {data.box_count:,} boxes, {len(predictions):,} detections")
    truth = ground_truth(data)
    detections, _, _ = sift(predictions, data)

    seconds, results = {}, {}
    for name in EVALUATORS:
        begin = time.perf_counter()
        try:
            results[name] = accumulate(data, truth, detections, name)
        except BackendError as error:
            print(f"{name} is left out: {error}")
            continue
        seconds[name] = time.perf_counter() - begin
    reference = results["pycocotools"]
    print(f"{'':18}{'seconds':>9}{'times faster':>14}  largest difference of a metric, of a precision")
    for name in results:
        metrics = np.abs(results[name].stats - reference.stats).max()
        precision = np.abs(results[name].precision - reference.precision).max()
        ratio = seconds["pycocotools"] / seconds[name]
        print(f"{name:18}{seconds[name]:9.2f}{ratio:14.1f}  {metrics:.1e}, {precision:.1e}")

    begin = time.perf_counter()
    metrics = evaluate(data, predictions)
    print(
        f"evaluate(), COCO and VOC, from a list: {time.perf_counter() - begin:.2f} s; AP {metrics['AP']:.5f}"
    )

    begin = time.perf_counter()
    run = Reweighted(truth, detections)
    matched = time.perf_counter() - begin
    own = run.metrics(np.ones(len(data), dtype=np.int64))[: len(METRICS)]
    begin = time.perf_counter()
    resampled(truth, detections, arguments.resamples)
    each = (time.perf_counter() - begin - matched) / arguments.resamples
    print(
        f"bootstrap: {matched:.2f} s once, {each * 1000:.1f} ms a resample: {matched + 1000 * each:.0f} s a run "
        f"with 1,000; off by {np.abs(own - reference.stats).max():.1e} at equal weights"
    )


if __name__ == "__main__":
    main()
