"""Execute a plan: train, evaluate, write every file."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msbal.backend import Detector, Job, Monitor
from msbal.backend.kit.determinism import deterministic
from msbal.data import DetectionData, subset
from msbal.engine import BalancerSet
from msbal.engine.gradients import GradientError
from msbal.engine.processes import all_gather_objects, rank, world_size
from msbal.errors import RunError, SpecError, raise_of_worker
from msbal.evaluation import evaluate, usable_detections
from msbal.records import (
    Recorder,
    RunDirectory,
    add_evaluation,
    read_intervals,
    read_metrics,
    read_starts,
    rewind_metrics,
    write_environment,
)
from msbal.records.atomic import write_json
from msbal.spec import RunSpec, save_spec
from msbal.training.best import Best
from msbal.training.distributed import barrier, from_first_rank
from msbal.training.images import BesideTraining
from msbal.training.plan import Plan
from msbal.training.resume import choose_checkpoint
from msbal.training.run_images import draw_detections, draw_training_data
from msbal.training.stop import StopAgreement, StopRequest


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        finished: False where it was asked to stop before its end.
        metrics: the final evaluation, or None.
        best: the best evaluation, or None; its weights are in `RunDirectory.best_checkpoint`.
        measuring: what measuring gradients took of this process's training; None where nothing was measured.
    """

    run: RunDirectory
    finished: bool
    metrics: Mapping[str, Any] | None
    best: Mapping[str, Any] | None = None
    measuring: Measuring | None = None


@dataclass(frozen=True)
class Measuring:
    """The cost of measuring the levels' gradients.

    Attributes:
        count: measurements, of all groups.
        seconds: that they took.
        training: the seconds of the whole training, with its evaluations.
    """

    count: int
    seconds: float
    training: float

    def __str__(self) -> str:
        share = 100 * self.seconds / self.training
        return f"measured {self.count:,} times in {self.seconds:.3g} s, {share:.2g} % of the training"


def claim(spec: RunSpec, resume: bool, force: bool) -> RunDirectory:
    """Take hold of the run's folder, on the first rank, until `execute` ends; the others wait.

    Raises:
        SpecError: where the folder cannot be used.
        RunError: where the disk fails.
    """
    run = RunDirectory(spec.output)

    def take() -> None:
        try:
            run.prepare(resume=resume, force=force)
            save_spec(spec, run.spec_file)
        except OSError as error:
            run.release()
            raise _disk_error(run, error) from error

    from_first_rank(take)
    return run


def execute(
    plan: Plan, run: RunDirectory, monitor: Monitor, resume: bool = False, stop: StopRequest | None = None
) -> Outcome:
    """Train, evaluate and write all files.

    Args:
        run: claimed for this run.
        resume: continue from the run's last whole checkpoint.
        stop: an entered one, from a caller that also catches signals before and after.

    Raises:
        MsbalError: where the run failed.
    """
    try:
        with (
            deterministic() if plan.spec.deterministic else nullcontext(),
            StopRequest() if stop is None else nullcontext(stop) as entered,
        ):
            return _execute(plan, run, monitor, resume, entered)
    except GradientError as error:
        raise SpecError("balance.measure", str(error)) from error
    except RuntimeError as error:
        raise_of_worker(error)
        raise
    except OSError as error:
        if error.errno not in _DISK and not _is_in(run, error.filename):
            raise
        raise _disk_error(run, error) from error
    finally:
        run.release()


_DISK = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))


def _is_in(run: RunDirectory, name: object) -> bool:
    """Tell whether a file that failed is the run's own: its folder may be deleted, or another user's."""
    return isinstance(name, str) and Path(name).absolute().is_relative_to(run.path)


def _disk_error(run: RunDirectory, error: OSError) -> RunError:
    return RunError(
        str(error.filename or run.path),
        f"cannot be written: {error.strerror or error}",
        fix="continue with --resume once it can be"
        if run.exists()
        else "the run's folder has gone: start anew",
    )


def _execute(plan: Plan, run: RunDirectory, monitor: Monitor, resume: bool, stop: StopRequest) -> Outcome:
    first = rank() == 0
    spec = plan.spec
    if first:
        data = plan.train.summary()
        if resume:
            # The run is unfinished until its new end. A damaged file is better refused now than at an evaluation.
            rewind_metrics(run, plan.iterations)
            _compare_data(run, data, monitor)
        versions = plan.backend.diagnose().versions
        write_environment(run, versions, spec.device, world_size(), data)
    recorder = Recorder(run if first else None, monitor.interval, spec.log.per_iteration)
    recorder.attach(plan.balancers)
    best = Best(run)

    def evaluate_now(detector: Detector, iteration: int, final: bool = False) -> Mapping[str, Any]:
        training, stop.doing = stop.doing, "this evaluation"
        metrics = _evaluate(plan, run, monitor, detector, iteration, final)
        best.evaluated()
        stop.doing = training
        return metrics

    agreed = StopAgreement(stop)
    job = Job(
        spec=spec,
        train=plan.train,
        val=plan.val,
        run=run,
        balancers=plan.balancers,
        recorder=recorder,
        monitor=monitor,
        checkpoint=choose_checkpoint(run, recorder, monitor.message) if resume else None,
        evaluate=evaluate_now if plan.val is not None else None,
        best=best if plan.val is not None else None,
        stop_requested=agreed,
    )
    if first and not resume:
        draw_training_data(run, plan.train, monitor)
    monitor.progress("starting the training", 0, 1)
    # All processes have checked the same images before; one of them checks the rest.
    stop.at_once = False
    if world_size() > 1:
        stop.doing = "some iterations more, as all processes have to agree"
    began = time.perf_counter()
    with BesideTraining(plan.images, stop.request) if first else nullcontext() as images:
        plan.detector.train(job)
    measuring = _measuring(plan.balancers, time.perf_counter() - began)
    recorder.flush()
    if images is not None and images.error is not None:
        raise images.error
    if agreed.stopped:
        return Outcome(run, finished=False, metrics=None, measuring=measuring)
    _require_finite(run)
    barrier()  # until the first rank has written the last checkpoint, Ctrl-C must not end another
    stop.at_once, metrics = True, None
    try:
        if plan.val is not None:
            last = plan.iterations if job.ended is None else job.ended
            metrics = evaluate_now(plan.detector, last, final=True)
            best.saved(last)
        barrier()
    except KeyboardInterrupt:
        # All is trained and saved; --resume repeats the evaluation.
        return Outcome(run, finished=False, metrics=None, measuring=measuring)
    best_metrics = read_metrics(run)["best"] if first else None
    return Outcome(run, finished=True, metrics=metrics, best=best_metrics, measuring=measuring)


def _measuring(balancers: BalancerSet, training: float) -> Measuring | None:
    measures = {id(own): own for balancer in balancers.balancers.values() if (own := balancer.gradients)}
    count = sum(own.count for own in measures.values())
    seconds = sum(own.seconds for own in measures.values())
    return Measuring(count, seconds, training) if count else None


def _require_finite(run: RunDirectory) -> None:
    """Refuse to call a run finished that cannot have learned anything.

    Raises:
        RunError: on all ranks, where no iteration's losses were finite.
    """

    def any_finite() -> bool:
        records = read_intervals(run.intervals_file) if run.intervals_file.exists() else []
        return not records or any(record.count for record in records)

    if not from_first_rank(any_finite):
        raise RunError(
            "training", "nothing was learned: in no iteration were all losses finite",
            fix="lower schedule.optimizer.lr, or find the first such loss with balance.on_nonfinite=stop",
        )  # fmt: skip


def _compare_data(run: RunDirectory, now: Mapping[str, Any], monitor: Monitor) -> None:
    """Say so where the training data have changed since the last start; that may be on purpose.

    Args:
        now: the training data's `DetectionData.summary`.
    """
    starts = read_starts(run)
    before = starts[-1].get("data") if starts else None
    if isinstance(before, dict) and before.get("digest") != now["digest"]:
        then = f"{before.get('images')} images with {before.get('boxes')} boxes"
        monitor.message(
            f"the training data have changed since the run was last started: {then} then, {now['images']} with "
            f"{now['boxes']} now; from here on it differs from an unbroken run"
        )


def _predictions(detector: Detector, data: DetectionData, monitor: Monitor) -> list[dict[str, Any]]:
    """Predict on all of `data`, each rank on its share; return all, in image order, on every rank."""

    def progress(done: int) -> None:
        # The other ranks have equal shares, and are about as far.
        monitor.progress("evaluating", min(done * world_size(), len(data)), len(data))

    monitor.progress("evaluating", 0, len(data))
    if world_size() == 1:
        return detector.predict(data, progress)
    share = subset(data, range(rank(), len(data), world_size()))
    parts = all_gather_objects(detector.predict(share, progress))
    order = {image.id: i for i, image in enumerate(data.images)}
    return sorted((p for part in parts for p in part), key=lambda p: order.get(p["image_id"], 0))


def _evaluate(
    plan: Plan, run: RunDirectory, monitor: Monitor, detector: Detector, iteration: int, final: bool
) -> Mapping[str, Any]:
    assert plan.val is not None
    predictions = _predictions(detector, plan.val, monitor)
    metrics: Mapping[str, Any] = {}
    if rank() == 0:
        monitor.progress("computing metrics", 0, 1)
        detections = usable_detections(plan.val, predictions)
        metrics = evaluate(plan.val, detections)
        if final:
            write_json(run.predictions_file, predictions)
        metrics = add_evaluation(run, iteration, metrics, final)
        monitor.progress("computing metrics", 1, 1)
        monitor.evaluated(iteration, metrics)
        if final:
            draw_detections(run, plan.val, detections, metrics, iteration, monitor)
    barrier()
    return metrics
