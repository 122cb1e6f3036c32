"""Silence mmengine and mmdet, which print and warn while they are imported and build."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(errors: bool = False) -> Iterator[None]:
    """Drop what is printed and warned of for a while.

    Args:
        errors: drop what goes to stderr too.
    """
    logger = logging.getLogger("mmengine")
    level, disabled = logger.level, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            if errors:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        logger.setLevel(level)
