"""What a compiler must not look into."""

from __future__ import annotations

import torch
from torch import Tensor


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
