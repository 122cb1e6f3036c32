"""The doors into anyone's own script: a trainer, a model in a loop, a checkpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils.events import EventStorage
from PIL import Image
from states import assert_same_state
from tiny_detectron2 import BOXES, tiny, tiny_cfg
from zoo.small_detectron2 import SIDE, batch

from msbal.baselines import Fixed
from msbal.data import DetectionData, ImageRecord
from msbal.errors import SpecError
from msbal.records import read_intervals
from msbal_detectron2 import Balanced, balance, balanced_of, register_data

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    records = []
    for i, boxes in enumerate(BOXES):
        path = tmp_path / f"{i}.png"
        noise = np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        count = len(boxes)
        records.append(
            ImageRecord(
                i + 1, path, SIDE, SIDE, np.array(boxes, np.float32), np.zeros(count, np.int64),
                np.ones(count, np.float32), np.zeros(count, bool), np.zeros(count, bool),
            )
        )  # fmt: skip
    name = f"msbal_test_{tmp_path.name}"
    register_data(DetectionData(name, ("a", "b", "c"), (1, 2, 3), tuple(records)), name)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _trainer(dataset: str, output: Path, iterations: int, **overrides: Any) -> DefaultTrainer:
    cfg = tiny_cfg(RETINANET, **overrides)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (dataset,), ()
    cfg.DATALOADER.NUM_WORKERS = 0
    # A flipped first image has a hundred positives, at which loss_normalizer stays what it began as.
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN = (2 * SIDE if cfg.SOLVER.AMP.ENABLED else SIDE,)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, iterations, ()
    cfg.SOLVER.CHECKPOINT_PERIOD = 100
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(exist_ok=True)
    return DefaultTrainer(cfg)


def test_default_trainer_with_one_line_and_a_resume(dataset: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    trainer = _trainer(dataset, output, 3)
    balanced = balance(trainer, "rlo", interval=2, measure=3)  # of iteration 3 the checkpoint has it
    trainer.train()
    assert [record.iteration for record in read_intervals(output / "intervals.jsonl")] == [2]
    state = balanced.state_dict()

    resumed = _trainer(dataset, output, 5)
    again = balance(resumed, "rlo", interval=2, measure=3)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3
    assert state["loss_state"] == [{"all": {"loss_normalizer": resumed.model.loss_normalizer}}]
    assert resumed.model.loss_normalizer != 100
    assert_same_state(again.state_dict(), state)
    resumed.train()
    records = read_intervals(output / "intervals.jsonl")
    assert [(record.iteration, record.gradient_count) for record in records] == [(2, 1), (4, 1)]
    assert set(records[1].gradient_norm) == {"backbone", "neck", "head", "shared"}

    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert {"loss_cls", "loss_box_reg", "msbal/weight/P3", "msbal/probability/avw"} <= names
    terms = [line for line in lines if "loss_cls" in line][-1]
    assert terms["total_loss"] == pytest.approx(terms["loss_cls"] + terms["loss_box_reg"], rel=1e-4)
    # Whatever has "loss" in its name is in each line of the console.
    assert {name for name in names if "loss" in name} == {"total_loss", "loss_cls", "loss_box_reg"}


def test_learned_weights_join_a_default_trainer_and_its_schedule(dataset: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    trainer = _trainer(dataset, output, 3)
    balanced = balance(trainer, "uw", interval=2)
    (learned,) = balanced.parameters()
    own = trainer.optimizer.param_groups[-1]
    assert own["params"] == [learned] and own["weight_decay"] == 0.0
    # In warm-up from the first step on, as the model's parameters.
    assert own["lr"] == trainer.optimizer.param_groups[0]["lr"] < own["initial_lr"]
    trainer.train()
    assert own["lr"] == trainer.optimizer.param_groups[0]["lr"]
    assert float(learned.detach().abs().max()) > 0

    resumed = _trainer(dataset, output, 5)
    again = balance(resumed, "uw", interval=2)
    resumed.resume_or_load(resume=True)
    assert torch.equal(next(again.parameters()), learned)
    resumed.train()
    assert not torch.equal(next(again.parameters()), learned)
    assert resumed.optimizer.param_groups[-1]["lr"] == resumed.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_learned_weights_join_a_schedule_made_before_or_after(when: str) -> None:
    model = tiny(RETINANET)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer = SimpleTrainer(model, [batch(BOXES)] * 2, optimizer)
    if when == "after":
        balance(trainer, "uw", interval=2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1e-3 * (done + 1))
    trainer.register_hooks([hooks.LRScheduler(optimizer, schedule)])
    if when == "before":
        balance(trainer, "uw", interval=2)
    trainer.train(0, 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1.5e-3, 1.5e-3])


def test_learned_weights_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    model = tiny(RETINANET).train()
    balanced = balance(model, "uw", interval=2)
    optimizer = torch.optim.SGD([*model.parameters(), *balanced.parameters()], lr=1e-3)
    with EventStorage():
        for _ in range(2):
            optimizer.zero_grad()
            sum(model(batch(BOXES)).values()).backward()
            optimizer.step()
    (learned,) = balanced.parameters()
    assert float(learned.detach().abs().max()) > 0
    DetectionCheckpointer(model, str(tmp_path), msbal=balanced).save("model")
    other = tiny(RETINANET)
    fresh = balance(other, "uw", interval=2)
    DetectionCheckpointer(other, str(tmp_path), msbal=fresh).load(str(tmp_path / "model.pth"))
    assert torch.equal(next(fresh.parameters()), learned)


def test_simple_trainer_without_an_output_folder() -> None:
    model = tiny("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = SimpleTrainer(model, [batch(BOXES)] * 2, optimizer)
    balanced = balance(trainer, "avw", interval=2, scope=("rpn", "roi"))
    trainer.train(0, 2)
    assert {name: balancer.iteration for name, balancer in balanced.balancers.balancers.items()} == {
        "rpn": 2,
        "roi": 2,
    }
    assert "msbal/rpn/weight/P2" in trainer.storage.latest()
    assert "msbal/roi/value/P5/cls" in trainer.storage.latest()


@pytest.fixture
def amp_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMPTrainer asks for CUDA and its autocast; here that is the CPU's, in bfloat16."""
    available = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True), Tensor=torch.Tensor)
    monkeypatch.setattr("detectron2.engine.train_loop.torch", available)
    monkeypatch.setattr("torch.cuda.amp.autocast", lambda **_: torch.autocast("cpu", dtype=torch.bfloat16))


@pytest.mark.parametrize("config", [RETINANET, "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"])
def test_amp_trainer(config: str, amp_on_the_cpu: None) -> None:
    """At weights of 1 the loss is what it is without."""
    totals = {}
    for with_it in (False, True):
        torch.manual_seed(0)
        model = tiny(config)
        logits: list[torch.dtype] = []
        model.backbone.register_forward_hook(lambda m, i, o, seen=logits: seen.append(o["p4"].dtype))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        # At 64 pixels P6 is one cell, of which oneDNN's bfloat16 weight gradient is garbage, balanced or not.
        trainer = AMPTrainer(model, [batch(BOXES, side=96)] * 2, optimizer, grad_scaler=scaler)
        if with_it:
            balanced = balance(trainer, "equal", interval=2, scope=("rpn", "roi"), measure=1)
        trainer.register_hooks([hooks.CallbackHook(before_step=lambda _: torch.manual_seed(0))])
        trainer.train(0, 2)
        assert set(logits) == {torch.bfloat16}
        totals[with_it] = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert totals[True] == pytest.approx(totals[False], rel=1e-4)
    latest = trainer.storage.latest()
    for group in balanced.groups:
        prefix = "msbal" if group.name == "all" else f"msbal/{group.name}"
        assert latest[f"{prefix}/weight/P3"] == (1.0, 1)
        assert max(latest[f"{prefix}/gradient/head/{level}"][0] for level in group.levels) > 0


def test_a_default_trainer_under_amp(dataset: str, tmp_path: Path, amp_on_the_cpu: None) -> None:
    trainer = _trainer(dataset, tmp_path / "run", 3, SOLVER__AMP__ENABLED=True)
    assert isinstance(trainer._trainer, AMPTrainer)
    balance(trainer, "avw", interval=2)
    trainer.train()
    (record,) = read_intervals(tmp_path / "run" / "intervals.jsonl")
    assert record.iteration == 2 and max(record.weights) > 1


def test_a_loss_without_gradients_is_detectron2s_own_and_counts_for_nothing() -> None:
    """A validation loss, or the passes of PreciseBN."""
    model, twin = (tiny(RETINANET).train() for _ in range(2))
    twin.load_state_dict(model.state_dict())
    balanced = balance(model, Fixed(weights=(1.0, 2.0, 3.0, 4.0, 5.0)), interval=2)
    data = batch(BOXES)
    with EventStorage(), torch.no_grad():
        own, found = twin(data), model(data)
    assert found.keys() == own.keys()
    for key, value in own.items():
        assert torch.equal(found[key], value), key
    assert balanced.balancers.balancers["all"].iteration == 0
    with EventStorage():
        model(data)
    assert balanced.balancers.balancers["all"].iteration == 1


def test_plain_loop_and_its_checkpoint(tmp_path: Path) -> None:
    model = tiny(RETINANET).train()
    balanced = balance(model, "min_loss", interval=2, records=tmp_path)
    with EventStorage() as storage:
        for _ in range(3):
            losses = model(batch(BOXES))
            assert set(losses) == {"loss_cls", "loss_box_reg"}
            sum(losses.values()).backward()
            storage.step()
    assert "msbal/weight/P7" in storage.latest()
    assert len(read_intervals(tmp_path / "intervals.jsonl")) == 1
    DetectionCheckpointer(model, str(tmp_path), msbal=balanced).save("model")

    other = tiny(RETINANET)
    fresh = balance(other, "min_loss", interval=2)
    DetectionCheckpointer(other, str(tmp_path), msbal=fresh).load(str(tmp_path / "model.pth"))
    weights = [b.balancers.balancers["all"].weights for b in (balanced, fresh)]
    assert torch.equal(*weights) and float(weights[0].max()) > 1
    assert other.loss_normalizer == model.loss_normalizer


def test_inference_and_removal_leave_no_trace() -> None:
    model = tiny(RETINANET)
    keys, names = set(model.state_dict()), set(vars(model))
    image: list[dict[str, Any]] = [{"image": batch(BOXES)[0]["image"]}]
    with torch.no_grad():
        before = model.eval()(image)[0]["instances"].pred_boxes.tensor
        balanced = balance(model)
        assert torch.equal(model(image)[0]["instances"].pred_boxes.tensor, before)
    assert set(model.state_dict()) == keys
    with pytest.raises(SpecError, match="balanced already"):
        balance(model)
    balanced.remove()
    assert set(vars(model)) == names and not model._forward_hooks and balanced_of(model) is None


def test_a_nan_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(RETINANET)
    trainer = SimpleTrainer(model, [batch(BOXES)] * 2, torch.optim.SGD(model.parameters(), lr=1e-3))
    balance(trainer, interval=2)
    with torch.no_grad():
        model.head.bbox_pred.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        trainer.train(0, 2)
    assert "bbox loss of P3 is nan in iteration 1, rank 0" in caplog.text


def counted(balanced: Balanced) -> int:
    return next(iter(balanced.balancers.balancers.values())).iteration


def recorded(folder: Path) -> list[tuple[int, int]]:
    return [(record.interval, record.iteration) for record in read_intervals(folder / "intervals.jsonl")]


def simple(model: Any, iterations: int = 9) -> SimpleTrainer:
    data = [batch(BOXES, seed=i) for i in range(iterations)]
    return SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=1e-4))


@pytest.mark.parametrize("when", ["registered before balance()", "registered after balance()"])
def test_a_validation_loss_of_another_hook_counts_for_nothing(when: str, tmp_path: Path) -> None:
    """As it is handed around: with gradients on, in every place where a hook can be."""
    found: list[float] = []

    class Validation(HookBase):  # type: ignore[misc]
        def validate(self) -> None:
            found.append(float(sum(self.trainer.model(batch(BOXES, seed=50)).values())))

        before_train = before_step = after_step = after_train = validate

    model = tiny(RETINANET)
    trainer = simple(model)
    if when == "registered before balance()":
        trainer.register_hooks([Validation()])
    balanced = balance(trainer, Fixed((9.0,) * 5), interval=2, records=tmp_path)
    if when == "registered after balance()":
        trainer.register_hooks([Validation()])
    trainer.train(0, 4)
    assert counted(balanced) == 4 and recorded(tmp_path) == [(1, 2), (2, 4)]
    with torch.no_grad(), EventStorage():
        own = float(sum(model(batch(BOXES, seed=50)).values()))
    # But for the normalizer, which detectron2 moves on by validation too.
    assert len(found) == 10 and found[-1] == pytest.approx(own, rel=0.01)


def test_a_loop_between_a_trainers_hooks_counts_whatever_it_calls() -> None:
    """Semi-supervised trainers have a step of another name, and take several passes in it."""

    class Own(SimpleTrainer):  # type: ignore[misc]
        def train(self, start_iter: int, max_iter: int) -> None:
            self.start_iter, self.max_iter = start_iter, max_iter
            with EventStorage(start_iter) as self.storage:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    for _ in range(2):
                        sum(self.model(next(self._data_loader_iter)).values()).backward()
                    self.after_step()
                self.after_train()

    model = tiny(RETINANET)
    trainer = Own(model, [batch(BOXES)] * 6, torch.optim.SGD(model.parameters(), lr=1e-4))
    balanced = balance(trainer, interval=2)
    trainer.train(0, 3)
    assert counted(balanced) == 6


def test_records_are_numbered_by_the_run_and_rewound_by_the_balancers(tmp_path: Path) -> None:
    """Two passes a step; killed after the checkpoint of step 4, and gone on from it."""

    class Accumulating(SimpleTrainer):  # type: ignore[misc]
        def run_step(self) -> None:
            for _ in range(2):
                sum(self.model(next(self._data_loader_iter)).values()).backward()

    def trainer_of(iterations: int) -> tuple[Any, Balanced, DetectionCheckpointer]:
        model = tiny(RETINANET)
        data = [batch(BOXES, seed=i) for i in range(2 * iterations)]
        trainer = Accumulating(model, data, torch.optim.SGD(model.parameters(), lr=1e-4))
        checkpointer = DetectionCheckpointer(model, str(tmp_path), trainer=trainer)
        return trainer, balance(trainer, "max_loss", interval=4, records=tmp_path), checkpointer

    trainer, balanced, checkpointer = trainer_of(8)
    trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, 4)])
    trainer.train(0, 7)
    assert recorded(tmp_path) == [(1, 2), (2, 4), (3, 6)]
    trainer, balanced, checkpointer = trainer_of(8)
    checkpointer.load(str(tmp_path / "model_0000003.pth"))
    assert counted(balanced) == 8
    trainer.train(4, 8)
    assert recorded(tmp_path) == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_balancing_that_begins_late_or_anew_says_so(
    dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "run"
    _trainer(dataset, output, 3).train()
    late = _trainer(dataset, output, 7)
    balance(late, "max_loss", interval=2)
    late.resume_or_load(resume=True)
    late.train()
    assert "goes on after iteration 3; its balancing starts anew" in caplog.text
    assert recorded(output) == [(1, 5), (2, 7)]

    caplog.clear()
    wrong_order = _trainer(dataset, output, 10)
    wrong_order.resume_or_load(resume=True)
    balanced = balance(wrong_order, "max_loss", interval=2)
    wrong_order.train()
    assert "goes on after iteration 7; its balancing starts anew" in caplog.text
    assert counted(balanced) == 3 and recorded(output) == [(1, 9)]
    assert "intervals.1.jsonl" in caplog.text, "what was recorded before is not lost"
    assert len(read_intervals(output / "intervals.1.jsonl")) == 2


@pytest.mark.parametrize("kind", ["DefaultTrainer", "SimpleTrainer"])
def test_learned_weights_start_anew_where_the_checkpoint_has_none(
    kind: str, dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trainer_of(iterations: int) -> tuple[Any, Any]:
        if kind == "DefaultTrainer":
            trainer = _trainer(dataset, tmp_path, iterations)
            return trainer, trainer.checkpointer
        trainer = simple(tiny(RETINANET), iterations)
        schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=2, gamma=0.5)
        checkpointer = DetectionCheckpointer(trainer.model, str(tmp_path), trainer=trainer)
        trainer.register_hooks(
            [hooks.LRScheduler(trainer.optimizer, schedule), hooks.PeriodicCheckpointer(checkpointer, 3)]
        )
        return trainer, checkpointer

    trainer, _ = trainer_of(3)
    TrainerBase.train(trainer, 0, 3)
    trainer, checkpointer = trainer_of(6)
    balanced = balance(trainer, "uw", interval=2)
    checkpointer.resume_or_load("", resume=True)
    TrainerBase.train(trainer, 3, 6)
    assert "balancing starts anew" in caplog.text
    if kind == "SimpleTrainer":  # the DefaultTrainer of 0.6 saves no optimizer
        assert "optimizer has no learned weights" in caplog.text
    (learned,) = balanced.parameters()
    assert float(learned.detach().abs().max()) > 0
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates[-1] == rates[0]


def test_two_balanced_models_in_one_trainer(tmp_path: Path) -> None:
    first, second = tiny(RETINANET), tiny(RETINANET).train()

    class Both(SimpleTrainer):  # type: ignore[misc]
        def run_step(self) -> None:
            data = next(self._data_loader_iter)
            sum([*self.model(data).values(), *second(data).values()]).backward()

    trainer = Both(first, [batch(BOXES)] * 4, torch.optim.SGD(first.parameters(), lr=1e-4))
    one, other = balance(trainer, interval=2), balance(second, interval=2)
    trainer.train(0, 4)
    assert counted(one) == counted(other) == 4
    assert len(other.drain()) == 2


def test_a_trainers_model_saves_whole_and_goes_on_in_a_loop(tmp_path: Path) -> None:
    model = tiny(RETINANET)
    trainer = simple(model)
    balance(trainer, interval=2)
    copies: list[Any] = []
    trainer.register_hooks(
        [hooks.CallbackHook(after_step=lambda t: copies.append(copy.deepcopy(t.model)))]  # EMA, say
    )
    trainer.train(0, 3)
    torch.save(model, tmp_path / "whole.pth")
    loaded = torch.load(tmp_path / "whole.pth", weights_only=False)
    for one in (copies[-1], loaded, model):
        handle = balanced_of(one)
        assert handle is not None and counted(handle) == 3
        with EventStorage():
            sum(one(batch(BOXES)).values()).backward()
        assert counted(handle) == 4


def test_a_trainers_model_can_be_balanced_again() -> None:
    model = tiny(RETINANET)
    trainer = simple(model)
    balance(trainer, interval=2).remove()
    again = balance(trainer, "max_loss", interval=2)
    trainer.train(0, 4)
    assert counted(again) == 4 and float(again.balancers.balancers["all"].weights.max()) > 1
    saved = trainer.state_dict()["hooks"]["BalanceHook"]
    assert_same_state(saved, again.state_dict())


def test_a_trainer_that_computes_its_loss_otherwise_is_refused() -> None:
    class Own(SimpleTrainer):  # type: ignore[misc]
        def run_step(self) -> None:
            images = self.model.preprocess_image(next(self._data_loader_iter))
            sum(level.sum() for level in self.model.backbone(images.tensor).values()).backward()

    model = tiny(RETINANET)
    trainer = Own(model, [batch(BOXES)] * 2, torch.optim.SGD(model.parameters(), lr=1e-4))
    balance(trainer, interval=2)
    with pytest.raises(SpecError, match=r"RetinaNet\.losses was never called"):
        trainer.train(0, 2)


def test_hyperparameters_are_those_of_a_spec() -> None:
    balanced = balance(tiny(RETINANET), "rlo", interval=2, top_k=1, actions=("avw", "equal"))
    strategy = balanced.balancers.balancers["all"].strategy
    assert strategy.top_k == 1 and tuple(strategy.actions) == ("avw", "equal")  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match="top"):
        balance(tiny(RETINANET), "rlo", interval=2, topk=1)
