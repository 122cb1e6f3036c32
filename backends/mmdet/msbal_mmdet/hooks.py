"""The hook that balances a run of mmengine's: one entry under ``custom_hooks`` of an unchanged config.

custom_hooks = [dict(type="msbal_mmdet.hooks.MultiScaleBalanceHook", strategy="rlo", interval=100)]

mmengine imports what is named by its whole path. The class's name is enough where
``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from pydantic import ValidationError

from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.nonfinite import OnNonFinite
from msbal.backend.kit.script_records import ScriptRecords, interval_scalars
from msbal.engine import BalancerSet
from msbal.engine.record import IntervalRecord
from msbal.errors import SpecError, suggest
from msbal.spec import BalanceSpec, balance_models
from msbal.spec.explain import explain
from msbal_mmdet.config.nodes import kind
from msbal_mmdet.splitters.find import Found, find
from msbal_mmdet.steps.nonfinite import NonFiniteWatch
from msbal_mmdet.steps.train_step import CountedStep, join_optimizer

KEY = "msbal"
"""The balancers' state in a checkpoint."""


class Records(Protocol):
    """What the hook tells about the run; `ScriptRecords` for one."""

    def begin(self, iteration: int) -> None: ...

    def step(self, iteration: int, *, learning_rate: float | None) -> None: ...

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
        balancers: the run's; None where it is not balanced.
        balanced: the model's handle, while it trains.
        learning_rate: of this iteration's step; None where the run has several optimizers.

    Raises:
        SpecError: at construction where a setting is wrong, at the run's start where the model cannot be balanced.
    """

    # After ParamSchedulerHook and EMAHook, before CheckpointHook, which is VERY_LOW.
    priority = "LOW"

    def __init__(
        self, strategy: str = "rlo", *, unbalanced: bool = False, records: bool = True, **settings: Any
    ) -> None:
        self._begin(_balance_section(strategy, settings, type(self).__name__), unbalanced, records)

    def _begin(self, spec: BalanceSpec, unbalanced: bool = False, records: bool = True) -> None:
        self.spec, self.unbalanced, self.records = spec, unbalanced, records
        self.found: Found | None = None
        self.balancers: BalancerSet | None = None
        self.balanced: Balanced | None = None
        self._runner: Any = None  # that the balancers belong to
        self._records: Records | None = None
        self._loaded: dict[str, Any] | None = None
        self._begun = self._called = False
        self.learning_rate: float | None = None
        self._watch: NonFiniteWatch | None = None

    # -- mmengine's calls --------------------------------------------------------------------------

    def before_run(self, runner: Any) -> None:
        """Find the heads of the model; called before weights or a checkpoint are loaded, in val and test too."""
        # Not built: nothing is trained, or not yet.
        if any(isinstance(built, Mapping | None) for built in (runner._train_loop, runner.optim_wrapper)):
            return
        if sum(isinstance(hook, MultiScaleBalanceHook) for hook in runner.hooks) > 1:
            raise SpecError(
                "custom_hooks", f"{MultiScaleBalanceHook.__name__} twice", "one", "remove one of them"
            )
        self.clear(runner)
        if self._runner is runner:  # trains again, or validates after it has trained
            return
        self._runner, self.balancers = runner, None
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
        for group in self.found.groups:
            runner.logger.info(
                f"msbal: balances {group.name} ({group.head}): levels {', '.join(group.levels)}, "
                f"terms {', '.join(group.terms)}; {self.spec.strategy}, interval {self.spec.interval}"
            )
        for note in self.found.notes:
            runner.logger.info(f"msbal: left as it is: {note}")

    def before_train(self, runner: Any) -> None:
        """Balance the training steps from now on: the checkpoint is loaded."""
        if self.balancers is None or self.found is None:
            return
        model = _unwrapped(runner.model)
        self.balanced = Balanced(model, self.found.splitters, self.balancers, self.found.notes)
        vars(self.balanced)["by_hook"] = True
        self._load()
        CountedStep(runner.model, self.balanced)
        self._records = self.make_records(runner)
        self._begun = self._called = False
        self._watch = NonFiniteWatch(runner.optim_wrapper, self.balanced, self.make_on_nonfinite(runner))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Begin the records where the run begins, and note the learning rate, which changes after the iteration."""
        optimizer = getattr(runner.optim_wrapper, "optimizer", None)
        self.learning_rate = None if optimizer is None else optimizer.param_groups[0]["lr"]
        if self._records is not None and not self._begun:
            self._begun = True
            self._records.begin(runner.iter)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Write the records that have arrived, and deal with losses that are not finite."""
        if self.balanced is None or self._watch is None or self._records is None:
            return
        if not self._called:
            self._called = True
            self.balanced.require_calls()
        self._watch.after_iteration(runner.iter + 1, outputs)
        self._records.step(runner.iter + 1, learning_rate=self.learning_rate)
        for hook in _saving_hooks(runner):
            due = hook.every_n_train_iters(runner, hook.interval) or self.is_last_train_iter(runner)
            if not hook.by_epoch and due:
                self.balanced.synchronize()

    def after_train_epoch(self, runner: Any) -> None:
        """Gather the ranks' state: a checkpoint may follow."""
        if self.balanced is not None and any(hook.by_epoch for hook in _saving_hooks(runner)):
            self.balanced.synchronize()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Gather the ranks' state: a checkpoint follows where the metric was the best so far."""
        if self.balanced is not None and any(_saving_hooks(runner)):
            self.balanced.synchronize()

    def after_train(self, runner: Any) -> None:
        """Write the last records, and restore the model."""
        if self._records is not None and self._begun:
            self._records.flush()
        self.clear(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the balancers' state into a checkpoint, all its records written."""
        if self.balancers is not None:
            if self._records is not None and self._begun:
                self._records.flush()
            state = (self.balanced or self.balancers).state_dict()
            checkpoint[KEY] = {
                key: value.detach().cpu() if isinstance(value, torch.Tensor) else value
                for key, value in state.items()
            }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the state on resume; weights loaded to fine-tune from (`load_from`) begin a new run."""
        if self.balancers is not None and runner._resume:
            self._loaded = checkpoint.get(KEY)

    # -- what `msbal train` does in another way ------------------------------------------------------

    def make_balancers(self, found: Found, runner: Any) -> BalancerSet:
        """Make the balancers; their draws follow the runner's seed where the settings name none.

        Raises:
            SpecError: where the number of levels does not fit the strategy.
        """
        # Under diff_rank_seed mmengine adds the rank; all ranks have to draw the same.
        apart = get_rank() if runner._randomness_cfg.get("diff_rank_seed") else 0
        try:
            return self.spec.make_balancers(group_names(found.groups), int(runner.seed or 0) - apart)
        except ValueError as error:
            levels = "; ".join(f"{g.name}: {', '.join(g.levels)}" for g in found.groups)
            raise SpecError("balance", f"{error} The model has {levels}") from error

    def make_records(self, runner: Any) -> Records:
        """Make the writer of the records, which writes on the first rank."""
        assert self.balancers is not None
        folder = runner.work_dir if self.records and get_rank() == 0 else None
        return ScriptRecords(
            self.balancers,
            folder,
            lambda record: self._publish(runner, record),
            runner.logger.warning,
            losses=True,
        )

    def make_on_nonfinite(self, runner: Any) -> OnNonFinite:
        """Make what stops the run at a loss that is not finite, or says which step is left out."""
        return OnNonFinite(
            self.spec.on_nonfinite,
            lambda text: runner.logger.warning(f"msbal: {text}"),
            "lower the learning rate, or set on_nonfinite to skip. No step was taken with it",
        )

    # -- the rest ------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Continue from the checkpoint that was resumed from."""
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
        """Restore the model, also where a run before was interrupted."""
        model = _unwrapped(runner.model)
        for module in (runner.model, model):
            CountedStep.remove_from(module)
        balanced = balanced_of(model)
        if balanced is not None and getattr(balanced, "by_hook", False):
            balanced.remove()
        if self._watch is not None:
            self._watch.remove()
        self.balanced = self._records = self._watch = None

    def _publish(self, runner: Any, record: IntervalRecord) -> None:
        """Give a record to mmengine's logger and visualizer backends (TensorBoard, files ...)."""
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


def _unwrapped(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _saving_hooks(runner: Any) -> Iterator[CheckpointHook]:
    """Yield those that save, in a run on several ranks.

    What each rank has of an unfinished interval has to be gathered on all of them before the first one saves;
    mmengine tells the others nothing of that.
    """
    if get_world_size() > 1:
        yield from (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))


def _balance_section(strategy: str, settings: Mapping[str, Any], where: str) -> BalanceSpec:
    """Check the hook's arguments like a spec's ``balance:`` section.

    Raises:
        SpecError: naming, after `where`, the first key that is wrong.
    """
    models = balance_models()
    if strategy not in models:
        raise SpecError(f"{where}: strategy", f"`{strategy}` is unknown", fix=suggest(strategy, models))
    try:
        return models[strategy].model_validate({"strategy": strategy, **settings})
    except ValidationError as error:
        raise explain(error, where, models[strategy]) from error


def hook_config(spec: BalanceSpec) -> dict[str, Any]:
    """Return the ``custom_hooks`` entry for a ``balance:`` section."""
    return {"type": MultiScaleBalanceHook.__name__, **spec.model_dump(mode="json", exclude_none=True)}


def is_balance_hook(entry: Any) -> bool:
    """Return whether a ``custom_hooks`` entry is this hook, by its class's name, its path or the class itself."""
    return str(MultiScaleBalanceHook.__name__) == kind(entry)
