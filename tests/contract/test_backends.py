"""The backends' contract: a toy keeps it, and what is wrong fails it and is told why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from msbal.backend import HONOURED
from msbal.backend.kit.determinism import deterministic
from msbal.engine import LevelGradients
from msbal.errors import SpecError
from msbal.spec import parse_spec
from msbal.testing.backend_runs import GENERATED, Ramp, Runs
from msbal.testing.backends import BackendContract
from msbal.training import execute, prepare

CASE = {"backend": "toy", "model": {"width": 8}, "schedule": {"batch_size": 2}}


@pytest.mark.usefixtures("toy")
class TestToy(BackendContract):
    cases: ClassVar = {"toy": CASE}
    refused: ClassVar = {"steps": ({**CASE, "schedule": {"scheduler": "step"}}, "scheduler")}


Break = Callable[[pytest.MonkeyPatch, Any], object]


# -- mutants: each is wrong in one way, in training -------------------------------------------------


def weighing(change: Callable[..., torch.Tensor]) -> Break:
    """`change(weighted, group, losses)` in the place of the balancers' `weighted`."""

    def apply(patch: pytest.MonkeyPatch, toy: Any) -> None:
        begin = toy.Training.__init__

        def init(self: Any, detector: Any, job: Any) -> None:
            begin(self, detector, job)
            weighted = job.balancers.weighted
            vars(job.balancers)["weighted"] = lambda group, losses: change(weighted, group, losses)

        patch.setattr(toy.Training, "__init__", init)

    return apply


def ignored(weighted: Any, group: str, losses: Any) -> torch.Tensor:
    weighted(group, losses)
    values: torch.Tensor = losses.values
    return values


def applied_twice(weighted: Any, group: str, losses: Any) -> Any:
    found = weighted(group, losses)
    return found * (found / losses.values).detach().nan_to_num(1.0)


def never_called(weighted: Any, group: str, losses: Any) -> Any:
    return losses.values


def detached(weighted: Any, group: str, losses: Any) -> Any:
    cut = torch.cat([losses.values[:, :1], losses.values[:, 1:2].detach(), losses.values[:, 2:]], dim=1)
    return weighted(group, replace(losses, values=cut))


def reversed_levels(weighted: Any, group: str, losses: Any) -> Any:
    return weighted(
        group, replace(losses, values=losses.values.flip(1), positives=losses.positives.flip(0))
    ).flip(1)


def weights_reversed(weighted: Any, group: str, losses: Any) -> Any:
    return losses.values * (weighted(group, losses) / losses.values).detach().nan_to_num(1.0).flip(1)


def normalised(weighted: Any, group: str, losses: Any) -> Any:
    found = weighted(group, losses)
    return found * (losses.values.sum() / found.sum()).detach()


def added_to_the_plain_loss(weighted: Any, group: str, losses: Any) -> Any:
    return weighted(group, losses) + losses.values


def without_positives(weighted: Any, group: str, losses: Any) -> Any:
    return weighted(group, replace(losses, positives=torch.zeros_like(losses.positives)))


def never(method: str) -> Break:
    """A training that never calls a method of the recorder's."""

    def apply(patch: pytest.MonkeyPatch, toy: Any) -> None:
        begin = toy.Training.__init__

        def init(self: Any, detector: Any, job: Any) -> None:
            begin(self, detector, job)
            setattr(job.recorder, method, lambda *args, **more: None)

        patch.setattr(toy.Training, "__init__", init)

    return apply


def crowds(patch: pytest.MonkeyPatch, toy: Any) -> None:
    read = toy.ToyDetector.read
    patch.setattr(
        toy.ToyDetector, "read", lambda self, record: read(self, replace(record, crowd=record.crowd & False))
    )


def rest_dropped(patch: pytest.MonkeyPatch, toy: Any) -> None:
    """As a loop does that sums what it knows."""

    def iterate(self: Any, balanced: Any, indices: Any) -> None:
        losses = self.model(*self.detector.batch(self.job.train, indices))
        self.stepper.backward(losses["loss_cls"] + losses["loss_box"])

    patch.setattr(toy.Training, "iterate", iterate)


def with_spec(section: str, **values: Any) -> Break:
    """A training that takes a key of the spec for another value."""

    def apply(patch: pytest.MonkeyPatch, toy: Any) -> None:
        begin = toy.Training.__init__

        def init(self: Any, detector: Any, job: Any) -> None:
            own = getattr(job.spec, section).model_copy(update=values)
            job.spec = job.spec.model_copy(update={section: own})
            begin(self, detector, job)

        patch.setattr(toy.Training, "__init__", init)

    return apply


def on_nonfinite_ignored(patch: pytest.MonkeyPatch, toy: Any) -> None:
    patch.setattr(toy.OnNonFinite, "deal", lambda self, sightings: None)


def steps_with_nan(patch: pytest.MonkeyPatch, toy: Any) -> None:
    patch.setattr(toy.Stepper, "step", lambda self: self.optimizer.step())
    on_nonfinite_ignored(patch, toy)


def ends_for_good(patch: pytest.MonkeyPatch, toy: Any) -> None:
    patch.setattr(inspect.getmodule(execute), "_require_finite", lambda run: None)


def counts_validation(patch: pytest.MonkeyPatch, toy: Any) -> None:
    evaluate = toy.Training.evaluate

    def with_losses(self: Any, iteration: int) -> None:
        self.model(*self.detector.batch(self.job.val, [0, 1]))
        evaluate(self, iteration)

    patch.setattr(toy.Training, "evaluate", with_losses)


def without_a_part(patch: pytest.MonkeyPatch, toy: Any) -> None:
    patch.setattr(toy.ToySplitter, "parts", lambda self, model: {"head": model.head.parameters()})


def measuring(change: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    """`change(losses)` of ``[K]`` losses before their gradients are measured."""

    def apply(patch: pytest.MonkeyPatch, toy: Any) -> None:
        measure = LevelGradients.measure
        patch.setattr(LevelGradients, "measure", lambda self, losses: measure(self, change(losses)))

    return apply


def with_weights(losses: torch.Tensor) -> torch.Tensor:
    return losses * torch.from_numpy(Ramp(1.0).initial_weights(len(losses)))


def by_backward(losses: torch.Tensor) -> torch.Tensor:
    losses.sum().backward(retain_graph=True)
    return losses


STEP, REST, PLACES = "step_is_that", "what_is_not_balanced", "levels_and_positives"
WHOLE, HONOURS = "trains_predicts", "what_it_honours"
MUTANTS: dict[str, tuple[Break, str, str]] = {
    "ignores the balancer's total": (weighing(ignored), STEP, "do not change the first step .* ignored"),
    "never calls the balancer": (weighing(never_called), STEP, "were called 0 times in a training of 2 iterations"),
    "weights applied twice": (weighing(applied_twice), STEP, "do not change the first step .* applied twice"),
    "detached level": (weighing(detached), STEP, "in training the loss of P4 of `all` reaches no parameter"),
    "weights of other levels": (weighing(weights_reversed), STEP, "do not change the first step .* to other levels"),
    "normalised": (weighing(normalised), STEP, "do not change the first step .* normalised"),
    "added to the plain loss": (weighing(added_to_the_plain_loss), REST, "is something else added to the loss"),
    "rest dropped": (rest_dropped, REST, "the rest of the losses, which are not balanced, is dropped"),
    "levels reversed": (weighing(reversed_levels), PLACES, "in another order than their names"),
    "positives always 0": (weighing(without_positives), PLACES, "has in training a box loss of .* and 0 positives"),
    "crowds trained on": (crowds, "crowds", "a crowd .* is trained on"),
    "recorder.step never called": (never("step"), WHOLE, "call job.recorder.step once an iteration"),
    "validation counted": (counts_validation, WHOLE, "are validation passes counted too"),
    "recorder.rewind never called": (never("rewind"), "resumes", "call job.recorder.rewind after a checkpoint"),
    "learned in no optimizer": (
        lambda patch, toy: patch.setattr(toy, "add_learned", lambda *args: None), HONOURS, "is it in the optimizer"
    ),
    "amp not honoured": (with_spec("schedule", amp="none"), HONOURS, "schedule.amp=bf16 changes nothing"),
    "ema not honoured": (with_spec("schedule", ema=None), HONOURS, "schedule.ema=0.5, and load"),
    "clip_norm not honoured": (with_spec("schedule", clip_norm=None), HONOURS, "schedule.clip_norm at a tenth"),
    "accumulate not honoured": (with_spec("schedule", accumulate=1), HONOURS, "=2 and a step after one iteration"),
    "on_nonfinite always stops": (with_spec("balance", on_nonfinite="stop"), HONOURS, "=skip, and the run stopped"),
    "on_nonfinite ignored": (on_nonfinite_ignored, "stops_at", "did not stop by a RunError"),
    "steps with a NaN": (steps_with_nan, HONOURS, "a step was taken with a loss that is NaN"),
    "a part left out": (without_a_part, HONOURS, "the parts of the model are not all that is trained"),
    "weighted losses measured": (measuring(with_weights), HONOURS, "unweighted losses on backbone have the norms"),
    "measured by backward()": (measuring(by_backward), HONOURS, "is trained otherwise than without"),
    "nothing but NaN": (ends_for_good, HONOURS, "every loss was NaN calls itself finished"),
}  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A case whose data set is made once."""
    return {**CASE, "data": {**GENERATED, "root": str(tmp_path_factory.mktemp("data"))}}


def failures(case: dict[str, Any], root: Path, only: str = "") -> Iterator[str]:
    """What the contract's trainings say against it.

    Args:
        only: those tests with this in their names.
    """
    contract = type("Contract", (BackendContract,), {"cases": {"toy": case}})
    tests, runs = contract(), Runs(contract.cases, root)
    for name, test in inspect.getmembers(tests, inspect.ismethod):
        wanted = inspect.signature(test).parameters
        if name.startswith("test_") and only in name and "trained_case" in wanted:
            for what in sorted(HONOURED) if "what" in wanted else (None,):
                try:
                    with deterministic():
                        test("toy", **({"what": what} if what else {}), runs=runs)
                except Exception as error:
                    yield f"{name}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_fails_and_is_told_why(
    name: str, toy: Any, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spoil, test, says = MUTANTS[name]
    spoil(monkeypatch, toy)
    said = []
    for text in failures(case, tmp_path, test):
        said.append(text)
        if re.search(says, text, re.DOTALL):
            return
    raise AssertionError(said or "the contract passes it")


@pytest.mark.parametrize(
    ("section", "asked", "names"),
    [
        ("schedule", {"amp": "bf16"}, "schedule.amp: bf16"),
        ("schedule", {"ema": 0.9}, "schedule.ema: 0.9"),
        ("schedule", {"clip_norm": 1.0}, "schedule.clip_norm: 1.0"),
        ("schedule", {"accumulate": 2}, "schedule.accumulate: 2"),
        ("balance", {"strategy": "uw"}, "balance.strategy: uw, which learns"),
        ("balance", {"on_nonfinite": "skip"}, "balance.on_nonfinite: skip"),
    ],
)
def test_what_a_backend_does_not_honour_is_refused_before_it_trains(
    section: str, asked: dict[str, Any], names: str, toy: Any, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(toy.ToyBackend, "honours", frozenset())
    balance = {"strategy": "equal", "interval": 2}
    raw = {**case, "balance": balance, "schedule": {"iterations": 4}, "output": str(tmp_path / "run")}
    prepare(parse_spec(raw))
    with pytest.raises(SpecError, match=re.escape(names)) as caught:
        prepare(parse_spec({**raw, section: {**raw[section], **asked}}))
    assert "`toy` does not honour" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_backend_that_honours_nothing_keeps_the_contract(
    toy: Any, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(toy.ToyBackend, "honours", frozenset())
    assert list(failures(case, tmp_path)) == []
