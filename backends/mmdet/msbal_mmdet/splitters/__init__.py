"""How the losses of mmdet's heads are split by level, head class by head class."""

# Each module registers its splitters.
from msbal_mmdet.splitters import flattened, lists, mined, prime, solo  # noqa: F401
from msbal_mmdet.splitters.base import HeadSplitter
from msbal_mmdet.splitters.registry import REFUSED, REFUSED_MODELS, known, look_up, register

__all__ = ["REFUSED", "REFUSED_MODELS", "HeadSplitter", "known", "look_up", "register"]
