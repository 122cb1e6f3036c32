"""The dotted keys of a spec, and hints at the one that a wrong key may mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from msbal.backend.discovery import installed_backends, load_backend
from msbal.errors import BackendError, nearest
from msbal.spec.balance import BalanceSpec, balance_models

SYNONYMS = {
    **dict.fromkeys(("lambda", "lambda_", "lam"), "amplification"),
    "alpha": "interval",
    "gamma": "step",
    "k": "top_k",
    **dict.fromkeys(("learning_rate", "lr0", "base_lr"), "lr"),
    **dict.fromkeys(("bs", "images_per_batch", "ims_per_batch", "samples_per_gpu"), "batch_size"),
    **dict.fromkeys(("max_iter", "max_iters", "iters", "steps", "num_iterations"), "iterations"),
    **dict.fromkeys(("max_epochs", "num_epochs"), "epochs"),
    **dict.fromkeys(("lr_scheduler", "lr_schedule"), "scheduler"),
    **dict.fromkeys(("milestones", "lr_steps"), "decay"),
    **dict.fromkeys(("grad_clip", "max_norm", "gradient_clip_val"), "clip_norm"),
    **dict.fromkeys(("fp16", "bf16", "precision", "mixed_precision"), "amp"),
    **dict.fromkeys(("save_every", "save_period", "checkpoint_interval"), "checkpoint_every"),
    **dict.fromkeys(("eval_every", "eval_interval", "val_interval", "eval_period", "val_every"), "every"),
    **dict.fromkeys(("imgsz", "image_size", "img_size", "img_scale", "input_size", "size"), "min_size"),
    **dict.fromkeys(("ann_file", "annotation_file", "json"), "annotations"),
    **dict.fromkeys(("img_dir", "image_dir", "img_prefix", "image_folder"), "images"),
    **dict.fromkeys(("path", "data_root", "dir", "folder"), "root"),
    **dict.fromkeys(("work_dir", "output_dir", "save_dir", "out", "project"), "output"),
    **dict.fromkeys(("checkpoint", "load_from", "pretrained_weights"), "weights"),
    "test": "val",
    "wd": "weight_decay",
}
"""Other tools' and the paper's names for keys of a spec; here their last parts."""

KEYS_MEANT = {"evaluate.interval": "evaluate.every", "evaluate.epochs": "evaluate.every"}
"""Wrong keys that are right in another section."""

EXPLAINED = {
    "beta": "its bounds are `balance.p_min` and `balance.p_max`",
    **dict.fromkeys(
        ("num_classes", "nc"), "it follows from the data; `data.classes` chooses among the classes"
    ),
    **dict.fromkeys(("levels", "num_levels"), "the levels are the model's own: leave it out"),
    **dict.fromkeys(
        ("gpus", "num_gpus", "world_size"), "for several processes: `msbal train SPEC --nproc N`"
    ),
}
"""What to do where no single key is meant."""


def dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield each key of a spec and its field, sections before what is in them."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for section in models_in(field.annotation):
            yield from dotted_keys(section, f"{prefix}{name}.")


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation: itself, or the members of a union."""
    candidates = [annotation, *get_args(annotation)]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]


def meant(key: str, root: type[BaseModel], section: type[BaseModel] | None) -> str:
    """Say which key an unknown one means, or what else has such a key; empty where nothing is like it.

    Args:
        key: with dots, e.g. ``schedule.lr``.
        root: the model of the whole spec.
        section: the model that `key` is unknown to.
    """
    above, _, leaf = key.rpartition(".")
    if leaf.lower() in EXPLAINED:
        return EXPLAINED[leaf.lower()]
    known = list(dict.fromkeys(name for name, _ in dotted_keys(root)))
    if key in known:
        return f"not a key of this `{above.partition('.')[0]}.format`: leave it out"
    if key in KEYS_MEANT:
        return f"did you mean `{KEYS_MEANT[key]}`?"
    leaves = (leaf, SYNONYMS.get(leaf.lower(), leaf))
    owner = _owner(leaves, root, section)
    if owner:
        return owner
    found = [name for name in known if name.rpartition(".")[2] in leaves]
    found = [name for name in found if name.startswith(f"{above}.")] or found
    if not found:
        own = nearest(leaf, section.model_fields if section else ())
        everywhere = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = None if own else nearest(leaf, everywhere)
        found = [f"{above}.{own}".strip(".")] if own else [everywhere[near]] if near else []
    return f"did you mean {' or '.join(f'`{name}`' for name in found[:3])}?" if found else ""


def _owner(leaves: Sequence[str], root: type[BaseModel], section: type[BaseModel] | None) -> str:
    """Say which strategies or backends have a key that a section lacks, as ``balance:`` and ``model:`` differ."""
    if section is None or any(leaf in section.model_fields for leaf in leaves):
        return ""
    if issubclass(section, BalanceSpec):
        names = [name for name, one in balance_models().items() if any(x in one.model_fields for x in leaves)]
        own = section.model_fields["strategy"].default
        return (
            f"a key of {_listed(names)}, not of `{own}`: leave it out, or change the strategy"
            if names
            else ""
        )
    if section not in models_in(
        root.model_fields["model"].annotation if "model" in root.model_fields else None
    ):
        return ""
    names = []
    for name in sorted(installed_backends()):
        with suppress(BackendError):
            if leaves[0] in load_backend(name).model_spec.model_fields:
                names.append(name)
    own = get_args(root.model_fields["backend"].annotation)[0]
    return f"a key of {_listed(names)}, but `backend` is `{own}`: change one of them" if names else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
