from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("detectron2", reason="the detectron2 backend's framework is not installed")

from msbal_detectron2 import compat

compat.prepare()


@pytest.fixture(autouse=True)
def storage() -> Iterator[object]:
    """detectron2's losses log into the storage on top of a global stack."""
    from detectron2.utils.events import EventStorage

    with EventStorage() as storage:
        yield storage
