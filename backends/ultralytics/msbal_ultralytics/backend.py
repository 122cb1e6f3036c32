"""The entry point of the group ``msbal.backends``; importing it imports neither torch nor ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from msbal.backend import Diagnosis
from msbal_ultralytics.spec import UltralyticsModel

if TYPE_CHECKING:
    from msbal.data import DetectionData
    from msbal.spec import RunSpec
    from msbal_ultralytics.detector import UltralyticsDetector

INSTALL = "msbal backends install ultralytics"
PROVEN = ((8, 4), (8, 5))
"""The versions whose losses are proven to be sums over levels: from the first on, below the second."""


class UltralyticsBackend:
    """See `msbal.backend.Backend`."""

    name: ClassVar[str] = "ultralytics"
    summary: ClassVar[str] = (
        "the YOLO models of ultralytics (v3 to 26) that detect boxes; ultralytics is AGPL-3.0"
    )
    model_spec: ClassVar[type[UltralyticsModel]] = UltralyticsModel
    # ultralytics' own arguments decide length, batch, learning rate and the rest where the spec does not name them.
    schedule_defaults: ClassVar[Mapping[str, Any]] = {}

    def diagnose(self) -> Diagnosis:
        """Find out whether ultralytics can be imported, and whether its version is one that is proven."""
        versions: dict[str, str] = {}
        for package in ("ultralytics", "torch", "torchvision"):
            if find_spec(package) is None:
                return Diagnosis(versions, [f"{package} is not installed"], [INSTALL])
            versions[package] = metadata.version(package)
        found = tuple(int(part) for part in versions["ultralytics"].split(".")[:2] if part.isdigit())
        if not PROVEN[0] <= found < PROVEN[1]:
            problem = (
                f"ultralytics {versions['ultralytics']} is not one of the versions that are proven, 8.4.*"
            )
            return Diagnosis(versions, [problem], [INSTALL])
        from msbal_ultralytics.offline import prepare

        try:
            prepare()
        except Exception as error:  # whatever a broken installation raises
            problem = (
                f"ultralytics fails to import: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            )
            return Diagnosis(versions, [problem], [INSTALL])
        return Diagnosis(versions)

    def build(self, spec: RunSpec, classes: Sequence[str]) -> UltralyticsDetector:
        """Build the model on its device, its initial weights decided by the spec's seed.

        Raises:
            SpecError: where the config cannot be built, or balanced by level; the reason is named.
        """
        from msbal_ultralytics.offline import prepare

        prepare()
        from msbal_ultralytics.detector import UltralyticsDetector

        return UltralyticsDetector(spec, classes)

    def starter(self, data: DetectionData) -> str:
        """Return the ``model:`` and ``schedule:`` sections of a starter spec, as commented YAML."""
        from msbal_ultralytics.starter import starter

        return starter(data)
