"""Build the site into site/, strictly: a broken link, an unknown name or an address of elsewhere fails.

The pages of a spec's keys and of the commands are written first, from the models' and the commands' own descriptions.
That of the keys is kept in the repository, for those who read there; one that is out of date fails, too.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("torchvision", "mmdet", "detectron2", "ultralytics")
sys.path[:0] = [str(ROOT / "backends" / name) for name in BACKENDS]  # their specs need no framework

# Fetched from elsewhere so that the search works where a page is opened from the disk: it has to do without.
SHIM = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"[^>]*></script>')
# What a page fetches when it is opened; a link that a reader may follow is none.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev))[^>]*\bhref=[\"']?(?:https?:)?//"
)


def main() -> int:
    """Write the generated pages, build the site and look for what it would fetch from elsewhere."""
    reference = ROOT / "docs" / "reference"
    tracked, keys = reference / "spec.md", spec_page()
    if not tracked.is_file() or tracked.read_text(encoding="utf-8") != keys:
        tracked.write_text(keys, encoding="utf-8")
        print(f"{tracked.relative_to(ROOT)} was not that of the specs, and has been written anew: commit it.")
        return 1
    (reference / "commands.md").write_text(commands_page(), encoding="utf-8")
    (reference / "balance.txt").write_text(balance_text(), encoding="utf-8")
    code = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT, check=False
    ).returncode
    if code:
        return code
    wrong = []
    for page in sorted((ROOT / "site").rglob("*.html")):
        text = SHIM.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        name = page.relative_to(ROOT)
        if found := FETCHED.search(text):
            wrong.append(f"{name}: fetches {found[0]}...; a page should work offline")
        images = re.findall(r"""<img\b[^>]*\bsrc=["']?([^"'\s>:]+)""", text)
        wrong += [f"{name}: no image {image}" for image in images if not (page.parent / image).is_file()]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))


def spec_page() -> str:
    """Return the page of all keys, made of the pydantic models."""
    from msbal.spec.balance import balance_models
    from msbal.spec.data import DataSpec
    from msbal.spec.run import EvaluateSpec, LogSpec, RunSpec
    from msbal.spec.schedule import ScheduleSpec
    from msbal_detectron2.spec import Detectron2Model
    from msbal_mmdet.spec import MMDetModel
    from msbal_torchvision.spec import TorchvisionModel
    from msbal_ultralytics.spec import UltralyticsModel

    balances = {name: model.model_json_schema() for name, model in balance_models().items()}
    common = set.intersection(*(set(schema["properties"]) for schema in balances.values()))
    data = TypeAdapter(DataSpec).json_schema()["$defs"]
    lines = [
        "# Keys of a spec\n",
        "Written from the models that check a spec. `msbal schema -o msbal.schema.json` gives an editor the same, and "
        "`--set balance.interval=50` overrides any key on the command line.\n",
        "## The sections\n",
        *table(RunSpec.model_json_schema() | {"required": ["backend", "model", "data"]}, expand=False),
    ]
    models = {
        "torchvision": TorchvisionModel, "mmdet": MMDetModel, "detectron2": Detectron2Model,
        "ultralytics": UltralyticsModel,
    }  # fmt: skip
    for name, model in models.items():
        lines += [f"## model, of {name}\n", *table(model.model_json_schema())]
    for schema in (data[name] for name in ("CocoData", "VocData", "YoloData", "GeneratedData")):
        lines += [f"## data, {schema['properties']['format']['const']}\n", *table({**schema, "$defs": data})]
    for section, model in {"schedule": ScheduleSpec, "evaluate": EvaluateSpec, "log": LogSpec}.items():
        lines += [f"## {section}\n", *table(model.model_json_schema())]
    names = ", ".join(f"[`{name}`](#{name})" for name in balances)
    lines += [
        "## balance\n",
        f"`strategy` is one of {names}, or a plugin's; by default `rlo`. With every one go:\n",
    ]
    lines += table(balances["rlo"], common - {"strategy"})
    for name, schema in balances.items():
        about = schema["properties"]["strategy"]["description"].split("\n\n")[0]
        keys = set(schema["properties"]) - common
        lines += [f"### {name}\n", f"{' '.join(about.split())}\n", *(table(schema, keys) if keys else [])]
    return "\n".join(lines)


def table(schema: dict[str, Any], keys: set[str] | None = None, expand: bool = True) -> list[str]:
    """Return a table of a model's keys.

    Args:
        schema: the model's JSON Schema, with its definitions.
        keys: those to show; by default all.
        expand: whether the keys of models in it get rows, too.
    """
    rows = ["| key | values | default | |", "| --- | --- | --- | --- |"]
    for key, field in fields(schema, schema.get("$defs", {}), expand):
        if keys is None or key.partition(".")[0] in keys:
            default = "required" if "default" not in field else code(field["default"])
            about = " ".join(field.get("description", "").split())
            rows.append(f"| `{key}` | {values(field)} | {default} | {about} |")
    return [*rows, ""]


def fields(
    schema: dict[str, Any], definitions: dict[str, Any], expand: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted keys of a model and what is known of each."""
    for key, field in schema["properties"].items():
        optional = key not in schema.get("required", ())
        yield key, {**({"default": None} if optional else {}), **field}
        for form in field.get("anyOf", [field]) if expand else ():
            if "$ref" in form:
                inner = definitions[form["$ref"].rpartition("/")[2]]
                yield from ((f"{key}.{below}", its) for below, its in fields(inner, definitions, expand))


def values(field: dict[str, Any]) -> str:
    """Say which values a key takes."""
    if "anyOf" in field or "oneOf" in field:
        forms = [values(form) for form in field.get("anyOf", field.get("oneOf"))]
        return " or ".join(dict.fromkeys(form for form in forms if form != "nothing"))
    if "enum" in field or "const" in field:
        return ", ".join(code(value) for value in field.get("enum", [field.get("const")]))
    kind = str(field.get("type", "section" if "$ref" in field else "value"))
    if kind == "array":
        return f"list of {values(field['items'])}" if "items" in field else "list"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = " and ".join(
        f"{sign} {field[name]:g}" for name, sign in limits.items() if abs(field.get(name, 2**63)) < 2**63
    )
    named = {
        "integer": "whole number",
        "boolean": "true or false",
        "string": "text",
        "null": "nothing",
        "object": "section",
    }
    return f"{named.get(kind, kind)} {bounds}".strip()


def code(value: Any) -> str:
    """Show a value as YAML would."""
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def commands_page() -> str:
    """Return the page of all commands, made of their own help."""
    from msbal.cli.app import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="msbal", title="Commands")
    # Their lists of subcommands cut each text short; the headings list them, too.
    text = re.sub(r"^\*\*Commands\*\*:\n\n(?:\* .*\n)+", "", text, flags=re.MULTILINE)
    return re.sub(r"^\* `--(?:install|show)-completion`.*\n", "", text, flags=re.MULTILINE)


def balance_text() -> str:
    """Return what `balance` of every backend says of itself; the kit puts it together."""
    from msbal.backend.kit.balance import Request, balance_function
    from msbal.backend.kit.balanced import Balanced

    @balance_function
    def balance(model: Any, request: Request) -> Balanced:
        """Balance the pyramid levels of a model while it trains."""
        raise NotImplementedError

    return f"balance{inspect.signature(balance)}\n\n{inspect.getdoc(balance)}\n"


if __name__ == "__main__":
    sys.exit(main())
