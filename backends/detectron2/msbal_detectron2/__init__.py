"""msbal for detectron2: balances the losses of a detector's pyramid levels while detectron2 trains it.

In your own training script::

    from msbal_detectron2 import balance

    trainer = DefaultTrainer(cfg)
    balance(trainer, strategy="rlo", interval=100)
    trainer.train()

The names below are imported on first use: importing this package imports neither torch nor detectron2, so that the
installer can run before detectron2 exists.
"""

from typing import TYPE_CHECKING, Any

from msbal.lazy import attach

if TYPE_CHECKING:
    from msbal.backend.kit.balanced import Balanced, balanced_of
    from msbal_detectron2.backend import Detectron2Backend
    from msbal_detectron2.balancing import balance
    from msbal_detectron2.data import register_data
    from msbal_detectron2.hook import BalanceHook

__all__ = ["BalanceHook", "Balanced", "Detectron2Backend", "balance", "balanced_of", "register_data"]

_load = attach(
    __name__,
    {
        "BalanceHook": "msbal_detectron2.hook",
        "Balanced": "msbal.backend.kit.balanced",
        "Detectron2Backend": "msbal_detectron2.backend",
        "balance": "msbal_detectron2.balancing",
        "balanced_of": "msbal.backend.kit.balanced",
        "register_data": "msbal_detectron2.data",
    },
)


def __getattr__(name: str) -> Any:
    if name in __all__ and name != "Detectron2Backend":
        from msbal_detectron2 import compat

        compat.prepare()
    return _load(name)
