"""Pydantic's findings in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from msbal.errors import SpecError, suggest

_NEEDED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "path_type": "a path",
    "finite_number": "a finite number",
}


def explain(error: ValidationError, source: str, root: type[BaseModel]) -> SpecError:
    """The first finding as a `SpecError`; an unknown key comes before a missing one, as its likely cause."""
    findings = error.errors(include_url=False)
    order = ["extra_forbidden", "union_tag_invalid"]
    first = min(findings, key=lambda f: order.index(f["type"]) if f["type"] in order else len(order))
    key = ".".join(str(part) for part in _named(first["loc"]))
    where = f"{source}: {key}" if key else source
    kind, given = first["type"], first.get("input")
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    if kind == "extra_forbidden":
        return SpecError(
            where, f"unknown key{more}", fix=suggest(str(first["loc"][-1]), _keys(root, first["loc"][:-1]))
        )
    if kind == "missing":
        return SpecError(where, f"missing{more}", _description(root, first["loc"]))
    if kind == "value_error":
        cause = first.get("ctx", {}).get("error")
        return SpecError(where, f"{cause}{more}")
    expected = _NEEDED.get(kind) or first["msg"].removeprefix("Input should be ").removeprefix(
        "Value error, "
    )
    return SpecError(where, f"{_short(given)}{more}", expected)


def _named(loc: Sequence[Any]) -> list[Any]:
    """A location without the tags that pydantic puts in for a discriminated union's member."""
    tags = {"coco", "voc", "generated"}
    return [part for i, part in enumerate(loc) if not (i == 1 and loc[0] == "data" and part in tags)]


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def _model_at(root: type[BaseModel], loc: Sequence[Any]) -> type[BaseModel] | None:
    from typing import get_args

    model: Any = root
    for part in loc:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            members = [m for m in get_args(model) if isinstance(m, type) and issubclass(m, BaseModel)]
            tagged = [m for m in members if part in _tags(m)]
            if tagged:
                model = tagged[0]
                continue
            model = next((m for m in members if part in m.model_fields), None)
        if model is None or part not in model.model_fields:
            return None
        model = model.model_fields[part].annotation
    candidates = [model, *get_args(model)]
    return next((m for m in candidates if isinstance(m, type) and issubclass(m, BaseModel)), None)


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    from typing import get_args

    return get_args(model.model_fields["format"].annotation) if "format" in model.model_fields else ()


def _keys(root: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    model = _model_at(root, loc)
    return list(model.model_fields) if model else []


def _description(root: type[BaseModel], loc: Sequence[Any]) -> str:
    model = _model_at(root, loc[:-1])
    field = model.model_fields.get(str(loc[-1])) if model else None
    return (field.description or "").rstrip(".") if field else ""
