"""The hook that balances a run of mmengine's: one entry under ``custom_hooks`` of an unchanged config.

custom_hooks = [dict(type="msbal_mmdet.hooks.MultiScaleBalanceHook", strategy="rlo", interval=100)]

mmengine imports what is named by its whole path. The class's name is enough where
``custom_imports = dict(imports=["msbal_mmdet.hooks"])`` stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from msbal.engine import BalancerSet
from msbal.errors import RunError, SpecError
from msbal.record import IntervalRecord
from msbal.records import Recorder, RunDirectory
from msbal_mmdet.attach import Attachment, attach
from msbal_mmdet.learned import join_optimizer
from msbal_mmdet.settings import make_balancers, read_settings, scope_of
from msbal_mmdet.skip import SkipNonFinite

KEY = "msbal"
"""Of a checkpoint: the balancers' state."""


@HOOKS.register_module()
class MultiScaleBalanceHook(Hook):
    """Balances the pyramid levels of the runner's model.

    The records go to ``<work_dir>/intervals.jsonl``, every iteration's level losses to
    ``<work_dir>/losses.csv`` (for `msbal replay` and `msbal plot-losses`), and once an interval the
    weights to the runner's logger and visualizer backends. The state is part of mmengine's checkpoints,
    so that ``--resume`` continues it.

    Args:
        strategy: ``rlo``, ``avw``, ``equal``, ...
        unbalanced: train a model that cannot be balanced as it is, instead of refusing it.
        records: write the two files.
        settings: ``interval``, ``scope``, ``seed``, ``per_term``, ``on_nonfinite`` and the strategy's
            hyperparameters, as in a spec's ``balance:`` section.

    Raises:
        SpecError: at construction where a setting is wrong, at the run's start where the model cannot
            be balanced.
    """

    # After ParamSchedulerHook and EMAHook, before CheckpointHook, which is VERY_LOW.
    priority = "LOW"

    def __init__(
        self, strategy: str = "rlo", *, unbalanced: bool = False, records: bool = True, **settings: Any
    ) -> None:
        self.spec = read_settings(strategy, settings, type(self).__name__)
        scope_of(self.spec)
        self.unbalanced, self.records = unbalanced, records
        self.attachment: Attachment | None = None
        self.balancers: BalancerSet | None = None
        self.recorder: Recorder | None = None
        self._restored: int | None = None
        self._skip: SkipNonFinite | None = None

    # -- mmengine's calls --------------------------------------------------------------------------

    def before_run(self, runner: Any) -> None:
        """Find the heads of the model. mmengine calls this before weights or a checkpoint are loaded."""
        if runner._train_loop is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            self.attachment = attach(model, scope_of(self.spec))
        except SpecError as error:
            if not self.unbalanced:
                raise
            runner.logger.warning(f"msbal: trains unbalanced: {error.found}")
            return
        self.balancers = self.make_balancers(self.attachment, runner)
        self.balancers.to(next(model.parameters()).device)
        self.attachment.weigh = self.balancers
        self.recorder = self.make_recorder(runner)
        self.recorder.attach(self.balancers)
        learned = list(self.balancers.parameters())
        if learned:
            join_optimizer(runner, learned)
        self._describe(runner)

    def before_train(self, runner: Any) -> None:
        """The checkpoint is loaded: take the records back to it."""
        if self.balancers is None or self.recorder is None:
            return
        if runner.iter and self._restored is None:
            runner.logger.warning(
                "msbal: the checkpoint was saved without the hook; the balancer starts anew at this iteration"
            )
        self.recorder.rewind(runner.iter)
        if self.spec.on_nonfinite == "skip":
            self._skip = SkipNonFinite(runner.optim_wrapper)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take what has arrived; on the device nothing is waited for."""
        if self.balancers is None or self.recorder is None:
            return
        self._check_finite(runner)
        self._current = runner
        self.recorder.step(runner.iter + 1)
        for hook in _saving_hooks(runner):
            due = hook.every_n_train_iters(runner, hook.interval) or self.is_last_train_iter(runner)
            if not hook.by_epoch and due:
                self.balancers.synchronize()

    def after_train_epoch(self, runner: Any) -> None:
        """A checkpoint may follow."""
        if self.balancers is not None and any(hook.by_epoch for hook in _saving_hooks(runner)):
            self.balancers.synchronize()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """A checkpoint follows where it was the best."""
        if self.balancers is not None and any(_saving_hooks(runner)):
            self.balancers.synchronize()

    def after_train(self, runner: Any) -> None:
        """The last records, and the model as it was."""
        if self.recorder is not None:
            self._current = runner
            self.recorder.flush()
        if self.attachment is not None:
            self.attachment.close()
            self.attachment = None
        if self._skip is not None:
            self._skip.remove()
            self._skip = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Put the balancers' state into a checkpoint, all records of it written."""
        if self.balancers is not None and self.recorder is not None:
            self._current = runner
            self.recorder.flush()
            checkpoint[KEY] = {
                key: value.detach().cpu() if isinstance(value, torch.Tensor) else value
                for key, value in self.balancers.state_dict().items()
            }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take it back on resume; weights loaded to fine-tune from (`load_from`) begin a new run."""
        if self.balancers is None or not runner._resume or KEY not in checkpoint:
            return
        try:
            self.balancers.load_state_dict(checkpoint[KEY])
        except RuntimeError as error:
            raise SpecError(
                "resume",
                f"the checkpoint's balancer does not fit: {' '.join(str(error).split())[:200]}",
                "the levels, interval and strategy that it was saved with",
                "leave the hook's settings as they were, or start a new run with load_from",
            ) from error
        self._restored = int(checkpoint["meta"]["iter"])

    # -- what msbal's own runner does in another way -------------------------------------------------

    def make_balancers(self, attachment: Attachment, runner: Any) -> BalancerSet:
        """The balancers; their draws follow the runner's seed where the settings name none."""
        # Under diff_rank_seed mmengine adds the rank; all ranks have to draw the same.
        apart = get_rank() if runner._randomness_cfg.get("diff_rank_seed") else 0
        return make_balancers(self.spec, attachment, int(runner.seed or 0) - apart)

    def make_recorder(self, runner: Any) -> Recorder:
        """The writer of the records, on the first rank."""
        writes = self.records and get_rank() == 0
        return Recorder(RunDirectory(Path(runner.work_dir)) if writes else None, self._publish)

    # -- the rest ------------------------------------------------------------------------------------

    def _publish(self, record: IntervalRecord) -> None:
        """A record for mmengine's logger and visualizer backends (TensorBoard, files ...)."""
        runner = self._current
        scalars = interval_scalars(record)
        for name, value in scalars.items():
            runner.message_hub.update_scalar(name, value)
        if get_rank() == 0:
            runner.visualizer.add_scalars(scalars, step=record.iteration)
            weights = ", ".join(f"{n} {w:.3f}" for n, w in zip(record.levels, record.weights, strict=True))
            runner.logger.info(
                f"msbal: interval {record.interval} of {record.group}: {record.action}, weights {weights}"
            )

    def _describe(self, runner: Any) -> None:
        assert self.attachment is not None
        for group in self.attachment.groups:
            runner.logger.info(
                f"msbal: balances {group.name} ({group.head}): levels {', '.join(group.levels)}, "
                f"terms {', '.join(group.terms)}; {self.spec.strategy}, interval {self.spec.interval}"
            )
        for note in self.attachment.notes:
            runner.logger.info(f"msbal: left as it is: {note}")

    def _check_finite(self, runner: Any) -> None:
        """Stop at a loss that is NaN or infinite, naming level and term.

        The number that is looked at is the one that mmengine has fetched already for its own log.
        """
        if self.spec.on_nonfinite != "stop" or self.balancers is None:
            return
        history = runner.message_hub.log_scalars.get("train/loss")
        if history is None or math.isfinite(history.current()):
            return
        named = [
            f"{found.value} in {found.term} of {found.level} (rank {found.rank})"
            for found in self.balancers.nonfinite()
        ]
        raise RunError(
            f"iteration {runner.iter + 1}",
            f"the loss is {history.current()}: {'; '.join(named) or 'in a loss that is not balanced'}",
            fix="lower the learning rate, or set on_nonfinite to skip",
        )


def _saving_hooks(runner: Any) -> Iterator[CheckpointHook]:
    """Of a run on several ranks, whose part of an unfinished interval has to be gathered on all of them before
    the first one saves; mmengine tells the others nothing of that."""
    if get_world_size() > 1:
        yield from (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))


def interval_scalars(record: IntervalRecord) -> dict[str, float]:
    """A record as scalars for mmengine, under keys that no loop takes for a loss."""
    prefix = f"msbal/{record.group}"
    scalars = {f"{prefix}/weight/{n}": w for n, w in zip(record.levels, record.weights, strict=True)}
    # "objective": a log key that contains "loss" is added to the loss by mmengine's parse_losses.
    scalars |= {
        f"{prefix}/objective/{n}": total / max(1, record.count)
        for n, total in zip(record.levels, record.loss, strict=True)
    }
    # min_loss is "min" here for the same reason.
    scalars |= {
        f"{prefix}/probability/{name.removesuffix('_loss')}": p for name, p in record.probabilities.items()
    }
    if record.reward is not None:
        scalars[f"{prefix}/reward"] = float(record.reward)
    return {name: float(value) for name, value in scalars.items()}


def hook_config(spec: Any, unbalanced: bool = False) -> dict[str, Any]:
    """The ``custom_hooks`` entry for a ``balance:`` section."""
    values: Mapping[str, Any] = spec.model_dump(mode="json", exclude_none=True)
    return {"type": "MultiScaleBalanceHook", **({"unbalanced": True} if unbalanced else {}), **values}


def is_balance_hook(entry: Any) -> bool:
    """Whether a ``custom_hooks`` entry is this hook: named by its class, by its path, or given as the class."""
    kind = entry.get("type")
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return name.rpartition(".")[2] == MultiScaleBalanceHook.__name__


__all__: Sequence[str] = [
    "KEY", "MultiScaleBalanceHook", "hook_config", "interval_scalars", "is_balance_hook",
]  # fmt: skip
