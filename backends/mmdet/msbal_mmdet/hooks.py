"""The hook that balances a run of mmengine's: one entry under ``custom_hooks`` of an unchanged config.

custom_hooks = [dict(type="msbal_mmdet.hooks.MultiScaleBalanceHook", strategy="rlo", interval=100)]

mmengine imports what is named by its whole path. The class's name is enough where
``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from msbal.backend.kit.balanced import Balanced, balanced_of
from msbal.backend.kit.script_records import ScriptRecords, interval_scalars
from msbal.engine import BalancerSet
from msbal.engine.record import IntervalRecord
from msbal.errors import RunError, SpecError
from msbal_mmdet.learned import join_optimizer
from msbal_mmdet.names import kind
from msbal_mmdet.settings import make_balancers, read_settings
from msbal_mmdet.skip import SkipNonFinite
from msbal_mmdet.splitters.find import Found, find
from msbal_mmdet.train_step import CountedStep, remove_counted_step

KEY = "msbal"
"""Of a checkpoint: the balancers' state."""


class Records(Protocol):
    """What the hook tells of the run; `ScriptRecords` for one."""

    def begin(self, iteration: int) -> None: ...

    def step(self, iteration: int) -> None: ...

    def flush(self) -> None: ...


@HOOKS.register_module()
class MultiScaleBalanceHook(Hook):
    """Balances the pyramid levels of the runner's model, in the runner's own training steps.

    The records go to ``<work_dir>/intervals.jsonl``, each pass's level losses to ``<work_dir>/losses.csv`` (for
    `msbal replay` and `msbal plot-losses`), and once an interval the weights and losses to the runner's logger and
    visualizer backends. The state is part of mmengine's checkpoints, so that ``--resume`` continues it.

    Args:
        strategy: ``rlo``, ``avw``, ``equal``, ...
        unbalanced: train a model that cannot be balanced as it is, instead of refusing it.
        records: write the two files.
        settings: ``interval``, ``scope``, ``seed``, ``per_term``, ``on_nonfinite`` and the strategy's
            hyperparameters, as in a spec's ``balance:`` section.

    Attributes:
        balancers: of the run; None where it is not balanced.
        balanced: the model's handle, while it trains.

    Raises:
        SpecError: at construction where a setting is wrong, at the run's start where the model cannot
            be balanced.
    """

    # After ParamSchedulerHook and EMAHook, before CheckpointHook, which is VERY_LOW.
    priority = "LOW"

    def __init__(
        self, strategy: str = "rlo", *, unbalanced: bool = False, records: bool = True, **settings: Any
    ) -> None:
        self._begin(read_settings(strategy, settings, type(self).__name__))
        self.unbalanced, self.records = unbalanced, records

    def _begin(self, spec: Any) -> None:
        self.spec = spec
        self.unbalanced, self.records = False, True
        self.found: Found | None = None
        self.balancers: BalancerSet | None = None
        self.balanced: Balanced | None = None
        self._of: Any = None  # the runner whose they are
        self._records: Records | None = None
        self._loaded: dict[str, Any] | None = None
        self._begun = self._called = False
        self._step: CountedStep | None = None
        self._skip: SkipNonFinite | None = None

    # -- mmengine's calls --------------------------------------------------------------------------

    def before_run(self, runner: Any) -> None:
        """Find the heads of the model; called before weights or a checkpoint are loaded, of val and test too."""
        # Not built: nothing is trained, or not yet.
        if any(isinstance(part, Mapping | None) for part in (runner._train_loop, runner.optim_wrapper)):
            return
        if sum(isinstance(hook, MultiScaleBalanceHook) for hook in runner.hooks) > 1:
            raise SpecError(
                "custom_hooks", f"{MultiScaleBalanceHook.__name__} twice", "one", "remove one of them"
            )
        self.clear(runner)
        if self._of is runner:  # trains again, or validates after it has trained
            return
        self._of, self.balancers = runner, None
        model = _unwrapped(runner.model)
        if balanced_of(model) is not None:
            raise SpecError(
                f"model: {type(model).__name__}", "balanced already", "a model that is not",
                "call remove() on what balance() returned, or leave the hook out",
            )  # fmt: skip
        try:
            self.found = find(model, self.spec.scope)
        except SpecError as error:
            if not self.unbalanced:
                raise
            runner.logger.warning(f"msbal: trains unbalanced: {error.found}")
            return
        self.balancers = self.make_balancers(self.found, runner)
        self.balancers.to(next(model.parameters()).device)
        learned = list(self.balancers.parameters())
        if learned:
            join_optimizer(runner, learned)
        self._describe(runner)

    def before_train(self, runner: Any) -> None:
        """The checkpoint is loaded: from now on the training steps are balanced."""
        if self.balancers is None or self.found is None:
            return
        model = _unwrapped(runner.model)
        self.balanced = Balanced(model, self.found.splitters, self.balancers, self.found.notes)
        vars(self.balanced)["by_hook"] = True
        self._load()
        self._step = CountedStep(runner.model, self.balanced)
        self._records = self.make_records(runner)
        self._begun = self._called = False
        if self.spec.on_nonfinite == "skip":
            self._skip = SkipNonFinite(runner.optim_wrapper)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The records begin where the run does."""
        if self._records is not None and not self._begun:
            self._begun = True
            self._records.begin(runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take what has arrived; on the device nothing is waited for."""
        if self.balanced is None or self.balancers is None or self._records is None:
            return
        if not self._called:
            self._called = True
            self.balanced.require_calls()
        self._check_finite(runner)
        self._records.step(runner.iter + 1)
        for hook in _saving_hooks(runner):
            due = hook.every_n_train_iters(runner, hook.interval) or self.is_last_train_iter(runner)
            if not hook.by_epoch and due:
                self.balanced.synchronize()

    def after_train_epoch(self, runner: Any) -> None:
        """A checkpoint may follow."""
        if self.balanced is not None and any(hook.by_epoch for hook in _saving_hooks(runner)):
            self.balanced.synchronize()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """A checkpoint follows where it was the best."""
        if self.balanced is not None and any(_saving_hooks(runner)):
            self.balanced.synchronize()

    def after_train(self, runner: Any) -> None:
        """The last records, and the model as it was."""
        if self._records is not None and self._begun:
            self._records.flush()
        self.clear(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the balancers' state into a checkpoint, all records of it written."""
        if self.balancers is not None:
            if self._records is not None and self._begun:
                self._records.flush()
            state = (self.balanced or self.balancers).state_dict()
            checkpoint[KEY] = {key: _on_host(value) for key, value in state.items()}

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take it back on resume; weights loaded to fine-tune from (`load_from`) begin a new run."""
        if self.balancers is None or not runner._resume or KEY not in checkpoint:
            return
        self._loaded = checkpoint[KEY]

    # -- what msbal's own runner does in another way -------------------------------------------------

    def make_balancers(self, found: Found, runner: Any) -> BalancerSet:
        """The balancers; their draws follow the runner's seed where the settings name none."""
        # Under diff_rank_seed mmengine adds the rank; all ranks have to draw the same.
        apart = get_rank() if runner._randomness_cfg.get("diff_rank_seed") else 0
        return make_balancers(self.spec, found.groups, int(runner.seed or 0) - apart)

    def make_records(self, runner: Any) -> Records:
        """The writer of the records, on the first rank."""
        assert self.balancers is not None
        folder = runner.work_dir if self.records and get_rank() == 0 else None
        return ScriptRecords(
            self.balancers,
            folder,
            lambda record: self._publish(runner, record),
            runner.logger.warning,
            losses=True,
        )

    # -- the rest ------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Go on from the checkpoint that was resumed from."""
        state, self._loaded = self._loaded, None
        if state is None or self.balanced is None:
            return
        try:
            self.balanced.load_state_dict(state)
        except RuntimeError as error:
            raise SpecError(
                "resume",
                f"the checkpoint's balancer does not fit: {' '.join(str(error).split())[:200]}",
                "the levels, interval and strategy that it was saved with",
                "leave the hook's settings as they were, or start a new run with load_from",
            ) from error

    def clear(self, runner: Any) -> None:
        """Leave the model as it was; also where a run before was interrupted."""
        model = _unwrapped(runner.model)
        for module in {id(m): m for m in (runner.model, model)}.values():
            remove_counted_step(module)
        balanced = balanced_of(model)
        if balanced is not None and getattr(balanced, "by_hook", False):
            balanced.remove()
        if self._skip is not None:
            self._skip.remove()
        self.balanced = self._step = self._skip = self._records = None

    def _publish(self, runner: Any, record: IntervalRecord) -> None:
        """A record for mmengine's logger and visualizer backends (TensorBoard, files ...)."""
        assert self.found is not None
        scalars = interval_scalars(record, self.found.groups)
        for name, value in scalars.items():
            runner.message_hub.update_scalar(name, value)
        if get_rank() == 0:
            runner.visualizer.add_scalars(scalars, step=record.iteration)
            weights = ", ".join(f"{n} {w:.3f}" for n, w in zip(record.levels, record.weights, strict=True))
            runner.logger.info(
                f"msbal: interval {record.interval} of {record.group}: {record.action}, weights {weights}"
            )

    def _describe(self, runner: Any) -> None:
        assert self.found is not None
        for group in self.found.groups:
            runner.logger.info(
                f"msbal: balances {group.name} ({group.head}): levels {', '.join(group.levels)}, "
                f"terms {', '.join(group.terms)}; {self.spec.strategy}, interval {self.spec.interval}"
            )
        for note in self.found.notes:
            runner.logger.info(f"msbal: left as it is: {note}")

    def _check_finite(self, runner: Any) -> None:
        """Stop at a loss that is NaN or infinite, naming level and term.

        The number that is looked at is the one that mmengine has fetched already for its own log.
        """
        if self.spec.on_nonfinite != "stop" or self.balanced is None:
            return
        history = runner.message_hub.log_scalars.get("train/loss")
        if history is None or math.isfinite(history.current()):
            return
        named = [
            f"{found.value} in {found.term} of {found.level} (rank {found.rank})"
            for found in self.balanced.nonfinite()
        ]
        raise RunError(
            f"iteration {runner.iter + 1}",
            f"the loss is {history.current()}: {'; '.join(named) or 'in a loss that is not balanced'}",
            fix="lower the learning rate, or set on_nonfinite to skip",
        )


def _unwrapped(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _on_host(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _saving_hooks(runner: Any) -> Iterator[CheckpointHook]:
    """Of a run on several ranks, whose part of an unfinished interval has to be gathered on all of them before
    the first one saves; mmengine tells the others nothing of that."""
    if get_world_size() > 1:
        yield from (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))


def hook_config(spec: Any, unbalanced: bool = False) -> dict[str, Any]:
    """The ``custom_hooks`` entry for a ``balance:`` section."""
    values: Mapping[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    return {"type": "MultiScaleBalanceHook", **({"unbalanced": True} if unbalanced else {}), **values}


def is_balance_hook(entry: Any) -> bool:
    """Whether a ``custom_hooks`` entry is this hook: named by its class, by its path, or given as the class."""
    return str(MultiScaleBalanceHook.__name__) == kind(entry)


__all__: Sequence[str] = ["KEY", "MultiScaleBalanceHook", "hook_config", "is_balance_hook"]
