"""Records of a run and the folder that they lie in. Nothing here imports torch."""

from msbal.engine.record import IntervalRecord, NonFinite
from msbal.records.environment import read_starts, write_environment
from msbal.records.intervals import from_json, parse_intervals, read_intervals, to_json
from msbal.records.losses_log import RecordedLosses, open_losses
from msbal.records.metrics import add_evaluation, read_metrics, rewind_metrics
from msbal.records.recorder import Recorder
from msbal.records.run_directory import RunDirectory

__all__ = [
    "IntervalRecord", "NonFinite", "RecordedLosses", "Recorder", "RunDirectory", "add_evaluation",
    "from_json", "open_losses", "parse_intervals", "read_intervals", "read_metrics", "read_starts",
    "rewind_metrics", "to_json", "write_environment",
]  # fmt: skip
