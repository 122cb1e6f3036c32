"""What `torch.compile` has to leave out of its graphs."""

from __future__ import annotations

import torch

try:  # in place of `torch.compiler.disable`, which imports the compiler at once: a second, wasted if nobody compiles
    from torch._compile import _disable_dynamo as outside_of_graphs
except ImportError:
    outside_of_graphs = torch.compiler.disable

__all__ = ["outside_of_graphs"]
