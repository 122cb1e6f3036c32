"""The criteria of ultralytics, by level."""

from msbal_ultralytics.splitters.find import find, find_in_criterion, require_detection

__all__ = ["find", "find_in_criterion", "require_detection"]
