"""One run of `msbal train` by mmengine's Runner."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from msbal.backend import Job
from msbal.backend.kit.balanced import balanced_of
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.engine import BalancerSet
from msbal.errors import RunError
from msbal.records.atomic import put_in_place
from msbal.training.distributed import rank, world_size
from msbal_mmdet import amp, checkpoints, loops  # noqa: F401  (amp registers its wrapper)
from msbal_mmdet.hooks import MultiScaleBalanceHook, Records, is_balance_hook
from msbal_mmdet.images import naming_images
from msbal_mmdet.loader import building
from msbal_mmdet.names import kind
from msbal_mmdet.notes import OWN_WRAPPERS, run_notes
from msbal_mmdet.overrides import NEVER, OWN_LOOPS, apply_data, apply_run, apply_schedule
from msbal_mmdet.splitters.find import Found

if TYPE_CHECKING:
    from msbal_mmdet.detector import MMDetDetector

CONFIG_FILE = "config.py"
"""In the run's folder: the whole config, as mmdet's own tools/train.py takes it."""

_EXACT = {
    "EpochBasedTrainLoop": loops.ExactEpochTrainLoop.__name__,
    "IterBasedTrainLoop": loops.ExactIterTrainLoop.__name__,
}

SAVE_EVERY = 1000
"""Iterations between checkpoints, where the spec says nothing."""


class Stopped(Exception):
    """Ends mmengine's loop after a checkpoint."""


class JobBalanceHook(MultiScaleBalanceHook):
    """The hook with the balancers and the recorder of a job."""

    def __init__(self, job: Job) -> None:
        self._begin(job.spec.balance)
        self.job = job

    def before_train(self, runner: Any) -> None:
        super().before_train(runner)
        if self._skip is not None:
            say = self.job.monitor.message
            self._skip.say = lambda text: say(f"step left out: iteration {runner.iter + 1}: {text}")

    def after_train(self, runner: Any) -> None:
        """Nothing yet: of a run that ends early the job's checkpoint comes after this; `train` ends the balancing."""

    def make_balancers(self, found: Found, runner: Any) -> BalancerSet:
        return self.job.balancers

    def make_records(self, runner: Any) -> Records:
        return JobRecords(self.job, runner.iter)


class JobRecords:
    """The job's recorder, which tells the monitor too."""

    def __init__(self, job: Job, iteration: int) -> None:
        self.recorder = job.recorder
        self.recorder.attach(job.balancers)
        self.recorder.rewind(iteration)

    def begin(self, iteration: int) -> None:
        pass

    def step(self, iteration: int) -> None:
        self.recorder.step(iteration)

    def flush(self) -> None:
        self.recorder.flush()


class JobHook(Hook):
    """Checkpoints, evaluation, progress and the end of a job."""

    # After everything that changes state in an iteration.
    priority = "LOWEST"

    def __init__(self, detector: MMDetDetector, job: Job) -> None:
        self.detector, self.job = detector, job
        self.saved = 0

    def before_train(self, runner: Any) -> None:
        self.saved = runner.iter
        loader, job = runner.train_dataloader, self.job
        images = getattr(loader.batch_sampler, "batch_size", 1) * world_size()
        self.pace = Pace(job.monitor, images, runner.max_iters, self.detector.device)
        self.cadence = Cadence(
            job,
            runner.max_iters,
            runner.iter,
            job.spec.schedule.checkpoint_every or SAVE_EVERY,
            lambda done: self._evaluate(runner, done),
            lambda done: self.save(runner, done),
            accumulate=getattr(runner.optim_wrapper, "_accumulative_counts", None),
        )
        job.monitor.started(runner.iter, runner.max_iters, self.detector.groups)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        self.pace.tick(done, float(runner.optim_wrapper.get_lr()["lr"][0]))
        if self.cadence.after(done) and done < runner.max_iters:
            raise Stopped

    def after_train(self, runner: Any) -> None:
        """A hook of the config may have ended the run early, or the loader had fewer batches than it said."""
        done = self.job.ended = runner.iter
        if done < runner.max_iters:
            self.job.monitor.message(f"the run ended after iteration {done} of {runner.max_iters}")
            if done > self.saved:
                self.job.recorder.flush()
                self.save(runner, done)

    def save(self, runner: Any, done: int) -> None:
        """Write a checkpoint; its name appears when it is whole."""
        self.saved = done
        balanced = balanced_of(runner.model)
        if balanced is not None:
            balanced.synchronize()  # what the losses remember in each process; a collective
        path = checkpoints.path_of(self.job.run.checkpoints, done)
        temporary = path.with_name(f".{path.name}.mmengine.tmp")
        _require_finite(runner.model, done)
        try:
            # mmengine saves on the first rank alone.
            runner.save_checkpoint(str(path.parent), temporary.name, by_epoch=False, backend_args=None)
            if rank() == 0:
                put_in_place(temporary, path)
                checkpoints.prune(path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk all the more
            raise

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            checkpoints.require_fit(model, checkpoint["state_dict"])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["meta"]["iter"] = (
            self.saved
        )  # mmengine takes it for granted that an iteration is just ending
        checkpoints.make_plain(checkpoint)

    def _evaluate(self, runner: Any, done: int) -> None:
        ema = next((hook for hook in runner.hooks if isinstance(hook, EMAHook)), None)
        assert self.job.evaluate is not None
        if ema is not None:
            ema._swap_ema_parameters()
        try:
            self.job.evaluate(self.detector, done)
        finally:
            if ema is not None:
                ema._swap_ema_parameters()
            runner.model.train()
            self.pace.restart()


@contextmanager
def _start(runner: Runner) -> Iterator[None]:
    """Let mmengine load a copy of the weights to start from that holds nothing else; see `checkpoints.read_start`."""
    if runner._resume or runner._load_from is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "weights.pth"
        torch.save({"state_dict": checkpoints.read_start(Path(runner._load_from))}, copy)
        runner._load_from = str(copy)
        yield


def _require_finite(model: torch.nn.Module, done: int) -> None:
    """Keep weights that the gradient of a finite loss has spoilt out of the checkpoints: mmengine looks at none.

    Raises:
        RunError: on all ranks alike, as they hold the same weights.
    """
    named = dict(model.named_parameters())
    finite = torch.stack([torch.isfinite(value.detach()).all() for value in named.values()]).tolist()
    spoilt = [name for name, is_finite in zip(named, finite, strict=True) if not is_finite]
    if spoilt:
        raise RunError(
            f"iteration {done}", f"{len(spoilt)} weights are not finite, {spoilt[0]} for one", "finite numbers",
            "the gradient of a finite loss was not: lower schedule.optimizer.lr or set schedule.clip_norm; the "
            "checkpoint before is kept",
        )  # fmt: skip


def full_config(detector: MMDetDetector, job: Job) -> Config:
    """The config with the spec applied to it; the first rank writes its data and itself to the run's folder."""
    config: Config = detector.config_copy()
    first = rank() == 0
    outlines = detector.outlines(job.train) if first else None
    apply_schedule(config, job.spec)
    apply_data(config, job.spec, job.train, job.val, job.run.path / "data", write=first, outlines=outlines)
    detector.drop_outlines()  # they are in the run's file now
    apply_run(config, job.spec, job.run.path / "mmengine")
    if first:
        config.dump(str(job.run.path / CONFIG_FILE))
    return config


def train(detector: MMDetDetector, job: Job) -> None:
    """Train to the end, or until asked to stop."""
    config = full_config(detector, job)
    runner = make_runner(detector, job, config)
    if job.checkpoint is not None:
        path = checkpoints.newest_readable(job.checkpoint, job.monitor.message)
        runner._resume, runner._load_from = True, str(path)
    try:
        with building():
            runner._train_loop = runner.build_train_loop(runner._train_loop)
        for note in run_notes(runner, resumes=job.checkpoint is not None):
            job.monitor.message(note)
        with naming_images(), _start(runner):
            runner.train()
    except Stopped:
        pass
    except torch.OutOfMemoryError as error:
        raise RunError(
            "training",
            "out of memory",
            fix="lower schedule.batch_size, or the image size by model.cfg_options",
        ) from error
    finally:
        for hook in runner.hooks:
            if isinstance(hook, JobBalanceHook):
                hook.clear(runner)
    detector.adopt(runner)


def make_runner(detector: MMDetDetector, job: Job, config: Config) -> Runner:
    """A Runner around the detector's model, quiet, with msbal's loops and hooks in the place of the config's."""
    config = Config(config._cfg_dict.copy(), filename=None)
    loop = dict(config.train_cfg)
    by_epoch = loop.pop("by_epoch", "max_iters" not in loop)
    loop.setdefault("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    if kind(loop) in OWN_LOOPS:
        # The job evaluates and saves; mmengine's own evaluation would begin at an interval's end.
        loop |= {"type": _EXACT.get(kind(loop), kind(loop)), "val_interval": NEVER}
        loop.pop("dynamic_intervals", None)
    config.train_cfg = ConfigDict(loop)
    for part in ("val", "test"):
        for key in (f"{part}_dataloader", f"{part}_evaluator", f"{part}_cfg"):
            config[key] = None
    config.default_hooks.checkpoint = None
    config.default_hooks.logger = None
    config.custom_hooks = [h for h in config.custom_hooks if not is_balance_hook(h)]
    config.visualizer = ConfigDict(type="Visualizer", vis_backends=None)
    config.log_level = "ERROR"
    if world_size() > 1:
        config.launcher = "pytorch"
        wrapper: dict[str, Any] = {"type": "MMDistributedDataParallel", "broadcast_buffers": False}
        wrapper["find_unused_parameters"] = bool(config.get("find_unused_parameters", False))
        if detector.device.type == "cpu":
            wrapper["device_ids"] = None
        given = config.get("model_wrapper_cfg") or {}
        config.model_wrapper_cfg = ConfigDict({**wrapper, **(given if kind(given) in OWN_WRAPPERS else {})})
    config["model"] = detector.model
    config.experiment_name = f"msbal_{os.getpid()}_{time.monotonic_ns()}"
    logging.getLogger("mmengine").setLevel(logging.ERROR)
    runner = _build_runner(config, detector)
    runner.register_hook(JobBalanceHook(job))
    runner.register_hook(JobHook(detector, job))
    return runner


def _build_runner(config: Config, detector: MMDetDetector) -> Runner:
    if detector.device.type == "cuda":
        torch.cuda.set_device(detector.device)
    cfg = config._cfg_dict
    plain = {k: v for k, v in cfg.items() if k != "model"}
    keys = (
        "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg",
        "auto_scale_lr", "optim_wrapper", "param_scheduler", "val_evaluator", "test_evaluator", "default_hooks",
        "custom_hooks", "load_from", "launcher", "env_cfg", "log_processor", "log_level", "visualizer",
        "randomness", "experiment_name",
    )  # fmt: skip
    arguments = {key: cfg[key] for key in keys if key in cfg and cfg[key] is not None}
    return Runner(
        model=detector.model,
        work_dir=str(Path(cfg["work_dir"])),
        default_scope=cfg.get("default_scope") or "mmdet",
        cfg=Config({**plain, "model": {}}),
        **arguments,
    )
