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
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from msbal.backend import Job
from msbal.engine import BalancerSet
from msbal.errors import RunError
from msbal.records.atomic import put_in_place
from msbal.training.distributed import rank, world_size
from msbal_mmdet import amp, checkpoints, loops  # noqa: F401  (amp registers its wrapper)
from msbal_mmdet.config import lay_data, lay_run, lay_schedule
from msbal_mmdet.find import Found
from msbal_mmdet.hooks import MultiScaleBalanceHook, Records, is_balance_hook
from msbal_mmdet.images import naming_images
from msbal_mmdet.tiny import quiet

if TYPE_CHECKING:
    from msbal_mmdet.detector import MMDetDetector

CONFIG_FILE = "config.py"
"""In the run's folder: the whole config, as mmdet's own tools/train.py takes it."""

_EXACT = {
    "EpochBasedTrainLoop": loops.ExactEpochTrainLoop.__name__,
    "IterBasedTrainLoop": loops.ExactIterTrainLoop.__name__,
}
_NEVER = 10**9


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
        self._mark = (0, 0.0)

    def before_train(self, runner: Any) -> None:
        self.saved = runner.iter
        self._mark = (runner.iter, time.monotonic())
        self.job.monitor.started(runner.iter, runner.max_iters, self.detector.groups)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        job, done = self.job, runner.iter + 1
        self._tell(runner, done)
        at_end = done >= runner.max_iters
        every = job.spec.evaluate.every
        if job.evaluate is not None and every and done % every == 0 and not at_end:
            job.recorder.flush()
            self._evaluate(runner, done)
        stop = job.stop_requested()
        period = job.spec.schedule.checkpoint_every or 1000
        # Gradients that wait for their step are in no checkpoint.
        whole = done % job.spec.schedule.accumulate == 0 or at_end
        if whole and (stop or at_end or done // period > self.saved // period):
            self.save(runner, done)
            if stop and not at_end:
                raise Stopped

    def save(self, runner: Any, done: int) -> None:
        """Write a checkpoint; its name appears when it is whole."""
        self.saved = done
        path = checkpoints.path_of(self.job.run.checkpoints, done)
        temporary = path.with_name(f".{path.name}.mmengine.tmp")
        # The ranks' own losses of an unfinished interval; a collective.
        self.job.balancers.synchronize()
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
        checkpoints.make_plain(checkpoint)

    def _evaluate(self, runner: Any, done: int) -> None:
        ema = next((hook for hook in runner.hooks if type(hook).__name__ == "EMAHook"), None)
        assert self.job.evaluate is not None
        if ema is not None:
            ema._swap_ema_parameters()
        try:
            self.job.evaluate(self.detector, done)
        finally:
            if ema is not None:
                ema._swap_ema_parameters()
            runner.model.train()

    def _tell(self, runner: Any, done: int) -> None:
        """Progress, at most four times a second."""
        first, since = self._mark
        now = time.monotonic()
        if now - since < 0.25 and done != runner.max_iters:
            return
        self._mark = (done, now)
        images = (done - first) * runner.train_dataloader.batch_sampler.batch_size * world_size()
        scalars = {
            "images_per_second": images / max(now - since, 1e-9),
            "learning_rate": float(runner.optim_wrapper.get_lr()["lr"][0]),
        }
        if torch.cuda.is_available() and self.detector.device.type == "cuda":
            scalars["memory_bytes"] = float(torch.cuda.max_memory_allocated(self.detector.device))
        self.job.monitor.stepped(done, scalars)


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
    """The config with everything laid over it; the first rank writes its data and itself to the run's folder."""
    config: Config = detector.config_copy()
    first = rank() == 0
    outlines = detector.outlines(job.train) if first else None
    lay_data(config, job.spec, job.train, job.val, job.run.path / "data", write=first, outlines=outlines)
    detector.drop_outlines()  # they are in the run's file now
    lay_schedule(config, job.spec)
    lay_run(config, job.spec, job.run.path / "mmengine")
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
        with quiet():
            runner._train_loop = runner.build_train_loop(runner._train_loop)
        with naming_images(job.train), _start(runner):
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
    config.train_cfg.type = _EXACT.get(str(config.train_cfg.get("type")), config.train_cfg.get("type"))
    if "type" not in config.train_cfg or config.train_cfg.type is None:
        by_epoch = config.train_cfg.pop("by_epoch", True)
        config.train_cfg.type = _EXACT["EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"]
    # The job evaluates and saves; val_interval would start mmengine's own evaluation.
    config.train_cfg.val_interval = _NEVER
    config.train_cfg.pop("dynamic_intervals", None)
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
        config.model_wrapper_cfg = ConfigDict(wrapper)
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
        default_scope="mmdet",
        cfg=Config({**plain, "model": {}}),
        **arguments,
    )
