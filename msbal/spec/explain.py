"""Say what pydantic found wrong in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from msbal.errors import SpecError, suggest

_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "keys and values"),
    "string_type": "a text",
    "path_type": "a path",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def explain(error: ValidationError, source: str, root: type[BaseModel]) -> SpecError:
    """Return the first finding as a `SpecError`; an unknown key before a missing one, which it may explain."""
    findings = error.errors(include_url=False)
    order = ["extra_forbidden", "union_tag_invalid"]
    first = min(findings, key=lambda f: order.index(f["type"]) if f["type"] in order else len(order))
    kind, context = first["type"], first.get("ctx", {})
    keys, model, field = _follow(root, first["loc"])
    if kind.startswith("union_tag"):
        keys.append(context["discriminator"].strip("'"))
    where = ": ".join(filter(None, (source, ".".join(keys))))
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    if kind == "extra_forbidden":
        return SpecError(
            where, f"unknown key{more}", fix=suggest(keys[-1], model.model_fields if model else ())
        )
    if kind.startswith("union_tag"):
        tags = [tag for member in _models(field.annotation) for tag in _tags(member)] if field else []
        found = f"`{context['tag']}` is unknown" if "tag" in context else "missing"
        return SpecError(where, f"{found}{more}", fix=suggest(str(context.get("tag", "")), tags))
    if kind == "missing":
        return SpecError(where, f"missing{more}", _as_clause(field))
    if kind == "value_error":
        return SpecError(where, f"{context.get('error')}{more}")
    expected = _EXPECTED.get(kind, "").format(**context) or first["msg"].removeprefix("Input should be ")
    if kind == "string_pattern_mismatch":
        expected = _as_clause(field)
    return SpecError(where, f"{_short(first.get('input'))}{more}", expected)


def _follow(
    root: type[BaseModel], loc: Sequence[Any]
) -> tuple[list[str], type[BaseModel] | None, FieldInfo | None]:
    """Follow a finding's location from the model `root`.

    Returns:
        Its keys, without the tags that pydantic puts in for a member of a union; the model that has the last key; and
        its field there, None for an unknown one.
    """
    keys: list[str] = []
    model: type[BaseModel] | None = None
    field: FieldInfo | None = None
    annotation: Any = root
    for part in loc:
        models = _models(annotation)
        tagged = [member for member in models if part in _tags(member)] if len(models) > 1 else []
        if tagged:
            annotation = tagged[0]
            continue
        keys.append(str(part))
        if isinstance(part, int):  # an item of a list
            continue
        model = next((m for m in models if part in m.model_fields), models[0] if len(models) == 1 else None)
        field = model.model_fields.get(part) if model else None
        annotation = field.annotation if field else None
    return keys, model, field


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation: itself, or the members of a union."""
    candidates = [annotation, *get_args(annotation)]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


def _tags(model: type[BaseModel]) -> list[Any]:
    """Return the values by which a member of a union is recognised, such as ``coco`` for ``format``."""
    annotations = [field.annotation for field in model.model_fields.values()]
    return [tag for found in annotations if get_origin(found) is Literal for tag in get_args(found)]


def _as_clause(field: FieldInfo | None) -> str:
    """Return the first sentence of a field's description as it may follow "expected"."""
    text = re.split(r"(?<!e\.g)\.(?: (?=[A-Z])|$)", (field and field.description) or "")[0]
    return text[:1].lower() + text[1:] if text[1:2] == " " or text[1:2].islower() else text


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"
