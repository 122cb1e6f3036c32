"""Say what pydantic found wrong in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from msbal.errors import SpecError, nearest, suggest
from msbal.spec.balance import BalanceSpec, balance_models
from msbal.spec.keys import meant, models_in

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

_DESCRIBED = {"bool_type", "bool_parsing", "less_than", "tuple_type", "list_type"}
"""Findings that show that a key was taken for something else, so that its description helps."""

VALUES = {
    "true": "fp16",
    "fp32": "none",
    "float32": "none",
    "float16": "fp16",
    "bfloat16": "bf16",
    "pascal": "voc",
}
"""Other tools' words for values of a spec."""

REMEDIES = {
    "data": "`msbal init DATA` writes this section for a data set",
    "model": "`msbal init DATA` writes this section for a data set",
    "arms": "write `arms: {NAME: {balance.strategy: avw}, ...}`",
}
"""What to do where a section is missing or is something else."""


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
        known = f"known: {', '.join(sorted(model.model_fields if model else ()))}"
        return SpecError(where, f"unknown key{more}", fix=meant(".".join(keys), root, model) or known)
    if kind.startswith("union_tag"):
        tags = [tag for member in models_in(field.annotation) for tag in _tags(member)] if field else []
        found = f"`{context['tag']}` is unknown" if "tag" in context else "missing"
        tag = str(context.get("tag", ""))
        return SpecError(where, f"{found}{more}", fix=suggest(VALUES.get(tag.lower(), tag), tags))
    if kind == "missing":
        return SpecError(where, f"missing{more}", _as_clause(field), REMEDIES.get(".".join(keys), ""))
    if kind == "value_error":
        return SpecError(where, f"{context.get('error')}{more}")
    expected = _EXPECTED.get(kind, "").format(**context) or first["msg"].removeprefix("Input should be ")
    value = first.get("input")
    if kind == "string_pattern_mismatch":
        expected = _as_clause(field)
    elif kind in _DESCRIBED and field and field.description:
        expected = f"{expected} ({_as_clause(field)})"
    fix = _meant_value(kind, value, ".".join(keys), field)
    if kind == "model_type" and not fix.startswith("did") and model and field:
        expected += f": {', '.join(models_in(field.annotation)[0].model_fields)}"
    return SpecError(where, f"{_short(value)}{more}", expected, fix)


def _meant_value(kind: str, value: Any, key: str, field: FieldInfo | None) -> str:
    """Say what to write instead of a wrong value, as far as it can be guessed."""
    if kind == "literal_error" and field:
        options = [
            str(option)
            for part in (field.annotation, *get_args(field.annotation))
            for option in get_args(part)
        ]
        near = VALUES.get(str(value).lower()) or nearest(str(value), options)
        return f"did you mean `{near}`?" if near in options else ""
    if kind in ("int_parsing", "int_from_float"):
        try:
            number = float(value)
        except ValueError:
            return ""
        return f"write {number:.0f}" if number.is_integer() else ""
    if kind in ("tuple_type", "list_type") and isinstance(value, (str, int, float)):
        return f"write [{value}]"
    if kind in ("model_type", "model_attributes_type") and field and not isinstance(value, (list, tuple)):
        sections = models_in(field.annotation)
        leaf = _leaf_for(sections[0], value) if len(sections) == 1 else None
        if leaf:
            return f"did you mean `{key}.{leaf}: {_plain(value)}`?"
    return REMEDIES.get(key.partition(".")[0], "") if _EXPECTED.get(kind) == "keys and values" else ""


def _leaf_for(section: type[BaseModel], value: Any) -> str | None:
    """Return the key of a section that such a value belongs to: the only one that takes it."""
    if isinstance(value, bool):
        return next((name for name, field in section.model_fields.items() if field.annotation is bool), None)
    if not isinstance(value, str):
        return None
    if issubclass(section, BalanceSpec):
        return "strategy" if nearest(value, balance_models()) else None
    for name, field in section.model_fields.items():
        if get_origin(field.annotation) is Literal and nearest(value, map(str, get_args(field.annotation))):
            return name
    needed = [name for name, field in section.model_fields.items() if field.is_required()]
    return needed[0] if len(needed) == 1 else None


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
        models = models_in(annotation)
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


def _tags(model: type[BaseModel]) -> list[Any]:
    """Return the values by which a member of a union is recognised, such as ``coco`` for ``format``."""
    annotations = [field.annotation for field in model.model_fields.values()]
    return [tag for found in annotations if get_origin(found) is Literal for tag in get_args(found)]


def _as_clause(field: FieldInfo | None) -> str:
    """Return the first sentence of a field's description as it may follow "expected"."""
    text = re.split(r"(?<!e\.g)\.(?: (?=[A-Z])|$)", (field and field.description) or "")[0]
    return text[:1].lower() + text[1:] if text[1:2] == " " or text[1:2].islower() else text


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(value: Any) -> str:
    text = _plain(value) if isinstance(value, bool) else repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"
