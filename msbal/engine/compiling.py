"""What a compiler must not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

try:
    # As `torch.compiler.disable`, which imports the compiler at once: more than a second, for nothing where
    # nobody compiles.
    from torch._compile import _disable_dynamo as _disable
except ImportError:
    _disable = torch.compiler.disable


F = TypeVar("F", bound=Callable[..., Any])


def run_outside(function: F) -> F:
    """Decorator: a compiler breaks its graph and runs the function as it is."""
    return cast(F, _disable(function))


@torch.library.custom_op("msbal::opaque_copy", mutates_args=(), schema="(Tensor x) -> Tensor")
def opaque_copy(x: Tensor) -> Tensor:
    """A copy that stays what it is.

    A compiler may save the source of a copy for the backward and copy again there, when the source has been
    changed in place long since. It knows nothing of an operator of ours, so it saves the result.
    """
    return x.clone()


@opaque_copy.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)
