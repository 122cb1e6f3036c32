"""The arguments that ultralytics trains with: the spec's overrides on its own defaults."""

from __future__ import annotations

from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_DICT

from msbal.errors import SpecError, suggest
from msbal.spec import RunSpec
from msbal_ultralytics.spec import ACCEPTED, UltralyticsModel

KEY = "model.overrides"

_OF_SPEC = {
    "model": "model.config", "pretrained": "model.weights", "data": "data", "classes": "data.classes",
    "epochs": "schedule.epochs", "batch": "schedule.batch_size", "workers": "schedule.workers",
    "amp": "schedule.amp", "save_period": "schedule.checkpoint_every", "device": "device", "seed": "seed",
    "deterministic": "deterministic", "project": "output", "name": "output", "save_dir": "output",
    "val": "evaluate", "resume": "--resume",
}  # fmt: skip
"""Arguments that the spec decides, and by which key."""

_DECIDED = {
    "optimizer": ("optimizer", "lr0", "momentum", "weight_decay", "nbs"),
    "accumulate": ("nbs",),
    "warmup": ("warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    "scheduler": ("lrf", "cos_lr"),
    "flip": ("fliplr",),
}
"""By key of ``schedule``: the arguments that have no effect where it is set."""

_OPTIMIZERS = ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "auto")
GRID = 32
"""Images are a multiple of this in pixels, or of the coarsest stride where that is larger."""


def read_arguments(spec: RunSpec) -> Any:
    """Return ultralytics' namespace of arguments for a spec.

    Raises:
        SpecError: naming the override at fault.
    """
    assert isinstance(spec.model, UltralyticsModel)
    overrides = dict(spec.model.overrides)
    for name, value in overrides.items():
        where = f"{KEY}.{name}"
        if name in _OF_SPEC:
            raise SpecError(where, repr(value), "not here", f"set `{_OF_SPEC[name]}` instead")
        if name not in DEFAULT_CFG_DICT:
            raise SpecError(where, "is no argument of ultralytics", fix=suggest(name, ACCEPTED))
        if name not in ACCEPTED:
            raise SpecError(where, "has no effect on a training by msbal", fix="leave it out")
    try:
        arguments = get_cfg(overrides=overrides)
    except Exception as error:  # TypeError, ValueError, SyntaxError, by the kind of mistake
        raise SpecError(KEY, " ".join(str(error).split())[:300], "what ultralytics accepts") from error
    if str(arguments.optimizer).lower() not in [name.lower() for name in _OPTIMIZERS]:
        raise SpecError(
            f"{KEY}.optimizer", f"`{arguments.optimizer}`", fix=suggest(str(arguments.optimizer), _OPTIMIZERS)
        )
    freeze = arguments.freeze
    if not (
        freeze is None
        or isinstance(freeze, int)
        or (isinstance(freeze, (list, tuple)) and all(isinstance(item, (int, str)) for item in freeze))
    ):
        raise SpecError(f"{KEY}.freeze", repr(freeze), "a number of layers, or a list of them")
    if spec.schedule.flip is not None:
        arguments.fliplr = spec.schedule.flip
    arguments.seed = spec.seed
    return arguments


def without_effect(spec: RunSpec) -> list[str]:
    """Name the overrides without effect, each with what decides in its place."""
    assert isinstance(spec.model, UltralyticsModel)
    schedule, given, notes = spec.schedule, spec.model.overrides, []
    defaults = type(schedule)()
    for key, names in _DECIDED.items():
        idle = [name for name in names if name in given]
        if idle and getattr(schedule, key) != getattr(defaults, key):
            notes.append(f"schedule.{key} decides, not {', '.join(idle)} of {KEY}")
    idle = [name for name in ("lr0", "momentum") if name in given]
    if idle and schedule.optimizer is None and str(given.get("optimizer", "auto")).lower() == "auto":
        notes.append(
            f"ultralytics' `optimizer: auto` decides, not {', '.join(idle)} of {KEY}: name an optimizer there"
        )
    return notes


def check_image_size(size: Any, stride: int) -> None:
    """Refuse images whose side is no whole number of cells, which ultralytics would round up.

    Args:
        stride: the coarsest one.

    Raises:
        SpecError: with the next size that fits.
    """
    grid = max(GRID, stride)
    if not isinstance(size, int) or isinstance(size, bool) or size < grid or size % grid:
        near = -(-size // grid) * grid if isinstance(size, int) and size > 0 else 640
        raise SpecError(f"{KEY}.imgsz", repr(size), f"a multiple of {grid}", f"e.g. {max(grid, near)}")
