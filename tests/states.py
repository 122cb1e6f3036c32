"""Comparing what two runs, or two processes of one, have saved: to the last bit, also where it is nested."""

from __future__ import annotations

from typing import Any

import torch


def parts(state: Any, name: str = "") -> dict[str, Any]:
    """Every number, text and tensor of a state by its path; tensors as their bytes, as NaN is not equal to NaN."""
    if isinstance(state, torch.Tensor):
        return {name: (state.dtype, tuple(state.shape), state.detach().cpu().contiguous().numpy().tobytes())}
    if isinstance(state, dict):
        named = [(str(key), value) for key, value in state.items()]
    elif isinstance(state, (list, tuple)):
        named = [(str(place), value) for place, value in enumerate(state)]
    else:
        return {name: state}
    return {key: part for own, value in named for key, part in parts(value, f"{name}.{own}").items()}


def assert_same_state(one: Any, other: Any, but: tuple[str, ...] = ()) -> None:
    """Assert that they have the same parts, with the same values.

    Args:
        but: names, anywhere in a path, of what is each one's own.
    """
    first, second = (
        {path: value for path, value in parts(state).items() if not set(but) & set(path.split("."))}
        for state in (one, other)
    )
    assert first and first.keys() == second.keys(), first.keys() ^ second.keys()
    apart = [path for path, value in first.items() if value != second[path]]
    assert not apart, f"different: {', '.join(apart)}"
