"""The doors into anyone's own script: a trainer, a model in a loop, a checkpoint."""

from __future__ import annotations

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
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, hooks
from detectron2.utils.events import EventStorage
from PIL import Image
from states import assert_same_state
from tiny_detectron2 import BOXES, tiny, tiny_cfg

from msbal.baselines import Fixed
from msbal.data.model import DetectionData, ImageRecord
from msbal.errors import SpecError
from msbal.records import read_intervals
from msbal_detectron2 import balance, balanced_of, register_data
from msbal_detectron2.small import SIDE, batch

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
    balanced = balance(trainer, "rlo", interval=2)
    trainer.train()
    assert [record.iteration for record in read_intervals(output / "intervals.jsonl")] == [2]
    state = balanced.state_dict()

    resumed = _trainer(dataset, output, 5)
    again = balance(resumed, "rlo", interval=2)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3
    assert state["loss_state"] == [{"all": {"loss_normalizer": resumed.model.loss_normalizer}}]
    assert resumed.model.loss_normalizer != 100
    assert_same_state(again.state_dict(), state)
    resumed.train()
    assert [record.iteration for record in read_intervals(output / "intervals.jsonl")] == [2, 4]

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
            balanced = balance(trainer, "equal", interval=2, scope=("rpn", "roi"))
        trainer.register_hooks([hooks.CallbackHook(before_step=lambda _: torch.manual_seed(0))])
        trainer.train(0, 2)
        assert set(logits) == {torch.bfloat16}
        totals[with_it] = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert totals[True] == pytest.approx(totals[False], rel=1e-4)
    for name in [group.name for group in balanced.groups]:
        prefix = "msbal" if name == "all" else f"msbal/{name}"
        assert trainer.storage.latest()[f"{prefix}/weight/P3"] == (1.0, 1)


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
