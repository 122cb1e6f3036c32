"""Lets a balanced model count in its runner's own training steps alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from msbal.backend.kit.balanced import Balanced


class CountedStep:
    """Stands on a model, or on the wrapper around it, for its ``train_step``, with which mmengine's loops train.

    Between two steps the balancing pauses: what other hooks compute on the model counts for nothing. A class and not
    a closure, so that it copies and pickles with the model.
    """

    def __init__(self, model: nn.Module, balanced: Balanced) -> None:
        self.model, self.balanced = model, balanced
        self.before = vars(model).get("train_step")  # compiled, or a user's own
        vars(model)["train_step"] = self
        balanced.pause()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kind: Any = type(self.model)
        own = self.before if self.before is not None else kind.train_step.__get__(self.model)
        self.balanced.go_on()
        try:
            return own(*args, **kwargs)
        finally:
            self.balanced.pause()

    def remove(self) -> None:
        """Give back the model's own."""
        if vars(self.model).get("train_step") is self:
            vars(self.model).pop("train_step")
            if self.before is not None:
                vars(self.model)["train_step"] = self.before
        self.balanced.go_on()


def remove_counted_step(model: nn.Module) -> None:
    """Remove what a run left that was interrupted."""
    found = vars(model).get("train_step")
    if isinstance(found, CountedStep):
        found.remove()
