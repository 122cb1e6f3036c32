"""The entry point of the group ``msbal.backends``. Importing it does not import detectron2."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from msbal.backend import Diagnosis
from msbal.errors import BackendError
from msbal_detectron2.spec import Detectron2Model

if TYPE_CHECKING:
    from msbal.data import DetectionData
    from msbal.spec import RunSpec
    from msbal_detectron2.detector import Detectron2Detector

INSTALL = "msbal backends install detectron2"


class Detectron2Backend:
    """See `msbal.backend.Backend`."""

    name: ClassVar[str] = "detectron2"
    summary: ClassVar[str] = "detectron2's model zoo: RetinaNet, FCOS, Faster and Cascade R-CNN with FPN"
    model_spec: ClassVar[type[Detectron2Model]] = Detectron2Model
    # The config decides length, batch, learning rate and the rest where the spec does not name them.
    schedule_defaults: ClassVar[Mapping[str, Any]] = {}

    def diagnose(self) -> Diagnosis:
        """Find out whether detectron2 can be imported, and whether it has its C++ operators."""
        if find_spec("torch") is None or find_spec("torchvision") is None:
            return Diagnosis({}, ["torch or torchvision is not installed"], ["pip install torch torchvision"])
        if find_spec("detectron2") is None:
            return Diagnosis({}, ["detectron2 is not installed"], [INSTALL])
        from msbal_detectron2 import compat, installer

        versions: dict[str, str] = {}
        try:
            compat.prepare()
            for package in ("detectron2", "fvcore", "torch", "torchvision"):
                versions[package] = str(importlib.import_module(package).__version__)
            importlib.import_module("detectron2.engine")
        except BackendError as error:
            return Diagnosis(versions, [error.found], [INSTALL])
        except Exception as error:  # whatever a broken installation raises
            problem = f"detectron2 fails to import: {type(error).__name__}: {error}"
            return Diagnosis(versions, [problem], [INSTALL])
        return Diagnosis(versions, notes=[] if compat.has_cpp_operators() else [installer.WITHOUT_CPP])

    def starter(self, data: DetectionData) -> str:
        """Return the ``model:`` and ``schedule:`` sections of a starter spec, as commented YAML."""
        from msbal_detectron2.starter import starter

        return starter(data)

    def build(self, spec: RunSpec, classes: Sequence[str]) -> Detectron2Detector:
        """Build the spec's model.

        Raises:
            SpecError: where the config cannot be read, or the model has nothing to balance.
            BackendError: where detectron2 is missing or broken.
        """
        from msbal_detectron2 import compat

        compat.prepare()
        from msbal_detectron2.detector import Detectron2Detector

        return Detectron2Detector(spec, classes)
