"""The JSON Schema of a run spec, by which editors complete and check it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from msbal.backend import installed_backends, load_backend
from msbal.errors import BackendError
from msbal.spec.balance import balance_models
from msbal.spec.run import run_spec_model


def run_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), in which ``model`` depends on ``backend`` and ``balance`` on ``strategy``.

    Broken backends are left out.
    """
    definitions: dict[str, Any] = {}
    models: dict[str, Any] = {}
    root: dict[str, Any] = {}
    for name in sorted(installed_backends()):
        try:
            model_spec = load_backend(name).model_spec
        except BackendError:
            continue
        root = run_spec_model(name, "rlo").model_json_schema()
        definitions.update(root.pop("$defs", {}))
        models[name] = _take(TypeAdapter(model_spec).json_schema(), definitions)
    balances = {
        name: _take(model.model_json_schema(), definitions) for name, model in balance_models().items()
    }
    properties = root.setdefault("properties", {})
    properties["backend"] = {"enum": sorted(models), "description": "The framework that trains."}
    properties["model"] = {"type": "object", "description": "What to train; the keys depend on the backend."}
    properties["balance"] = {
        "type": "object",
        "description": "How to balance the levels; the keys depend on the strategy.",
        "properties": {"strategy": {"enum": sorted(balances), "default": "rlo"}},
        "allOf": [
            {"if": _is("strategy", name, required=name != "rlo"), "then": schema}
            for name, schema in balances.items()
        ],
    }
    root["allOf"] = [
        {"if": _is("backend", name), "then": {"properties": {"model": schema}}}
        for name, schema in models.items()
    ]
    root["required"] = ["backend", "model", "data"]
    root["title"] = "msbal run spec"
    used = _referenced(root, definitions)
    root["$defs"] = {name: definitions[name] for name in sorted(used)}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root}


def _take(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    definitions.update(schema.pop("$defs", {}))
    return schema


def _is(key: str, value: str, required: bool = True) -> dict[str, Any]:
    test: dict[str, Any] = {"properties": {key: {"const": value}}}
    return {**test, "required": [key]} if required else test


def _referenced(schema: Any, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            name = str(item.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found.add(name)
                stack.append(definitions[name])
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return found
