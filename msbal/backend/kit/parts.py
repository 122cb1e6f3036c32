"""The parts of a model, by its parameters' names: what gradients are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

HEAD = "head"


def parts_by_name(model: nn.Module, prefixes: Mapping[str, Sequence[str]]) -> dict[str, list[nn.Parameter]]:
    """Return the model's parameters by part.

    Args:
        prefixes: of each part's names, such as ``{"backbone": ["backbone.body."], "neck": ["backbone.fpn."]}``. What
            fits none is the head's.
    """
    found: dict[str, list[nn.Parameter]] = {part: [] for part in (*prefixes, HEAD)}
    for name, parameter in model.named_parameters():
        fits = (part for part, starts in prefixes.items() if name.startswith(tuple(starts)))
        found[next(fits, HEAD)].append(parameter)
    return {part: parameters for part, parameters in found.items() if parameters}
