"""Finds backends: each is an entry point of its own distribution."""

from __future__ import annotations

from importlib import metadata

from msbal.backend.protocol import Backend
from msbal.errors import BackendError, suggest

ENTRY_POINT_GROUP = "msbal.backends"


def installed_backends() -> dict[str, metadata.EntryPoint]:
    """Return the entry points by name; none is loaded."""
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def load_backend(name: str) -> Backend:
    """Load a backend by its name.

    Raises:
        BackendError: where it is not installed, or its own import fails (the cause is named).
    """
    points = installed_backends()
    if name not in points:
        raise BackendError(
            "backend",
            f"`{name}` is not installed",
            suggest(name, points),
            f"run `msbal backends install {name}`",
        )
    try:
        backend = points[name].load()()
    except Exception as error:
        raise BackendError(
            "backend",
            f"`{name}` fails to load: {type(error).__name__}: {error}",
            fix=f"run `msbal backends {name}` to see what is wrong",
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError("backend", f"`{name}` is a {type(backend).__name__}", "a msbal.backend.Backend")
    return backend
