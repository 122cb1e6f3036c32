"""The entry point of the group ``msbal.backends``. Importing it does not import torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata, util
from typing import TYPE_CHECKING, Any, ClassVar

from msbal.backend import Diagnosis
from msbal.errors import SpecError
from msbal_torchvision.spec import TorchvisionModel

if TYPE_CHECKING:
    from msbal.data import DetectionData
    from msbal.spec import RunSpec
    from msbal_torchvision.detector import TorchvisionDetector

OLDEST = (0, 19)


class TorchvisionBackend:
    """See `msbal.backend.Backend`."""

    name: ClassVar[str] = "torchvision"
    summary: ClassVar[str] = "RetinaNet, FCOS, Faster R-CNN and SSD of torchvision; needs no compiler"
    model_spec: ClassVar[type[TorchvisionModel]] = TorchvisionModel
    schedule_defaults: ClassVar[Mapping[str, Any]] = {
        "epochs": 12,
        "batch_size": 2,
        "optimizer": {"name": "sgd", "lr": 0.0025, "momentum": 0.9, "weight_decay": 1e-4},
        "scheduler": "step",
        "decay": (8 / 12, 11 / 12),
        "flip": 0.5,
        "checkpoint_every": 500,
    }

    def diagnose(self) -> Diagnosis:
        """Examine torch and torchvision, and whether torchvision's operators load."""
        versions: dict[str, str] = {}
        for package in ("msbal-torchvision", "torch", "torchvision"):
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        install = "pip install 'torchvision>=0.19'"
        if util.find_spec("torchvision") is None:
            return Diagnosis(versions, ["torchvision is not installed"], [install])
        try:
            import torchvision
            from torchvision.ops import nms  # noqa: F401

            installed = tuple(int(part) for part in torchvision.__version__.split(".")[:2])
            if installed < OLDEST:
                return Diagnosis(
                    versions, [f"torchvision {torchvision.__version__} is older than 0.19"], [install]
                )
            if not torchvision.extension._has_ops():
                raise ImportError("its compiled operators do not load")
        except Exception as error:
            problem = f"torchvision does not load beside this torch: {str(error).partition(chr(10))[0]}"
            return Diagnosis(
                versions, [problem], ["pip install --upgrade --force-reinstall torch torchvision"]
            )
        import torch

        notes = [] if torch.cuda.is_available() else ["torch sees no GPU; training runs on the CPU"]
        return Diagnosis(versions, notes=notes)

    def build(self, spec: RunSpec, classes: Sequence[str]) -> TorchvisionDetector:
        """Build the model on its device, with initial weights from the spec's seed.

        Raises:
            SpecError: where the model cannot be built or balanced as the spec says.
        """
        import torch

        from msbal.training.distributed import resolve_device
        from msbal_torchvision.detector import TorchvisionDetector
        from msbal_torchvision.models import build_model
        from msbal_torchvision.splitters import find

        assert isinstance(spec.model, TorchvisionModel)
        two_stage = spec.model.name == "fasterrcnn"
        scope = spec.balance.scope
        if scope is not None and not two_stage:
            raise SpecError(
                "balance.scope", f"[{', '.join(scope)}] for {spec.model.name}", "no scope",
                "leave it out: the model has one head",
            )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            model = build_model(spec.model, len(classes))
        splitters = find(model) if scope is None else find(model, scope)
        return TorchvisionDetector(model, splitters, spec, resolve_device(spec.device))

    def starter(self, data: DetectionData) -> str:
        """Return the ``model:`` and ``schedule:`` sections of a starter spec, as commented YAML."""
        from msbal_torchvision.starter import starter

        return starter(data)
