"""msbal for detectron2: balances the losses of a detector's pyramid levels while detectron2 trains it.

In a training script of one's own::

    from msbal_detectron2 import balance

    trainer = DefaultTrainer(cfg)
    balance(trainer, strategy="rlo", interval=100)
    trainer.train()

Importing this package imports neither torch nor detectron2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import Balanced, balanced_of
    from msbal_detectron2.backend import Detectron2Backend
    from msbal_detectron2.data import register_data
    from msbal_detectron2.hook import BalanceHook
    from msbal_detectron2.script import balance

__all__ = ["BalanceHook", "Balanced", "Detectron2Backend", "balance", "balanced_of", "register_data"]

_HOMES = {
    "BalanceHook": "msbal_detectron2.hook",
    "Balanced": "msbal.backend.kit.balanced",
    "Detectron2Backend": "msbal_detectron2.backend",
    "balance": "msbal_detectron2.script",
    "balanced_of": "msbal.backend.kit.balanced",
    "register_data": "msbal_detectron2.data",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), so that the installer can run before detectron2 exists."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name != "Detectron2Backend":
        from msbal_detectron2 import compat

        compat.prepare()
    return getattr(import_module(_HOMES[name]), name)
