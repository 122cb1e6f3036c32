"""One call that balances a model or a trainer in anyone's own detectron2 script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.engine import hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from msbal.engine import BalancerSet, Strategy
from msbal.records import Recorder, RunDirectory
from msbal_detectron2 import events
from msbal_detectron2.balancing import Balancing, unwrap
from msbal_detectron2.hook import BalanceHook


def balance(
    target: TrainerBase | nn.Module,
    strategy: Strategy | str = "rlo",
    *,
    interval: int = 100,
    scope: Sequence[str] = ("rpn",),
    per_term: bool = False,
    seed: int = 0,
    rescale: bool = False,
    records: str | Path | None = None,
) -> Balancing:
    """Balance the pyramid levels of a detectron2 model while it trains.

    In training mode the model then returns its loss dict with the balanced terms weighted, under the names that
    they always had; inference is as before. Records go to the EventStorage once an interval.

    With a trainer (``DefaultTrainer``, ``SimpleTrainer``, ``AMPTrainer``), call it after the trainer is made and
    before ``resume_or_load``: a `BalanceHook` then also keeps the state in its checkpoints and writes
    ``intervals.jsonl``. With a model, in a loop of one's own, save the state beside it:
    ``DetectionCheckpointer(model, folder, msbal=balance(model))``.

    A strategy that learns its weights (``uw``) has parameters. A trainer's optimizer and schedule are given them
    here; in a loop of one's own, give the optimizer ``balancing.parameters()`` beside the model's, without weight
    decay.

    Args:
        target: a trainer, or a model (wrapped in DistributedDataParallel or not).
        strategy: a name, such as ``rlo`` or ``avw``, or a strategy with hyperparameters of one's own.
        interval: alpha, training iterations between two decisions.
        scope: of a two-stage model, which heads: ``rpn``, ``roi`` or both.
        per_term: balance each term (classification, boxes) on its own.
        seed: of the strategy's random draws.
        rescale: multiply the strategy's weights so that they sum to the number of levels.
        records: a folder for ``intervals.jsonl``; by default, that of a ``DefaultTrainer``'s output.

    Returns:
        What was installed; ``balancing.balancers`` has the weights, ``balancing.remove()`` undoes it.

    Raises:
        SpecError: where the model has nothing to balance, with the reason.
        ValueError: where an argument does not fit, or the model is balanced already.
    """
    model = target if isinstance(target, nn.Module) else target.model
    balancing = Balancing(unwrap(model), scope)
    balancing.install(
        BalancerSet(
            balancing.group_names(),
            strategy,
            per_term=per_term,
            interval=interval,
            seed=seed,
            rescale=rescale,
        )
    )
    if isinstance(target, TrainerBase):
        hook = BalanceHook(balancing, _run_directory(target, records))
        target.register_hooks([hook])
        # First, so that its scalars are there when the writers write, which are registered last.
        target._hooks.insert(0, target._hooks.pop())
        _train_learned_weights(target, balancing)
    else:
        _report_after_forward(balancing, None if records is None else RunDirectory(Path(records)))
    return balancing


def _run_directory(trainer: TrainerBase, records: str | Path | None) -> RunDirectory | None:
    cfg = getattr(trainer, "cfg", None)
    if records is None and cfg is not None and "OUTPUT_DIR" in cfg:
        records = cfg.OUTPUT_DIR
    if records is None:
        return None
    Path(records).mkdir(parents=True, exist_ok=True)
    return RunDirectory(Path(records))


def _report_after_forward(balancing: Balancing, run: RunDirectory | None) -> None:
    """Without a trainer, records are taken as the forward pass that ends an interval returns."""
    assert balancing.balancers is not None
    if run is not None:
        run.path.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(run, lambda record: events.put(get_event_storage(), record), per_iteration=False)
    recorder.attach(balancing.balancers)
    balancing.after_forward = lambda _: recorder.step(0)


def _train_learned_weights(trainer: TrainerBase, balancing: Balancing) -> None:
    """Strategies that learn their weights have parameters; the optimizer and its schedule have to know them."""
    parameters = list(balancing.parameters())
    if not parameters:
        return
    optimizer = trainer.optimizer
    optimizer.add_param_group({"params": parameters, "weight_decay": 0.0})
    own, first = optimizer.param_groups[-1], optimizer.param_groups[0]
    if "initial_lr" not in first:  # no schedule yet; one that is made later takes the new group in
        return
    own["initial_lr"] = own["lr"]
    own["lr"] *= first["lr"] / first["initial_lr"] if first["initial_lr"] else 1.0
    for scheduler in _schedulers(trainer):
        scheduler.base_lrs.append(own["initial_lr"])
        for per_group in ("lr_lambdas", "min_lrs"):
            if getattr(scheduler, per_group, None):
                getattr(scheduler, per_group).append(getattr(scheduler, per_group)[0])


def _schedulers(trainer: TrainerBase) -> list[LRScheduler]:
    """Those made for the trainer's optimizer before this call."""
    found = [getattr(trainer, "scheduler", None)]
    found += [
        getattr(hook, "scheduler", None) for hook in trainer._hooks if isinstance(hook, hooks.LRScheduler)
    ]
    known = {id(scheduler): scheduler for scheduler in found if isinstance(scheduler, LRScheduler)}
    return list(known.values())
