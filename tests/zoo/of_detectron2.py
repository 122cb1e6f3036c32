"""The configs that the installed detectron2 carries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msbal_detectron2 import compat
from zoo.outcome import NO_MODEL, REFUSED, Outcome, unusable
from zoo.proving import prove_outcome


class Zoo:
    """See `zoo.workers.Zoo`. A name is the config's path, YAML or LazyConfig, as `model.config` takes it."""

    def names(self) -> list[str]:
        compat.prepare()
        from msbal_detectron2 import config as configs

        return list(configs.zoo_configs())

    def digest(self, name: str) -> str:
        loaded = _load_small(name)
        return name if loaded is None else loaded[1]

    def check(self, name: str) -> Outcome:
        loaded = _load_small(name)
        if loaded is None:
            return Outcome("", NO_MODEL, "it has no complete model")
        return _prove(loaded[0])


def _load_small(name: str) -> tuple[Any, str] | None:
    """A config's shrunk model (a ``CfgNode``, or the model part of a LazyConfig) and its text; None without one."""
    compat.prepare()
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf

    from msbal_detectron2 import config as configs
    from zoo import small_detectron2 as small

    path = configs.zoo_root() / name
    if path.suffix == ".yaml":
        cfg = small.shrink(configs.read_yaml(path, trusted=True))
        return cfg, str([cfg.MODEL, cfg.INPUT.MASK_FORMAT])
    lazy = LazyConfig.load(str(path))
    if "model" not in lazy or not OmegaConf.is_dict(lazy.model) or "_target_" not in lazy.model:
        return None
    model = small.shrink_lazy(lazy.model)
    return model, str(OmegaConf.to_container(model, resolve=False))


def _prove(config: Any) -> Outcome:
    """Build a shrunk model and prove it."""
    import torch
    from detectron2.config import CfgNode, instantiate
    from detectron2.modeling import build_model

    from msbal.errors import SpecError
    from msbal_detectron2.detector import SplitDetectron2
    from msbal_detectron2.splitters import find
    from zoo import small_detectron2 as small

    torch.manual_seed(0)
    try:
        model = build_model(config) if isinstance(config, CfgNode) else instantiate(config)
    except Exception as error:  # whatever a part that is not installed raises
        return unusable("build", error)
    detector = type(model).__name__
    if not hasattr(model, "backbone"):
        return Outcome("", NO_MODEL, "it is no detector", detector)
    # The losses lie behind the backbone: without its gradients a proof takes a third of the time.
    bottom_up = getattr(model.backbone, "bottom_up", None)
    if bottom_up is not None:
        bottom_up.requires_grad_(False)
    subject, refusals = None, []
    for scope in (("rpn", "roi"), ("rpn",), ("roi",)):
        try:
            subject = SplitDetectron2(model, find(model, scope))
            break
        except SpecError as error:
            refusals.append(error.found)
    if subject is None:
        return Outcome("", REFUSED, refusals[1], detector)
    batch = small.batch()
    try:
        subject.framework_losses(batch)
    except Exception as error:
        return replace(unusable("step", error), detector=detector)
    return prove_outcome(subject, batch, detector)  # type: ignore[arg-type]
