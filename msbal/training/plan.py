"""What a run will be, before it writes a byte: data read, model built, everything checked."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from msbal.backend import HONOURED, Backend, Detector, Honours, Remarks, load_backend
from msbal.backend.kit.balanced import group_names
from msbal.backend.kit.seeding import seed_everything
from msbal.data import DetectionData, load, remarks, shared_images
from msbal.engine import BalancerSet
from msbal.errors import BackendError, SpecError
from msbal.spec import RunSpec, check_interval
from msbal.training.images import ImageCheck, Progress

FEW_INTERVALS = 20


@dataclass
class Plan:
    """Everything that a run needs.

    Attributes:
        iterations: the whole run's length.
        intervals: decisions in it.
        images: the image files, of which a large data set's are looked into beside the training.
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


def read_data(spec: RunSpec) -> tuple[DetectionData, DetectionData | None]:
    """The training split, and the validation split unless nothing is evaluated.

    Raises:
        DataError: where either cannot be used, or their classes differ.
    """
    train = load(spec.data, "train")
    val = load(spec.data, "val") if spec.evaluate.enabled else None
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
    """A backend whose installation is complete.

    Raises:
        BackendError: with the first problem and the command that mends it.
    """
    backend = load_backend(name)
    diagnosis = backend.diagnose()
    if diagnosis.problems:
        remedy = diagnosis.remedies[0] if diagnosis.remedies else ""
        raise BackendError(f"backend {name}", diagnosis.problems[0], fix=f"run `{remedy}`" if remedy else "")
    return backend


def prepare(spec: RunSpec, progress: Progress | None = None) -> Plan:
    """Read the data, build the model and check that the spec fits both.

    Args:
        progress: called with the images looked into and to look into.

    Raises:
        SpecError: where something does not fit.
        BackendError: where the framework is missing or broken.
    """
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError("device", f"`{spec.device}`, but torch sees no GPU", "cpu or auto")
    backend = ready_backend(spec.backend)
    train, val = read_data(spec)
    seed_everything(spec.seed)
    detector = backend.build(spec, train.classes)
    of_framework = detector.remarks(train) if isinstance(detector, Remarks) else ()
    balancers = make_balancers(spec, detector)
    refuse_what_is_not_honoured(spec, backend, balancers)
    iterations = detector.iterations(train)
    check_interval(spec.balance.interval, iterations)
    intervals = iterations // spec.balance.interval
    splits = {"data.train": train, **({} if val is None else {"data.val": val})}
    # What is generated is drawn as it is described.
    images = ImageCheck({} if spec.data.format == "generated" else splits, detector, spec.backend)
    images.before_training(progress)
    return Plan(
        spec, backend, train, val, detector, balancers, iterations, intervals, images,
        [*_warnings(spec, iterations, intervals, train, val, balancers), *of_framework],
    )  # fmt: skip


def refuse_what_is_not_honoured(spec: RunSpec, backend: Backend, balancers: BalancerSet) -> None:
    """Refuse a spec that asks for what the backend would not do.

    Raises:
        SpecError: naming the key.
    """
    honours = backend.honours if isinstance(backend, Honours) else HONOURED
    schedule, balance = spec.schedule, spec.balance
    asked = {
        "amp": ("schedule.amp", schedule.amp, schedule.amp != "none"),
        "ema": ("schedule.ema", schedule.ema, schedule.ema is not None),
        "clip_norm": ("schedule.clip_norm", schedule.clip_norm, schedule.clip_norm is not None),
        "accumulate": ("schedule.accumulate", schedule.accumulate, schedule.accumulate != 1),
        "learned": (
            "balance.strategy", f"{balance.strategy}, which learns", next(balancers.parameters(), None) is not None
        ),
        "on_nonfinite": ("balance.on_nonfinite", balance.on_nonfinite, balance.on_nonfinite != "stop"),
    }  # fmt: skip
    for what, (key, value, is_asked) in asked.items():
        if is_asked and what not in honours:
            raise SpecError(
                key, f"{value}, which the backend `{spec.backend}` does not honour",
                fix="leave it out, or take another backend",
            )  # fmt: skip


def make_balancers(spec: RunSpec, detector: Detector) -> BalancerSet:
    """The balancers of a spec for a model's levels.

    Raises:
        SpecError: where the number of levels does not fit the strategy.
    """
    try:
        return spec.balance.make_balancers(group_names(detector.groups), spec.seed)
    except ValueError as error:
        levels = "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in detector.groups)
        raise SpecError("balance", f"{error} The model has {levels}") from error


def _warnings(
    spec: RunSpec,
    iterations: int,
    intervals: int,
    train: DetectionData,
    val: DetectionData | None,
    balancers: BalancerSet,
) -> list[str]:
    found = []
    decides = spec.balance.strategy not in ("equal", "fixed")
    if decides and intervals < FEW_INTERVALS:
        few = (
            f"only {intervals} interval{'s' * (intervals != 1)} of {spec.balance.interval} iterations: the strategy "
            f"decides {intervals} time{'s' * (intervals != 1)}"
        )
        fitting = max(2, iterations // FEW_INTERVALS)
        if fitting < spec.balance.interval:
            few += f"; balance.interval={fitting} would give {iterations // fitting}"
        found.append(few)
    unfinished = iterations % spec.balance.interval
    if decides and unfinished and intervals < FEW_INTERVALS:
        found.append(f"iterations left over after the last whole interval decide nothing: {unfinished}")
    of_val = remarks(val) if val is not None else []
    return [*found, *remarks(train), *of_val, *shared_images(train, val)]
