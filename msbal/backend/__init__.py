"""Frameworks that train: what a backend has to offer, how msbal finds it, and what all backends share.

`protocol` says what a backend is, `discovery` finds it, `kit` holds what every backend needs, and `proof` measures on
one batch that it splits the framework's loss correctly. `msbal.testing.backends` has the tests that each must pass.
"""

from msbal.backend.discovery import ENTRY_POINT_GROUP, installed_backends, load_backend
from msbal.backend.protocol import (
    HONOURED,
    AssignsBoxes,
    Backend,
    BoxCounts,
    Detector,
    Diagnosis,
    Honours,
    Job,
    LevelGroup,
    Monitor,
    OffersStarter,
    ProvesInstallation,
    ReadsImages,
    Remarks,
    SetsSchedule,
    SplitLosses,
    count_boxes,
    honoured_by,
)

__all__ = [
    "ENTRY_POINT_GROUP", "HONOURED", "AssignsBoxes", "Backend", "BoxCounts", "Detector", "Diagnosis", "Honours", "Job",
    "LevelGroup", "Monitor", "OffersStarter", "ProvesInstallation", "ReadsImages", "Remarks", "SetsSchedule",
    "SplitLosses", "count_boxes", "honoured_by", "installed_backends", "load_backend",
]  # fmt: skip
