"""The entry point of the group ``msbal.backends``; importing it imports neither torch nor ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from msbal_ultralytics.spec import UltralyticsModel

if TYPE_CHECKING:
    from msbal.backend import Diagnosis
    from msbal.data import DetectionData
    from msbal.spec import RunSpec
    from msbal_ultralytics.detector import UltralyticsDetector


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
        """Examine versions and OpenCV; `prove` too where the version is newer than those that were tested."""
        from msbal_ultralytics.diagnosis import diagnose

        return diagnose()

    def prove(self) -> Diagnosis:
        """Also prove that the losses of small models are sums over levels."""
        from msbal_ultralytics.diagnosis import diagnose

        return diagnose(proof=True)

    def build(self, spec: RunSpec, classes: Sequence[str]) -> UltralyticsDetector:
        """Build the model on its device, its initial weights decided by the spec's seed.

        Raises:
            BackendError: where ultralytics is missing, or not of the versions that are proven.
            SpecError: where the config cannot be built, or balanced by level; the reason is named.
        """
        from msbal_ultralytics.diagnosis import require_version
        from msbal_ultralytics.offline import prepare

        require_version()
        prepare()
        from msbal_ultralytics.detector import UltralyticsDetector

        return UltralyticsDetector(spec, classes)

    def starter(self, data: DetectionData) -> str:
        """Return the ``model:`` and ``schedule:`` sections of a starter spec, as commented YAML."""
        from msbal_ultralytics.starter import starter

        return starter(data)
