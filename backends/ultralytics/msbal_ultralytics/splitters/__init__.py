"""The criteria of ultralytics, by level."""

from msbal_ultralytics.splitters.find import find, find_in_criterion

__all__ = ["find", "find_in_criterion"]
