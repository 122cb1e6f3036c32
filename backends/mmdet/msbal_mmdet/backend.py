"""The entry point of the group ``msbal.backends``; importing it imports neither torch nor mmdet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msbal.backend import Diagnosis
from msbal.errors import SpecError
from msbal_mmdet.spec import MMDetModel

if TYPE_CHECKING:
    from msbal.data import DetectionData
    from msbal.spec import RunSpec
    from msbal_mmdet.detector import MMDetDetector


class MMDetBackend:
    """See `msbal.backend.Backend`. The schedule is the config's own where the spec says nothing."""

    name: ClassVar[str] = "mmdet"
    summary: ClassVar[str] = (
        "the model zoo of MMDetection, by its own configs; its operators may need a compiler"
    )
    model_spec: ClassVar[type[MMDetModel]] = MMDetModel

    def diagnose(self) -> Diagnosis:
        """Check mmengine, mmcv with its operators, and mmdet."""
        from msbal_mmdet.diagnosis import diagnose

        return diagnose()

    def build(self, spec: RunSpec, classes: Sequence[str]) -> MMDetDetector:
        """Build the model on its device, its initial weights decided by the spec's seed.

        Raises:
            SpecError: where the config cannot be built, or balanced by level; the reason is named.
        """
        import torch
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.model import revert_sync_batchnorm

        from msbal_mmdet.quiet import quiet

        with quiet():  # before anything else imports mmdet's data sets, which say what they do without
            register_all_modules(init_default_scope=True)

        from msbal.backend.kit.seeding import seed_everything
        from msbal.engine.processes import world_size
        from msbal.training.distributed import resolve_device
        from msbal_mmdet.config.masks import check_needs
        from msbal_mmdet.config.reading import read_config
        from msbal_mmdet.detector import MMDetDetector
        from msbal_mmdet.training import checkpoints
        from msbal_mmdet.training.overrides import apply_model

        assert isinstance(spec.model, MMDetModel)
        config = read_config(spec.model)
        check_needs(config, spec)
        apply_model(config, spec, classes)
        device = resolve_device(spec.device)
        if spec.schedule.amp == "fp16" and device.type == "cpu":
            raise SpecError("schedule.amp", "`fp16` on the CPU", "none or bf16")
        with torch.random.fork_rng(devices=[]):
            seed_everything(spec.seed)
            try:
                with quiet():
                    model = MODELS.build(config.model)
                    model.init_weights()
            except Exception as error:
                raise SpecError(
                    "model", f"mmdet cannot build it: {type(error).__name__}: {str(error)[:300]}",
                    fix="where weights cannot be downloaded, set model.pretrained to false",
                ) from error  # fmt: skip
        if config.load_from:
            checkpoints.start_from(model, Path(config.load_from))
        if world_size() == 1:
            model = revert_sync_batchnorm(model)
        return MMDetDetector(model, config, spec, device)

    def starter(self, data: DetectionData) -> str:
        """Return what `msbal init` proposes."""
        from msbal_mmdet.starter import starter

        return starter(data)
