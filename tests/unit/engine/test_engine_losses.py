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
    ],
)
def test_accepted(losses: object) -> None:
    values, _ = gather(losses, TERMS, LEVELS)  # type: ignore[arg-type]
    assert torch.equal(values, VALUES.flatten())


def test_one_term() -> None:
    for losses in (VALUES[0], VALUES[:1], list(VALUES[0]), {"loss": VALUES[0]}, {"loss": list(VALUES[0])}):
        assert torch.equal(gather(losses, ("loss",), LEVELS)[0], VALUES[0])


def test_positives_are_kept() -> None:
    positives = torch.tensor([3, 0, 1])
    assert gather(LevelLosses(VALUES, positives), TERMS, LEVELS)[1] is positives


def test_gradients_flow() -> None:
    scalars = [torch.tensor(float(i), requires_grad=True) for i in range(6)]
    gather({"cls": scalars[:3], "bbox": scalars[3:]}, TERMS, LEVELS)[0][5].backward()
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
    assert gather(VALUES.to(dtype), TERMS, LEVELS)[0].dtype == gathered


def test_mixed_dtypes_are_promoted() -> None:
    losses = {"cls": VALUES[0].half(), "bbox": VALUES[1]}
    assert gather(losses, TERMS, LEVELS)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ({"cls": VALUES[0]}, r"terms \['bbox', 'cls'\]. Found \['cls'\]"),
        ({"cls": VALUES[0], "bbox": VALUES[1], "dfl": VALUES[1]}, "Found .*dfl"),
        (VALUES.T, r"shape \[2, 3\].*Found \[3, 2\]"),
        (VALUES[0], r"Found \[3\]"),
        (VALUES.sum(), r"Found \[\]"),
        ({"cls": VALUES[0], "bbox": VALUES[1, :2]}, r"losses\['bbox'\] should be .*3 scalars.*Found 2"),
        ({"cls": VALUES[0, :2], "bbox": VALUES.flatten()[:4]}, r"losses\['cls'\] should be .*3 scalars"),
        (
            {"cls": list(VALUES[0]), "bbox": list(VALUES[1, :2])},
            r"losses\['bbox'\] should be .*3 scalars.*Found 2",
        ),
        (
            {"cls": list(VALUES[0]), "bbox": [*VALUES[1, :2], VALUES[1]]},
            r"losses\['bbox'\] should be a vector or .*Found shape \[3\]",
        ),
        ({"cls": [1.0, 2.0, 3.0], "bbox": list(VALUES[1])}, "Found .*float"),
        (
            {"cls": [v.view(1) for v in VALUES[0]], "bbox": list(VALUES[1])},
            r"scalars, one loss a level. Found shape \[1\]",
        ),
        # One vector a term, or one a level? Where there are as many of both nobody could tell.
        ([VALUES[0], VALUES[1]], r"a mapping with the terms \['cls', 'bbox'\]. Found a list"),
        ([], "Found a list"),
        (7.0, "Found a float"),
        ({"cls": VALUES[0], "bbox": VALUES[1].to("meta")}, "on one device. Found them on cpu and meta"),
        (LevelLosses(VALUES, torch.ones(2)), r"positives should have shape \[3\].*Found \[2\] on cpu"),
        (LevelLosses(VALUES, torch.ones(1, 3)), r"positives .*Found \[1, 3\]"),
        (LevelLosses(VALUES, torch.ones(3, device="meta")), r"on cpu as the losses. Found \[3\] on meta"),
    ],
)
def test_refused(losses: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gather(losses, TERMS, LEVELS)  # type: ignore[arg-type]


def test_one_term_takes_a_list_of_scalars_alone() -> None:
    with pytest.raises(
        ValueError,
        match=r"losses should be a vector or a list of 3 scalars, one loss a level. Found shape \[3\]",
    ):
        gather([VALUES[0]] * 3, ("loss",), LEVELS)
    with pytest.raises(ValueError, match=r"list of 3 scalars, .*Found 2"):
        gather(list(VALUES[0, :2]), ("loss",), LEVELS)
