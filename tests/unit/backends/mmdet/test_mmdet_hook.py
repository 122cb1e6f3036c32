"""The hook in mmengine's own Runner."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from states import assert_same_state
from tiny_mmdet import make
from torch.utils.data import Dataset

from msbal.errors import RunError, SpecError
from msbal.records import read_intervals
from msbal_mmdet import balance, balanced_of
from msbal_mmdet.hooks import KEY, MultiScaleBalanceHook
from msbal_mmdet.training import checkpoints


class Samples(Dataset[Any]):
    """Four images with boxes, made on the fly."""

    metainfo: dict[str, Any] = {"classes": ("a",)}  # noqa: RUF012

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        from zoo import small_mmdet as tiny

        made = tiny.batch(80, ((64, 64),), seed=index)
        # Augmentation: what it draws shows in the loss.
        noise = torch.randint(0, 3, made["inputs"][0].shape, dtype=torch.uint8)
        return {"inputs": made["inputs"][0] // 2 + noise, "data_samples": made["data_samples"][0]}


def validation() -> dict[str, Any]:
    """What a Runner needs to validate and test."""
    loader = {"batch_size": 2, "dataset": Samples(), "collate_fn": {"type": "pseudo_collate"},
              "sampler": {"type": "DefaultSampler", "shuffle": False}}  # fmt: skip
    found: dict[str, Any] = {}
    for part in ("val", "test"):
        found |= {f"{part}_dataloader": dict(loader), f"{part}_cfg": {}, f"{part}_evaluator": [Count()]}
    return found


class Count(BaseMetric):
    """How many images were predicted on."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += list(data_samples)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {"images": float(len(results))}


def run(
    model: Any,
    folder: Path,
    iterations: int = 6,
    loop: str = "IterBasedTrainLoop",
    resume: Path | None = None,
    accumulate: int = 1,
    schedule: Any = None,
    hooks: Any = (),
    start: Callable[[Runner], Any] | None = None,
    validates: bool = False,
    listed: int = 1,
    **hook: Any,
) -> Runner:
    """Train with the hook."""
    import msbal_mmdet.loops  # noqa: F401

    settings = {"interval": 2, **({"strategy": "rlo", "top_k": 1} if "strategy" not in hook else {}), **hook}
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader={
            "batch_size": 2, "num_workers": 0, "dataset": Samples(), "collate_fn": {"type": "pseudo_collate"},
            "sampler": {"type": "InfiniteSampler", "shuffle": True, "seed": 0},
        },
        train_cfg={"type": loop, "max_iters": iterations, "val_interval": 10**6},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.001, "momentum": 0.9}, "accumulative_counts": accumulate},
        param_scheduler=schedule,
        custom_hooks=[{"type": "MultiScaleBalanceHook", **settings} for _ in range(listed)],
        **(validation() if validates else {}),
        default_hooks={"checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 3}},
        default_scope="mmdet",
        randomness={"seed": 0},
        log_level="ERROR",
        load_from=None if resume is None else str(resume),
        resume=resume is not None,
        experiment_name=f"test_{folder.name}_{id(folder)}_{resume is None}",
        cfg=Config({}),
    )  # fmt: skip
    for extra in hooks:
        runner.register_hook(extra)
    (start or Runner.train)(runner)
    return runner


def test_a_run_balances_records_and_saves(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    runner = run(model, tmp_path)
    records = read_intervals(tmp_path / "intervals.jsonl")
    assert [r.iteration for r in records] == [2, 4, 6]
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 7
    state = torch.load(tmp_path / "iter_6.pth", map_location="cpu", weights_only=False)
    assert KEY in state and not any("msbal" in key or "balancer" in key for key in state["state_dict"])
    assert state["message_hub"]["log_scalars"], "mmengine's own history"
    start = checkpoints.read_start(tmp_path / "iter_6.pth")  # may be started from all the same
    assert start.keys() == state["state_dict"].keys()
    assert all(torch.equal(value, state["state_dict"][name]) for name, value in start.items())
    assert balanced_of(model) is None and "train_step" not in vars(model), "the model is left as it was"
    assert "loss_by_feat" not in vars(model.bbox_head)
    scalars = runner.message_hub.log_scalars
    assert scalars["msbal/weight/P3"].current() == pytest.approx(records[-1].weights[0])
    assert scalars["msbal/value/P3/cls"].current() == pytest.approx(records[-1].loss_by_term["cls"][0] / 2)
    assert not any("loss" in name for name in scalars if name.startswith("msbal"))


WARM_AND_COSINE = [
    {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
    {"type": "CosineAnnealingLR", "T_max": 6, "begin": 0, "end": 6, "by_epoch": False},
]


@pytest.mark.parametrize("strategy", ["rlo", "uw"])
def test_a_killed_run_resumes_to_the_same_records(
    strategy: str, retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more: dict[str, Any] = {"loop": "ExactIterTrainLoop", "strategy": strategy}
    more |= {"schedule": WARM_AND_COSINE} if strategy == "uw" else {"top_k": 1, "measure": 3}
    run(retinanet(), whole, **more)
    run(retinanet(), parts, **more)
    # As if killed after the checkpoint of iteration 3, within an interval: what came later is dropped.
    for name in ("iter_6.pth",):
        (parts / name).unlink()
    run(retinanet(), parts, **more, resume=parts / "iter_3.pth")
    for name in ("intervals.jsonl", "losses.csv"):
        assert (whole / name).read_text() == (parts / name).read_text()
    states = [torch.load(f / "iter_6.pth", map_location="cpu", weights_only=False) for f in (whole, parts)]
    assert all(torch.equal(v, states[1]["state_dict"][k]) for k, v in states[0]["state_dict"].items())
    assert_same_state(*(state[KEY] for state in states))


def test_equal_weights_train_as_mmengine_alone_does(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    balanced, plain = retinanet(), retinanet()
    run(balanced, tmp_path / "a", loop="ExactIterTrainLoop", strategy="equal", iterations=3, measure=2)
    (record,) = read_intervals(tmp_path / "a" / "intervals.jsonl")
    assert record.gradient_count == 2 and set(record.gradient_norm) == {"backbone", "neck", "head", "shared"}
    before = MultiScaleBalanceHook.before_run
    MultiScaleBalanceHook.before_run = lambda self, runner: None  # type: ignore[method-assign]
    try:
        run(plain, tmp_path / "b", loop="ExactIterTrainLoop", strategy="equal", iterations=3)
    finally:
        MultiScaleBalanceHook.before_run = before  # type: ignore[method-assign]
    for (name, a), b in zip(balanced.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("strategy", ["uw", "rlw"])
def test_strategies_that_learn_or_draw_every_step(
    strategy: str, retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    settings = {"strategy": strategy, "interval": 2}
    model = retinanet()
    before = [p.detach().clone() for p in model.parameters()]
    hook = MultiScaleBalanceHook(**settings)
    assert hook.spec.strategy == strategy
    runner = run(model, tmp_path, iterations=3, hooks=[hook], listed=0)
    learned = list(hook.balancers.parameters()) if hook.balancers is not None else []
    inside = {id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in learned} <= inside
    assert (strategy == "uw") == bool(learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "schedule",
    [
        WARM_AND_COSINE,
        [
            WARM_AND_COSINE[0],
            {"type": "MultiStepLR", "milestones": [5], "begin": 0, "end": 6, "by_epoch": False},
        ],
        None,
    ],
    ids=["cosine", "steps", "none"],
)
def test_what_is_learned_follows_the_schedule(
    schedule: Any, retinanet: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def note(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        rates.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])

    monkeypatch.setattr(MultiScaleBalanceHook, "before_train_iter", note)
    with warnings.catch_warnings():
        # As a scheduler says of an optimizer step that it cannot count.
        warnings.filterwarnings("error", message="Seems like")
        run(retinanet(), tmp_path, strategy="uw", schedule=schedule)
    assert len(rates) == 6
    for model_rate, learned_rate in rates:
        assert learned_rate == pytest.approx(model_rate)
    assert schedule is None or rates[0][0] == pytest.approx(0.0001)


def test_in_a_loop_of_ones_own_they_go_where_the_user_puts_them(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    from mmengine.optim import OptimWrapper

    def begin() -> Any:
        model = retinanet()
        handle = balance(model, "uw", interval=2)
        parameters = [p for p in (*model.parameters(), *handle.parameters()) if p.requires_grad]
        return model, handle, OptimWrapper(torch.optim.SGD(parameters, lr=0.01))

    states = []
    for resumed in (False, True):
        model, handle, wrapper = begin()
        for iteration in range(4):
            if resumed and iteration == 2:
                kept = [copy.deepcopy(part.state_dict()) for part in (model, handle, wrapper)]
                handle.remove()
                model, handle, wrapper = begin()
                for part, state in zip((model, handle, wrapper), kept, strict=True):
                    part.load_state_dict(state)
            model.train_step(small_batch(seed=iteration), wrapper)
        states.append([p.detach().clone() for p in handle.parameters()])
    (whole,), (parts,) = states
    assert torch.equal(whole, parts)
    # On images this small P6 and P7 have no positives: nothing is learned for them.
    assert (whole != 0).tolist() == [True, True, True, False, False]


def test_gradient_accumulation_counts_every_pass(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    run(retinanet(), tmp_path, iterations=4, accumulate=2)
    assert [r.iteration for r in read_intervals(tmp_path / "intervals.jsonl")] == [2, 4]


def test_one_level_is_refused_or_trains_unbalanced(tmp_path: Path) -> None:
    model = make("yolof/yolof_r50-c5_8xb8-1x_coco.py")
    with pytest.raises(SpecError, match="one level"):
        run(model, tmp_path / "a")
    hook = MultiScaleBalanceHook(unbalanced=True)
    runner = type("R", (), {"_train_loop": 1, "optim_wrapper": 1, "hooks": [hook], "model": model})()
    runner.logger = _Logger()
    hook.before_run(runner)
    assert hook.balancers is None and "unbalanced" in runner.logger.warnings[0]

    before = {name: value.clone() for name, value in model.named_parameters()}
    run(model, tmp_path / "b", iterations=3, unbalanced=True)
    assert (tmp_path / "b" / "iter_3.pth").is_file() and not (tmp_path / "b" / "intervals.jsonl").exists()
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())


class _Logger:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def poison(model: Any, on: int) -> None:
    """Let the box loss of the third level be NaN in one call."""
    inner, calls = model.bbox_head.loss_by_feat_single, [0]

    def single(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        cls, bbox = inner(*args, **kwargs)
        return cls, bbox * float("nan") if calls[0] == (on - 1) * 5 + 3 else bbox

    model.bbox_head.loss_by_feat_single = single


def test_a_nan_stops_the_run_and_is_named(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    poison(model, on=2)
    with pytest.raises(RunError, match=r"iteration 2, rank 0: the loss P5/bbox is nan; "):
        run(model, tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters()), "no step was taken with it"


def test_a_nan_in_a_loss_that_is_not_balanced_is_named_too(
    retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    model = retinanet()
    own = model.loss
    model.loss = lambda *args: {**own(*args), "loss_mine": torch.tensor(float("nan"))}
    with pytest.raises(RunError, match=r"iteration 1, rank 0: the loss loss_mine is nan"):
        run(model, tmp_path)


def test_a_nan_can_be_skipped(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    poison(model, on=2)
    run(model, tmp_path, on_nonfinite="skip")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    (bad,) = [r for r in read_intervals(tmp_path / "intervals.jsonl") if r.nonfinite]
    assert bad.nonfinite[0].level == "P5" and bad.nonfinite[0].term == "bbox" and bad.count == 1


@pytest.mark.parametrize("on", [3, 4])
def test_and_with_it_the_whole_step_that_it_is_accumulated_for(
    retinanet: Callable[[], Any], tmp_path: Path, on: int
) -> None:
    before, model = retinanet(), retinanet()
    run(before, tmp_path / "before", iterations=2, accumulate=2)
    poison(model, on)
    run(model, tmp_path / "after", iterations=4, accumulate=2, on_nonfinite="skip")
    for mine, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, other)


# -- what else happens around a run ----------------------------------------------------------------


class LossesElsewhere(Hook):
    """Computes the model's loss where the runner does not train, with gradients and without."""

    priority = "LOWEST"

    def _loss(self, runner: Any) -> None:
        batch = {"inputs": [Samples()[0]["inputs"]], "data_samples": [Samples()[0]["data_samples"]]}
        state = torch.get_rng_state()
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                data = runner.model.data_preprocessor(batch, True)
                runner.model(**copy.deepcopy(data), mode="loss")
        torch.set_rng_state(state)

    def before_train(self, runner: Any) -> None:
        self._loss(runner)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self._loss(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._loss(runner)


class FirstOfAll(LossesElsewhere):
    priority = "HIGHEST"


def test_losses_that_other_hooks_compute_count_for_nothing(
    retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    for model in (first := retinanet(), second := retinanet()):
        for module in model.modules():  # a pass more moves them
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
                module.train = lambda mode=True: None  # type: ignore[method-assign, assignment, misc]
    run(first, tmp_path / "a", loop="ExactIterTrainLoop")
    run(second, tmp_path / "b", loop="ExactIterTrainLoop", hooks=[LossesElsewhere(), FirstOfAll()])
    a, b = (read_intervals(tmp_path / name / "intervals.jsonl") for name in "ab")
    assert a == b and len(a) == 3


@pytest.mark.parametrize("strategy", ["equal", "uw"])
def test_a_runner_may_validate_and_test_before_between_and_after(
    strategy: str, retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    model = retinanet()

    def start(runner: Runner) -> None:
        for action in (runner.val, runner.test, runner.train, runner.test, runner.train, runner.val):
            found = action()
            assert action == runner.train or found == {"images": 4.0}
            assert balanced_of(model) is None

    run(model, tmp_path, strategy=strategy, iterations=4, validates=True, start=start)
    assert [r.iteration for r in read_intervals(tmp_path / "intervals.jsonl")] == [2, 4]
    assert not list(tmp_path.glob("intervals.*.jsonl"))


class Interrupt(Hook):
    """Ctrl-C in a notebook."""

    priority = "LOWEST"

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.iter == 2:
            raise KeyboardInterrupt


def test_after_an_interrupt_a_second_runner_or_the_same_goes_on(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any], tmp_path: Path
) -> None:
    model = retinanet()
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "a", hooks=[Interrupt()])
    assert [r.iteration for r in read_intervals(tmp_path / "a" / "intervals.jsonl")] == [2]
    run(model, tmp_path / "b", iterations=4)
    assert [r.iteration for r in read_intervals(tmp_path / "b" / "intervals.jsonl")] == [2, 4]
    assert balanced_of(model) is None and "train_step" not in vars(model)

    again = Interrupt()

    def start(runner: Runner) -> None:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
        runner._hooks.remove(again)
        runner.train()

    run(retinanet(), tmp_path / "c", hooks=[again], start=start)
    assert len(read_intervals(tmp_path / "c" / "intervals.jsonl")) >= 2


def test_a_second_start_in_a_folder_keeps_the_records_of_the_first(
    retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    run(retinanet(), tmp_path)
    first = (tmp_path / "intervals.jsonl").read_text()
    run(retinanet(), tmp_path, iterations=2)
    assert (tmp_path / "intervals.1.jsonl").read_text() == first
    assert len((tmp_path / "losses.1.csv").read_text().splitlines()) == 7
    assert [r.iteration for r in read_intervals(tmp_path / "intervals.jsonl")] == [2]


def test_balancing_that_starts_late_says_so_and_numbers_the_runs_iterations(
    retinanet: Callable[[], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(retinanet(), tmp_path / "a", iterations=3)
    path = tmp_path / "a" / "iter_3.pth"
    state = torch.load(path, weights_only=False)
    del state[KEY]
    torch.save(state, path)
    said: list[str] = []

    class Listen(Hook):
        def before_run(self, runner: Any) -> None:
            runner.logger.warning = said.append

    run(retinanet(), tmp_path / "b", resume=path, iterations=7, hooks=[Listen()])
    assert [r.iteration for r in read_intervals(tmp_path / "b" / "intervals.jsonl")] == [5, 7]
    assert any("after iteration 3; its balancing starts anew" in text for text in said), said


def test_two_passes_a_step_are_recorded_under_the_runs_own_iterations(
    retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    """As sharpness-aware minimisation trains."""
    model = retinanet()
    own = type(model).train_step

    def twice(data: Any, optim_wrapper: Any) -> Any:
        with optim_wrapper.optim_context(model):
            prepared = model.data_preprocessor(copy.deepcopy(data), True)
            total, _ = model.parse_losses(model._run_forward(prepared, mode="loss"))
        total.backward()
        optim_wrapper.zero_grad()
        return own(model, data, optim_wrapper)

    model.train_step = twice
    run(model, tmp_path, iterations=4, interval=4)
    assert [r.iteration for r in read_intervals(tmp_path / "intervals.jsonl")] == [2, 4]
    assert vars(model)["train_step"] is twice


def test_the_hook_listed_twice_is_refused(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="twice"):
        run(retinanet(), tmp_path, listed=2)


def test_a_model_that_is_balanced_already_is_refused(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    model = retinanet()
    balance(model, "equal", interval=2)
    with pytest.raises(SpecError, match="balanced already"):
        run(model, tmp_path)


def test_a_training_that_never_computes_the_heads_loss_is_an_error(
    retinanet: Callable[[], Any], tmp_path: Path
) -> None:
    model = retinanet()

    def own(data: Any, optim_wrapper: Any) -> Any:
        loss = sum(p.square().sum() for p in model.neck.parameters())
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    model.train_step = own
    with pytest.raises(SpecError, match=r"RetinaHead\.loss_by_feat was never called"):
        run(model, tmp_path)


def test_a_scope_that_cannot_be_had_is_refused(retinanet: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no RPN"):
        run(retinanet(), tmp_path, scope=("rpn", "roi"))
