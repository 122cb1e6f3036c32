"""The optional libraries of the extra ``plots``."""

from __future__ import annotations

import importlib.util

from msbal.errors import BackendError


def need(library: str) -> None:
    """Says what to install where ``library`` is missing.

    Raises:
        BackendError: it cannot be found.
    """
    if importlib.util.find_spec(library) is None:
        raise BackendError(library, "not installed", "the extra `plots`", "pip install 'msbal[plots]'")
