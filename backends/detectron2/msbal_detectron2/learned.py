"""Adds the parameters of a strategy that learns its weights to a trainer's optimizer and schedules."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from detectron2.engine import hooks
from detectron2.engine.train_loop import TrainerBase
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from msbal.backend.kit.steps import add_learned

_log = logging.getLogger(__name__)


def join(trainer: TrainerBase, parameters: Sequence[nn.Parameter]) -> None:
    """Add parameters to the trainer's optimizer, as their own group, and to its schedules."""
    optimizer = trainer.optimizer
    own, first = add_learned(optimizer, parameters), optimizer.param_groups[0]
    if own is None:
        return
    # Without it there is no schedule yet; a later one will include the new group.
    if "initial_lr" in first:
        own["initial_lr"] = own["lr"]
        own["lr"] *= _progress(first)
    fit_schedules(trainer)
    optimizer.register_load_state_dict_pre_hook(_with_learned_group)


def fit_schedules(trainer: TrainerBase) -> None:
    """Extend schedules that were made, or saved in a checkpoint, before the last groups joined."""
    for scheduler in _schedulers(trainer):
        groups = scheduler.optimizer.param_groups
        for per_group in ("base_lrs", "lr_lambdas", "min_lrs"):
            values = getattr(scheduler, per_group, None)
            if isinstance(values, list) and values:
                for group in groups[len(values) :]:
                    values.append(group["initial_lr"] if per_group == "base_lrs" else values[0])


def _with_learned_group(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
    """Complete a checkpoint from before the learned weights joined: the last group starts anew."""
    saved = state["param_groups"]
    if len(saved) != len(optimizer.param_groups) - 1:
        return None
    _log.warning("msbal: the checkpoint's optimizer has no learned weights: those of the strategy start anew")
    own = dict(optimizer.param_groups[-1])
    if "initial_lr" in own and "initial_lr" in saved[0]:
        own["lr"] = own["initial_lr"] * _progress(saved[0])
    first = sum(len(group["params"]) for group in saved)
    numbers = list(range(first, first + len(own["params"])))
    return {**state, "param_groups": [*saved, {**own, "params": numbers}]}


def _progress(group: dict[str, Any]) -> float:
    """Return a group's current share of its initial learning rate."""
    return float(group["lr"] / group["initial_lr"]) if group["initial_lr"] else 1.0


def _schedulers(trainer: TrainerBase) -> list[LRScheduler]:
    """Return the schedulers that exist for the trainer's optimizer."""
    found = [getattr(trainer, "scheduler", None)]
    found += [
        getattr(hook, "scheduler", None) for hook in trainer._hooks if isinstance(hook, hooks.LRScheduler)
    ]
    known = {id(scheduler): scheduler for scheduler in found if isinstance(scheduler, LRScheduler)}
    return list(known.values())
