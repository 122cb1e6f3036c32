"""Plan a run before it writes a byte: read the data, build the model, check everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from msbal.backend import Backend, Detector, Remarks, honoured_by, load_backend
from msbal.backend.kit.balanced import group_names
from msbal.backend.kit.seeding import seed_everything
from msbal.data import DetectionData, load
from msbal.engine import BalancerSet
from msbal.errors import BackendError, SpecError
from msbal.spec import RunSpec, check_length
from msbal.training.images import ImageCheck, Progress
from msbal.training.notes import notes_on


@dataclass
class Plan:
    """Everything that a run needs.

    Attributes:
        iterations: the whole run's length.
        intervals: decisions in it.
        images: the check of the image files, which goes on during the training where the data set is large.
        warnings: what a person should know before it starts.
    """

    spec: RunSpec
    backend: Backend
    train: DetectionData
    val: DetectionData | None
    detector: Detector
    balancers: BalancerSet
    iterations: int
    intervals: int
    images: ImageCheck
    warnings: list[str] = field(default_factory=list)


def read_data(spec: RunSpec, drawing: Progress | None = None) -> tuple[DetectionData, DetectionData | None]:
    """Read the training split, and the validation split unless nothing is evaluated.

    Args:
        drawing: called with how many generated images are drawn and how many there will be, unless all are there.

    Raises:
        DataError: where either cannot be used, or their classes differ.
    """
    train = load(spec.data, "train", drawing=drawing)
    val = load(spec.data, "val", train.classes, drawing) if spec.evaluate.enabled else None
    if not train.box_count:
        raise SpecError("data.train", f"no boxes in {len(train)} images", "at least one box to learn from")
    if val is not None and val.classes != train.classes:
        odd = sorted(set(val.classes) ^ set(train.classes))
        raise SpecError(
            "data", f"train and val have different classes: {', '.join(odd[:5]) or 'in another order'}",
            "the same classes", "name them in data.classes",
        )  # fmt: skip
    return train, val


def ready_backend(name: str) -> Backend:
    """Load a backend and check that its installation is complete.

    Raises:
        BackendError: naming the first problem and the command that fixes it.
    """
    backend = load_backend(name)
    diagnosis = backend.diagnose()
    if diagnosis.problems:
        remedy = diagnosis.remedies[0] if diagnosis.remedies else ""
        raise BackendError(f"backend {name}", diagnosis.problems[0], fix=f"run `{remedy}`" if remedy else "")
    return backend


def prepare(spec: RunSpec, progress: Callable[[str, int, int], None] | None = None) -> Plan:
    """Read the data, build the model and check that the spec fits both.

    Args:
        progress: called with what is being done, as `msbal.backend.Monitor.progress` is.

    Raises:
        SpecError: where something does not fit.
        BackendError: where the framework is missing or broken.
    """
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError("device", f"`{spec.device}`, but torch sees no GPU", "cpu or auto")
    backend = ready_backend(spec.backend)
    report = progress or _say_nothing
    report("reading the data", 0, 1)
    train, val = read_data(spec, partial(report, "drawing images"))
    seed_everything(spec.seed)
    report("building the model", 0, 1)
    detector = backend.build(spec, train.classes)
    of_framework = detector.remarks(train) if isinstance(detector, Remarks) else ()
    balancers = make_balancers(spec, detector)
    refuse_what_is_not_honoured(spec, backend, balancers)
    iterations = detector.iterations(train)
    check_length(spec, iterations)
    intervals = iterations // spec.balance.interval
    splits = {"data.train": train, **({} if val is None else {"data.val": val})}
    # Generated images are as described.
    images = ImageCheck({} if spec.data.format == "generated" else splits, detector, spec.backend)
    images.before_training(partial(report, "checking images"))
    return Plan(
        spec, backend, train, val, detector, balancers, iterations, intervals, images,
        [*notes_on(spec, iterations, train, val, detector), *of_framework],
    )  # fmt: skip


def _say_nothing(what: str, done: int, total: int) -> None:
    return


def refuse_what_is_not_honoured(spec: RunSpec, backend: Backend, balancers: BalancerSet) -> None:
    """Refuse a spec that asks for what the backend would not do.

    Raises:
        SpecError: naming the key.
    """
    honours = honoured_by(backend)
    schedule, balance = spec.schedule, spec.balance
    asked: dict[str, tuple[str, Any, Any]] = {
        "amp": ("schedule.amp", schedule.amp, "none"),
        "ema": ("schedule.ema", schedule.ema, None),
        "clip_norm": ("schedule.clip_norm", schedule.clip_norm, None),
        "accumulate": ("schedule.accumulate", schedule.accumulate, 1),
        "on_nonfinite": ("balance.on_nonfinite", balance.on_nonfinite, "stop"),
    }
    if next(balancers.parameters(), None) is not None:
        asked["learned"] = ("balance.strategy", f"{balance.strategy}, which learns", None)
    if any(balancer.measure is not None for balancer in balancers.balancers.values()):
        of_strategy = ("balance.strategy", f"{balance.strategy}, which decides by gradients", None)
        asked["measure"] = (
            of_strategy if balance.measure is None else ("balance.measure", balance.measure, None)
        )
    for what, (key, value, default) in asked.items():
        if value != default and what not in honours:
            raise SpecError(
                key, f"{value}, which the backend `{spec.backend}` does not honour",
                fix="leave it out, or use another backend",
            )  # fmt: skip


def make_balancers(spec: RunSpec, detector: Detector) -> BalancerSet:
    """Make the balancers of a spec for a model's levels.

    Raises:
        SpecError: where the number of levels does not fit the strategy.
    """
    try:
        return spec.balance.make_balancers(group_names(detector.groups), spec.seed)
    except ValueError as error:
        levels = "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in detector.groups)
        raise SpecError("balance", f"{error} The model has {levels}") from error
