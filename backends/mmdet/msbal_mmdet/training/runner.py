"""One run of `msbal train` by mmengine's Runner."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from msbal.backend import Detector, Job
from msbal.engine.processes import world_size
from msbal.errors import RunError
from msbal_mmdet import loops
from msbal_mmdet.config.length import building
from msbal_mmdet.config.nodes import kind
from msbal_mmdet.config.notes import OWN_WRAPPERS, run_notes
from msbal_mmdet.config.pipeline import naming_images
from msbal_mmdet.config.schedule import NEVER, OWN_LOOPS
from msbal_mmdet.hooks import is_balance_hook
from msbal_mmdet.training import checkpoints
from msbal_mmdet.training.job_hooks import JobBalanceHook, JobHook, Stopped

_EXACT = {
    "EpochBasedTrainLoop": loops.ExactEpochTrainLoop.__name__,
    "IterBasedTrainLoop": loops.ExactIterTrainLoop.__name__,
}


def train(detector: Detector, config: Config, job: Job) -> Runner:
    """Train to the end, or until asked to stop.

    Args:
        config: with the spec applied to it.

    Returns:
        the runner, with the trained model.
    """
    runner = make_runner(detector, config, job)
    if job.checkpoint is not None:
        state = checkpoints.load_newest(job.checkpoint, job.monitor.message)
        path = checkpoints.path_of(job.checkpoint.parent, state["iteration"])
        runner._resume, runner._load_from = True, str(path)
    try:
        with building():
            runner._train_loop = runner.build_train_loop(runner._train_loop)
        for note in run_notes(runner, resumes=job.checkpoint is not None):
            job.monitor.message(note)
        with naming_images(), _safe_start(runner):
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
    return runner


@contextmanager
def _safe_start(runner: Runner) -> Iterator[None]:
    """Let mmengine load a copy of the weights to start from that holds nothing else; see `checkpoints.read_start`."""
    if runner._resume or runner._load_from is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "weights.pth"
        torch.save({"state_dict": checkpoints.read_start(Path(runner._load_from))}, copy)
        runner._load_from = str(copy)
        yield


def make_runner(detector: Detector, config: Config, job: Job) -> Runner:
    """Make a Runner around the detector's model: quiet, with msbal's loops and hooks replacing the config's."""
    config = Config(config._cfg_dict.copy(), filename=None)
    loop = dict(config.train_cfg)
    by_epoch = loop.pop("by_epoch", "max_iters" not in loop)
    loop.setdefault("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    if kind(loop) in OWN_LOOPS:
        # The job evaluates and saves; mmengine's own evaluation would begin at an interval's end.
        loop |= {"type": _EXACT.get(kind(loop), kind(loop)), "val_interval": NEVER}
        loop.pop("dynamic_intervals", None)
    config.train_cfg = ConfigDict(loop)
    for split in ("val", "test"):
        for key in (f"{split}_dataloader", f"{split}_evaluator", f"{split}_cfg"):
            config[key] = None
    config.default_hooks.checkpoint = None
    config.default_hooks.logger = None
    config.custom_hooks = [hook for hook in config.custom_hooks if not is_balance_hook(hook)]
    config.visualizer = ConfigDict(type="Visualizer", vis_backends=None)
    config.log_level = "ERROR"
    device = next(detector.model.parameters()).device
    if world_size() > 1:
        config.launcher = "pytorch"
        config.model_wrapper_cfg = ConfigDict(_wrapper(config, device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    config.experiment_name = f"msbal_{os.getpid()}_{time.monotonic_ns()}"
    logging.getLogger("mmengine").setLevel(logging.ERROR)
    runner = _build_runner(config, detector.model)
    balance = JobBalanceHook(job)
    runner.register_hook(balance)
    runner.register_hook(JobHook(detector, job, balance))
    return runner


def _wrapper(config: Config, device: torch.device) -> dict[str, Any]:
    """Return the ``model_wrapper_cfg`` of several processes."""
    wrapper: dict[str, Any] = {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": bool(config.get("find_unused_parameters", False)),
    }
    if device.type == "cpu":
        wrapper["device_ids"] = None
    given = config.get("model_wrapper_cfg") or {}
    return {**wrapper, **(given if kind(given) in OWN_WRAPPERS else {})}


def _build_runner(config: Config, model: torch.nn.Module) -> Runner:
    # Not Runner.from_cfg: it would build another model from the config.
    given = {key: value for key, value in config._cfg_dict.items() if key != "model"}
    keys = (
        "train_dataloader", "val_dataloader", "test_dataloader", "train_cfg", "val_cfg", "test_cfg",
        "auto_scale_lr", "optim_wrapper", "param_scheduler", "val_evaluator", "test_evaluator", "default_hooks",
        "custom_hooks", "load_from", "launcher", "env_cfg", "log_processor", "log_level", "visualizer",
        "randomness", "experiment_name",
    )  # fmt: skip
    return Runner(
        model=model,
        work_dir=str(Path(given["work_dir"])),
        default_scope=given.get("default_scope") or "mmdet",
        cfg=Config({**given, "model": {}}),
        **{key: given[key] for key in keys if given.get(key) is not None},
    )
