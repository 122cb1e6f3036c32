"""Trackers: monitors that send a run to TensorBoard, Weights & Biases, MLflow, ClearML, Comet or Trackio.

Each is an entry point of the group ``msbal.trackers``, also those of other distributions; `discovery` finds them and
imports only what a run asks for. `scalars` says under which names all of them show the same numbers, and `tracker` is
the base class that leaves to a tracker only how its tool is opened, written to and closed.
"""

from msbal.trackers.discovery import ENTRY_POINT_GROUP, find_trackers, make_trackers
from msbal.trackers.tracker import TrackedRun, Tracker

__all__ = ["ENTRY_POINT_GROUP", "TrackedRun", "Tracker", "find_trackers", "make_trackers"]
