"""What is installed, what does not fit, whether the proof holds, and the command that fixes it."""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib import metadata, util
from typing import Any

from msbal.backend import Diagnosis
from msbal.errors import BackendError

INSTALL = "msbal backends install ultralytics"
OLDEST, BELOW = (8, 4, 10), (8, 5)
LATEST = "8.4.190"
"""The last version with which the tests have run."""
DISTRIBUTIONS = ("ultralytics", "ultralytics-opencv-headless")
"""The same package twice: the second one requires an OpenCV that needs no display library."""
MODELS = ("yolov8n.yaml", "yolo26n.yaml", "yolov8n-obb.yaml")
"""What the proof builds: the classic head; two assignments and no distributions; oriented boxes."""


def diagnose(proof: bool = False) -> Diagnosis:
    """Run every check, in the order in which one failure would hide the next.

    Args:
        proof: prove small models, too, which takes two seconds. A version newer than `LATEST` is always proved; with
            others the first batch of a training proves the losses.
    """
    names = ("msbal-ultralytics", "torch", "torchvision", *DISTRIBUTIONS)
    versions = {name: found for name in names if (found := version_of(name))}
    for package in ("torch", "torchvision"):
        if package not in versions:
            return Diagnosis(versions, [f"{package} is not installed"], ["pip install torch torchvision"])
    if util.find_spec("ultralytics") is None:
        return Diagnosis(versions, ["ultralytics is not installed"], [INSTALL])
    problem = wrong_version()
    if problem:
        return Diagnosis(versions, [problem], [INSTALL])
    try:
        importlib.import_module("cv2")
    except Exception as error:
        return Diagnosis(versions, [f"OpenCV does not load: {_in_one_line(error)}"], [INSTALL])
    proof = proof or _numbers(installed_version()) > _numbers(LATEST)
    try:
        problem = _failed_proof() if proof else ""
    except Exception as error:
        text = f"{type(error).__name__}: {_in_one_line(error)}"
        problem = f"ultralytics {installed_version()} fails the proof: {text}"
    if problem:
        return Diagnosis(versions, [problem], [f"pip install ultralytics=={LATEST}"])
    import torch

    notes = [f"the levels' losses add up to ultralytics' own on {', '.join(MODELS)}"] if proof else []
    if not torch.cuda.is_available():
        notes.append("torch sees no GPU; training runs on the CPU")
    return Diagnosis(versions, notes=notes)


def require_version() -> None:
    """Refuse a version that msbal does not know, before anything is built.

    Raises:
        BackendError: where ultralytics is missing or of another series.
    """
    problem = "not installed" if util.find_spec("ultralytics") is None else wrong_version()
    if problem:
        raise BackendError("ultralytics", problem, fix=f"run `{INSTALL}`")


def wrong_version() -> str:
    """Say what is wrong with the version that is installed; empty where it will do."""
    found = installed_version()
    if OLDEST <= _numbers(found) < BELOW:
        return ""
    low, high = (".".join(map(str, numbers)) for numbers in (OLDEST, BELOW))
    return f"ultralytics {found or 'of an unknown version'} does not fit: {low} or later, below {high}, is needed"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def installed_version() -> str:
    """Return the version of ultralytics, whichever distribution brought it, without importing it."""
    return next((found for name in DISTRIBUTIONS if (found := version_of(name))), "")


def version_of(distribution: str) -> str:
    """Return a distribution's version, empty where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@cache
def _failed_proof() -> str:
    """Prove small models on one batch of noise; return what failed, empty where everything holds."""
    from msbal_ultralytics.offline import prepare

    prepare()
    from msbal.backend.proof import prove
    from msbal_ultralytics.detector import SplitUltralytics
    from msbal_ultralytics.splitters import find

    for name in MODELS:
        model, batch = _small(name)
        proof = prove(SplitUltralytics(model, find(model)), batch)
        if not proof.holds:
            return (
                f"ultralytics {installed_version()} fails the proof on {name}: the levels' sum is off by "
                f"{proof.value_error:.0e}, unit weights by {proof.unit_gradient:.0e}, others by "
                f"{proof.weighted_gradient:.0e}"
            )
    return ""


def _small(name: str) -> tuple[Any, dict[str, Any]]:
    """Return a model, and a batch of two images of 128 pixels with an object for each of its levels."""
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn import tasks

    oriented = "obb" in name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (tasks.OBBModel if oriented else tasks.DetectionModel)(name, nc=2, verbose=False)
        images = torch.rand(2, 3, 128, 128)
    model.args = get_cfg()
    head = model.model[-1]
    if (
        head.reg_max > 1
    ):  # at first it predicts boxes of 15 strides; 2, as without distributions, fit into the image
        for branch in head.cv2:
            branch[-1].bias.data.view(4, -1)[:, 1] += 5
    sides = torch.tensor([0.125, 0.25, 0.5]).repeat(2)[:, None]
    boxes = [torch.full((6, 2), 0.375), sides, sides * 0.9, *([sides] if oriented else [])]
    return model, {
        "img": images,
        "batch_idx": torch.arange(2.0).repeat_interleave(3),
        "cls": torch.tensor([0.0, 1.0]).repeat(3)[:, None],
        "bboxes": torch.cat(boxes, dim=1),
        "resized_shape": [(128, 128)] * 2,
    }
