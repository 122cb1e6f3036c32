"""Frameworks that train: what one has to offer, how it is found, and what all of them share.

`protocol` says what a backend is, `discovery` finds it, `kit` has what every backend needs, `proof` measures on one
batch that it splits the framework's loss rightly, and `contract` is the test suite that each of them passes.
"""

from msbal.backend.discovery import ENTRY_POINT_GROUP, installed_backends, load_backend
from msbal.backend.protocol import (
    HONOURED,
    Backend,
    ChecksData,
    CountsBoxes,
    Detector,
    Diagnosis,
    Honours,
    Job,
    LevelGroup,
    Monitor,
    OffersStarter,
    ReadsImages,
    Remarks,
    SetsSchedule,
    SplitLosses,
)

__all__ = [
    "ENTRY_POINT_GROUP", "HONOURED", "Backend", "ChecksData", "CountsBoxes", "Detector", "Diagnosis", "Honours", "Job",
    "LevelGroup", "Monitor", "OffersStarter", "ReadsImages", "Remarks", "SetsSchedule", "SplitLosses",
    "installed_backends", "load_backend",
]  # fmt: skip
