"""Build a detector to predict or to count with, without the checks that a training needs."""

from __future__ import annotations

from collections.abc import Sequence

from msbal.backend import Detector
from msbal.backend.kit.seeding import seed_everything
from msbal.spec import RunSpec
from msbal.training.plan import ready_backend


def build_detector(spec: RunSpec, classes: Sequence[str]) -> Detector:
    """Return the model of a spec.

    Raises:
        SpecError: where the spec does not fit the framework.
        BackendError: where the framework is missing or broken.
    """
    backend = ready_backend(spec.backend)
    seed_everything(spec.seed)
    return backend.build(spec, classes)
