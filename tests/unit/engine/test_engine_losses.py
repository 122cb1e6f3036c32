"""The forms of losses that the engine takes."""

from __future__ import annotations

import pytest
import torch

from msbal.engine import LevelLosses, gather

TERMS, LEVELS = ("cls", "bbox"), ("P3", "P4", "P5")
VALUES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.mark.parametrize(
    "losses",
    [
        VALUES,
        LevelLosses(VALUES),
        {"cls": VALUES[0], "bbox": VALUES[1]},
        {"bbox": VALUES[1], "cls": VALUES[0]},
        {"bbox": list(VALUES[1]), "cls": list(VALUES[0])},
        {"bbox": tuple(VALUES[1]), "cls": list(VALUES[0])},
        {"bbox": VALUES[1], "cls": list(VALUES[0])},
        [VALUES[0], VALUES[1]],
    ],
)
def test_accepted(losses: object) -> None:
    gathered = gather(losses, TERMS, LEVELS)  # type: ignore[arg-type]
    assert torch.equal(gathered.values, VALUES)


def test_one_term() -> None:
    for losses in (VALUES[0], VALUES[:1], list(VALUES[0]), {"loss": VALUES[0]}, {"loss": list(VALUES[0])}):
        assert torch.equal(gather(losses, ("loss",), LEVELS).values, VALUES[:1])


def test_positives_are_kept() -> None:
    positives = torch.tensor([3, 0, 1])
    assert gather(LevelLosses(VALUES, positives), TERMS, LEVELS).positives is positives


def test_gradients_flow() -> None:
    scalars = [torch.tensor(float(i), requires_grad=True) for i in range(6)]
    gather({"cls": scalars[:3], "bbox": scalars[3:]}, TERMS, LEVELS).values[1, 2].backward()
    assert scalars[5].grad == 1 and scalars[0].grad in (None, 0)


@pytest.mark.parametrize(
    ("dtype", "gathered"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.float32),
    ],
)
def test_dtypes(dtype: torch.dtype, gathered: torch.dtype) -> None:
    assert gather(VALUES.to(dtype), TERMS, LEVELS).values.dtype == gathered


def test_mixed_dtypes_are_promoted() -> None:
    losses = {"cls": VALUES[0].half(), "bbox": VALUES[1]}
    assert gather(losses, TERMS, LEVELS).values.dtype == torch.float32


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ({"cls": VALUES[0]}, r"terms \['bbox', 'cls'\]. Found \['cls'\]"),
        ({"cls": VALUES[0], "bbox": VALUES[1], "dfl": VALUES[1]}, "Found .*dfl"),
        (VALUES.T, r"shape \[2, 3\].*Found \[3, 2\]"),
        (VALUES[0], r"Found \[3\]"),
        (VALUES.sum(), r"Found \[\]"),
        ({"cls": VALUES[0], "bbox": VALUES[1, :2]}, r"losses\['bbox'\] should have 3.*Found \[2\]"),
        ({"cls": VALUES[0, :2], "bbox": VALUES.flatten()[:4]}, r"losses\['cls'\] should have 3"),
        ({"cls": list(VALUES[0]), "bbox": list(VALUES[1, :2])}, r"losses\['bbox'\] should have 3.*Found 2"),
        ({"cls": list(VALUES[0]), "bbox": [*VALUES[1, :2], VALUES[1]]}, "of one shape"),
        ({"cls": [1.0, 2.0, 3.0], "bbox": list(VALUES[1])}, "Found .*float"),
        (
            {"cls": [v.view(1) for v in VALUES[0]], "bbox": [v.view(1) for v in VALUES[1]]},
            r"scalar. Found shape \[1\]",
        ),
        ([], "Found"),
        (list(VALUES.flatten()), r"Found \[6\]"),
        (7.0, "Found float"),
    ],
)
def test_refused(losses: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gather(losses, TERMS, LEVELS)  # type: ignore[arg-type]
