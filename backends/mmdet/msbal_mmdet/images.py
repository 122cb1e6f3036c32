"""Images that mmcv cannot read, named as in the other backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msbal.data.model import DetectionData
from msbal.errors import DataError


@contextmanager
def naming_images(data: DetectionData) -> Iterator[None]:
    """Let an image that mmcv cannot read be the error that it is in the other backends.

    Raises:
        DataError: in place of mmcv's own, which holds the path as text.
    """
    try:
        yield
    except (OSError, AssertionError) as error:
        for image in data.images:
            if str(image.path) in str(error):
                reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1][:200]
                raise DataError(str(image.path), f"cannot be read: {reason}", "an image") from error
        raise
