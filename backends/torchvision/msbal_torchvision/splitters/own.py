"""Whether a loss is torchvision's own: what a subclass or an instance overrides, msbal cannot split."""

from __future__ import annotations

from torch import nn

from msbal.errors import SpecError

FIX = "use msbal.Balancer on your own level losses"


def require_own_loss(module: nn.Module, framework: type[nn.Module], method: str) -> None:
    """Refuse a module whose loss is not the framework's.

    Raises:
        SpecError: where it is no `framework`, or its class or the instance overrides `method`.
    """
    kind = type(module).__name__
    if not isinstance(module, framework):
        raise SpecError(
            f"model: {kind}",
            "a module whose loss msbal does not know how to split",
            f"a torchvision {framework.__name__}",
            FIX,
        )
    expected = f"the method of torchvision's {framework.__name__}"
    if method in vars(module):
        raise SpecError(f"model: {kind}.{method}", "replaced on the instance", expected, FIX)
    if getattr(type(module), method) is not getattr(framework, method):
        raise SpecError(f"model: {kind}.{method}", "overridden in a subclass", expected, FIX)
