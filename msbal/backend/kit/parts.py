"""The parts of a model, by the names of its modules: what gradients are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

HEAD = "head"


def parts_by_name(model: nn.Module, modules: Mapping[str, Sequence[str]]) -> dict[str, list[nn.Parameter]]:
    """Return the model's parameters by part; a part without any is left out.

    Args:
        modules: the dotted names of each part's modules, such as ``{"backbone": ["backbone"], "neck":
            ["backbone.fpn"]}``, wherever in the model they are (``student.backbone``). Where one is within another of
            these, the longer name counts; where its path names two, the outer one. What is in none is the head's.
    """
    found: dict[str, list[nn.Parameter]] = {part: [] for part in (*modules, HEAD)}
    for name, parameter in model.named_parameters():
        path = f".{name}."
        places = [
            (place, -len(module), part)
            for part, each in modules.items()
            for module in each
            if (place := path.find(f".{module}.")) >= 0
        ]
        found[min(places)[2] if places else HEAD].append(parameter)
    return {part: parameters for part, parameters in found.items() if parameters}
