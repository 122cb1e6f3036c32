"""Parts of a model by the names of its modules, wherever those are."""

from __future__ import annotations

from torch import nn

from msbal.backend.kit.parts import parts_by_name


def module(**children: nn.Module) -> nn.Module:
    parent = nn.Module()
    for name, child in children.items():
        parent.add_module(name, child)
    return parent


def linear() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


def names(model: nn.Module, modules: dict[str, list[str]]) -> dict[str, list[str]]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        part: [known[id(p)].removesuffix(".weight") for p in parameters]
        for part, parameters in parts_by_name(model, modules).items()
    }


def test_the_longer_name_counts_and_the_rest_is_the_heads() -> None:
    model = module(backbone=module(fpn=linear(), fpn2=linear(), body=linear()), head=linear())
    assert names(model, {"backbone": ["backbone"], "neck": ["backbone.fpn"]}) == {
        "backbone": ["backbone.fpn2", "backbone.body"], "neck": ["backbone.fpn"], "head": ["head"],
    }  # fmt: skip
    turned = {"backbone": ["backbone.body"], "neck": ["backbone"]}
    assert names(model, turned)["neck"] == ["backbone.fpn", "backbone.fpn2"]


def test_of_a_wrapped_model_and_of_two_names_in_one_path() -> None:
    inner = module(backbone=module(neck=linear()), neck=linear(), bbox_head=linear())
    model = module(student=inner, backbone_of_another=linear())
    assert names(model, {"backbone": ["backbone"], "neck": ["neck"]}) == {
        "backbone": ["student.backbone.neck"], "neck": ["student.neck"],
        "head": ["student.bbox_head", "backbone_of_another"],
    }  # fmt: skip


def test_a_part_without_parameters_is_none() -> None:
    assert list(parts_by_name(module(head=linear()), {"backbone": ["backbone"]})) == ["head"]
