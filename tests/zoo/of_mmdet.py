"""The configs that the installed mmdet carries."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

from zoo.outcome import NO_MODEL, REFUSED, UNUSABLE, Outcome, one_line, unusable
from zoo.proving import prove_outcome


class Zoo:
    """See `zoo.workers.Zoo`. A name is the config's path, as `model.config` takes it."""

    def names(self) -> list[str]:
        from zoo import small_mmdet as tiny

        folder = tiny.zoo()
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py") if "_base_" not in p.parts)

    def digest(self, name: str) -> str:
        from zoo import small_mmdet as tiny

        config = tiny.load_config(tiny.zoo() / name)
        if "model" not in config:
            return ""
        text = json.dumps([tiny.shrink(config.model), tiny.loads_masks(config)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, name: str) -> Outcome:
        from zoo import small_mmdet as tiny

        try:
            config = tiny.load_config(tiny.zoo() / name)
        except tiny.NeedsPackage as error:
            return Outcome("", UNUSABLE, str(error))
        except FileNotFoundError as error:
            return Outcome("", UNUSABLE, f"its _base_ names a file that is not there: {_file_of(error)}")
        if "model" not in config or "type" not in config.model:
            return Outcome("", NO_MODEL, "it has no complete model")
        detector = str(config.model.type).rpartition(".")[2].strip("'>")
        if "data_preprocessor" not in config.model and detector == "ImageClassifier":
            return Outcome("", NO_MODEL, "it trains a classifier", detector)
        return _prove(config, detector)


def _prove(config: Any, detector: str) -> Outcome:
    from msbal.backend.kit.seeding import seed_everything
    from msbal.errors import SpecError
    from msbal_mmdet.splitters.model_losses import ModelLosses
    from zoo import small_mmdet as tiny

    masks = tiny.loads_masks(config)
    try:
        seed_everything(0)
        model = tiny.build_small(config)
    except Exception as error:
        reason = _refused_by_config(config)
        if reason is not None:
            return Outcome("", REFUSED, one_line(reason), detector)
        if isinstance(error, tiny.NeedsPackage):
            return Outcome("", UNUSABLE, str(error), detector)
        return replace(unusable("build", error), detector=detector)
    try:
        losses = ModelLosses(model)
    except SpecError as error:
        # A detector without an RPN may still have RoI levels.
        try:
            losses = ModelLosses(model, ("roi",))
        except SpecError:
            return Outcome("", REFUSED, one_line(error.found), detector)

    last: Exception | None = None
    for attempt in range(3):
        batch = tiny.batch_for(model, masks, attempt)
        try:
            losses.framework_losses(batch)
        except Exception as error:
            reason = _never_trained(config)
            if reason is not None:
                return Outcome("", UNUSABLE, reason, detector)
            last = error
            continue
        return prove_outcome(losses, batch, detector, attempt)
    return Outcome("", UNUSABLE, one_line(f"step: {last}"), detector)


def _file_of(error: FileNotFoundError) -> str:
    """The name in an error of Python's or of mmengine's, which puts it into quotation marks."""
    found = re.search(r"""["']([^"']+)["']""", str(error))
    return str(error.filename or (found[1] if found else error)).rpartition("/")[2]


def _never_trained(config: Any) -> str | None:
    """Why a step of a config fails that mmdet itself only evaluates with."""
    head = config.model.get("bbox_head")
    if isinstance(head, dict) and head.get("type") == "ATSSVLFusionHead" and "loss_bbox" not in head:
        return (
            "it is for evaluation: it sets no loss_bbox, and the SmoothL1Loss that AnchorHead then takes does "
            "not fit ATSSVLFusionHead; with model.bbox_head.loss_bbox.type=GIoULoss the proof holds"
        )
    return None


def _refused_by_config(config: Any) -> str | None:
    """Why a model that cannot be built here would be refused: by the classes of its heads."""
    from mmdet.registry import MODELS

    from msbal_mmdet.splitters import REFUSED, REFUSED_MODELS, known
    from zoo import small_mmdet as tiny

    reasons = []
    for part in tiny.walk(config.model):
        kind = part.get("type")
        cls = MODELS.get(kind) if isinstance(kind, str) else kind
        for base in getattr(cls, "__mro__", ()):
            if base.__name__ in REFUSED_MODELS:
                return f"it cannot be balanced: {REFUSED_MODELS[base.__name__]}"
            if base.__name__ in known():
                return None
            if base.__name__ in REFUSED:
                reasons.append(f"{cls.__name__}: {REFUSED[base.__name__]}")
                break
    return f"it cannot be balanced: {reasons[0]}" if reasons else None
