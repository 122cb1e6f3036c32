"""Find trackers: each is an entry point, of msbal itself or of another distribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import metadata
from importlib.util import find_spec

from msbal.backend import Monitor
from msbal.errors import SpecError, suggest
from msbal.trackers.tracker import TrackedRun

ENTRY_POINT_GROUP = "msbal.trackers"


def find_trackers(names: Iterable[str]) -> list[Callable[[TrackedRun], Monitor]]:
    """Return the classes of these trackers, each once, and check that their packages are there without importing them.

    Raises:
        SpecError: where one is unknown or broken, or its package is missing.
    """
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    found = []
    for name in dict.fromkeys(names):
        if name not in points:
            raise SpecError("log.trackers", f"`{name}` is unknown", fix=suggest(name, points))
        try:
            tracker = points[name].load()
        except Exception as error:
            raise SpecError(
                "log.trackers", f"`{name}` fails to load: {type(error).__name__}: {error}", fix="leave it out"
            ) from error
        package = getattr(tracker, "package", None)
        if package is not None and find_spec(package) is None:
            raise SpecError(
                "log.trackers", f"{name} needs the package {package}, which is not installed",
                fix=f"run `pip install 'msbal[{name}]'`, or leave {name} out",
            )  # fmt: skip
        found.append(tracker)
    return found


def make_trackers(names: Iterable[str], run: TrackedRun) -> list[Monitor]:
    """Return the trackers that a run asks for; none writes or sends anything before the training starts.

    Raises:
        SpecError: where one is not there, or its tool is not set up.
    """
    return [tracker(run) for tracker in find_trackers(names)]
