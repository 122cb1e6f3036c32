"""Puts the seams into a built model, and takes them out again.

mmengine's `train_step`, and the DDP and FSDP wrappers around it, hand a model's loss dict to
``model.parse_losses``: there the terms that the seams have marked are weighed. Everything is set on the
instances, so that a model's class, its `state_dict` and its config stay what they were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.engine import LevelLosses
from msbal.errors import RunError, SpecError
from msbal_mmdet.seams import REFUSED_MODELS, HeadSeam, LevelTerm, look_up
from msbal_mmdet.seams.base import as_scalar
from msbal_mmdet.seams.roi import RoISeam

Weigh = Callable[[Mapping[str, LevelLosses]], Tensor]
"""The level losses of each group -> the scalar that takes their place in the objective."""


class Attachment:
    """The seams of one model.

    Attributes:
        model: mmdet's own, unwrapped.
        groups: what can be balanced.
        notes: heads that stay as they are although they are on many levels, and why.
        weigh: applied in every training step; None leaves the framework's own sum.
    """

    def __init__(self, model: nn.Module, seams: Sequence[HeadSeam], notes: Sequence[str] = ()) -> None:
        self.model: Any = model
        self.seams, self.notes = tuple(seams), tuple(notes)
        self.groups = _groups(self.seams)
        self.weigh: Weigh | None = None
        self._wrapped: list[tuple[Any, str]] = []

    def open(self) -> None:
        """Let the heads return their losses by level."""
        for seam in self.seams:
            self._set(seam.head, seam.method, _Split(seam))
        self._set(self.model, "parse_losses", _Parse(self))

    def close(self) -> None:
        """Leave the model as it was found."""
        while self._wrapped:
            owner, name = self._wrapped.pop()
            vars(owner).pop(name, None)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        if isinstance(vars(owner).get(name), _Bound):
            raise SpecError(
                f"model: {type(owner).__name__}.{name}",
                "already replaced by something else",
                "a model that is not yet balanced",
                "attach once, or detach first",
            )
        # vars(): nn.Module would register a callable module as a submodule.
        vars(owner)[name] = value
        self._wrapped.append((owner, name))

    # -- one step ----------------------------------------------------------------------------------

    def level_losses(self, losses: Mapping[str, Any]) -> dict[str, LevelLosses]:
        """The marked terms of a loss dict, gathered by group as ``[T, K]``.

        Raises:
            RunError: where a group has no losses at all in this step.
        """
        found: dict[str, dict[str, LevelTerm]] = {group.name: {} for group in self.groups}
        for value in losses.values():
            if isinstance(value, LevelTerm):
                terms = found[value.group]
                if value.term in terms:
                    raise RunError(
                        f"model: {type(self.model).__name__}",
                        f"term {value.term} came twice in one step",
                        fix="this detector runs its head several times a step, which is not supported",
                    )
                terms[value.term] = value
        return {group.name: _gather(group, found[group.name], self.model) for group in self.groups}

    def parse(self, losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Stands in for ``BaseModel.parse_losses``.

        Returns:
            the objective, and the values to log: every term as the framework would log it, unweighted,
            and under ``loss`` the objective.
        """
        plain = type(self.model).parse_losses
        if self.weigh is None or not torch.is_grad_enabled() or not self.model.training:
            result: tuple[Tensor, dict[str, Tensor]] = plain(self.model, losses)
            return result
        rest = {k: v for k, v in losses.items() if not isinstance(v, LevelTerm)}
        grouped = self.level_losses(losses)
        objective, logged = plain(self.model, rest)
        objective = objective + self.weigh(grouped)

        names: OrderedDict[str, Tensor] = OrderedDict(loss=objective)
        for key, value in losses.items():
            names[key] = (
                torch.stack(list(value)).detach().sum() if isinstance(value, LevelTerm) else logged[key]
            )
        return objective, names

    def split(self, losses: Mapping[str, Any]) -> SplitLosses:
        """A loss dict as the contract of backends has it."""
        rest = {
            key: sum(as_scalar(v) for v in value) if isinstance(value, list | tuple) else as_scalar(value)
            for key, value in losses.items()
            if "loss" in key and not isinstance(value, LevelTerm)
        }
        return SplitLosses(self.level_losses(losses), rest)


class _Bound:
    """A method set on one instance. A copy of the instance (EMA) gets its class's own method back."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self.owner))
        if copied is None:
            return self
        return MethodType(getattr(type(copied), self.name), copied)


class _Split(_Bound):
    def __init__(self, seam: HeadSeam) -> None:
        super().__init__(seam.head, seam.method)
        self.seam = seam

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        compute = MethodType(getattr(type(self.owner), self.name), self.owner)
        if not torch.is_grad_enabled():
            return compute(*args, **kwargs)
        return self.seam(compute, *args, **kwargs)


class _Parse(_Bound):
    def __init__(self, attachment: Attachment) -> None:
        super().__init__(attachment.model, "parse_losses")
        self.attachment = attachment

    def __call__(self, losses: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.attachment.parse(losses)


def _gather(group: LevelGroup, terms: Mapping[str, LevelTerm], model: Any) -> LevelLosses:
    if not terms:
        raise RunError(
            f"model: {type(model).__name__}",
            f"no loss of the group `{group.name}` reached parse_losses",
            f"the terms {', '.join(group.terms)} of {group.head}",
            "a detector that rescales or drops its head's losses cannot be balanced",
        )
    unknown = set(terms) - set(group.terms)
    if unknown:
        raise RunError(f"model: {group.head}", f"an unexpected loss {', '.join(sorted(unknown))}")
    some = next(iter(terms.values()))
    zero = some[0].new_zeros(())
    scalars = [value for name in group.terms for value in terms.get(name, [zero] * len(group.levels))]
    positives = None
    for term in terms.values():
        if term.positives is not None:
            positives = term.positives if positives is None else positives + term.positives
    return LevelLosses(torch.stack(scalars).view(len(group.terms), len(group.levels)), positives)


def attach(model: nn.Module, scope: Sequence[str] = ("rpn",)) -> Attachment:
    """Find the heads of a built model and open their seams.

    Args:
        model: mmdet's, not wrapped by DDP (give ``model.module``).
        scope: which heads of a two-stage detector: ``rpn``, ``roi``, or both. A one-stage detector has
            one head, which is always balanced.

    Raises:
        SpecError: where nothing can be balanced, with the reason for each head.
    """
    attachment = find(model, scope)
    attachment.open()
    return attachment


def find(model: nn.Module, scope: Sequence[str] = ("rpn",)) -> Attachment:
    """`attach` without opening anything."""
    reasons: list[str] = []
    for base in _bases(model) & set(REFUSED_MODELS):
        raise SpecError(f"model: {type(model).__name__}", f"it cannot be balanced: {REFUSED_MODELS[base]}")
    seams = [*_dense(model, scope, reasons), *(_roi(model, reasons) if "roi" in scope else [])]
    if not seams:
        raise SpecError(
            f"model: {type(model).__name__}",
            f"it cannot be balanced: {'; '.join(reasons) or 'it has no head with a loss on several levels'}",
            "a head whose loss is a sum over at least two pyramid levels",
            "choose another detector; the hook in mmdet's own tools/train.py leaves it as it is with unbalanced=True",
        )
    return Attachment(model, seams, reasons)


def _bases(module: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__}


def _dense(model: nn.Module, scope: Sequence[str], reasons: list[str]) -> list[HeadSeam]:
    """The seams of dense heads, refused ones named in `reasons`."""
    found: list[HeadSeam] = []
    two_stage = {
        id(module.rpn_head) for module in model.modules() if isinstance(getattr(module, "rpn_head", None), nn.Module)
    }  # fmt: skip
    inside: list[tuple[str, int]] = []  # path and id of heads in a two-stage model's rpn_head
    for path, module in model.named_modules():
        if id(module) in two_stage:
            inside.append((path, id(module)))
        kind = look_up(module)
        if kind is None:
            continue
        is_rpn = any(path == p or path.startswith(p + ".") for p, _ in inside)
        name = type(module).__name__
        if is_rpn and "rpn" not in scope:
            reasons.append(f"{name} is left out by scope")
            continue
        if isinstance(kind, str):
            reasons.append(f"{name}: {kind}")
            continue
        stage = path.rpartition(".")
        prefix = f"s{stage[2]}." if stage[0].endswith("stages") else ""
        seam = kind(module, "rpn" if is_rpn else "all", prefix)
        _take(seam, name, found, reasons)
    return found


def _take(seam: HeadSeam, name: str, found: list[HeadSeam], reasons: list[str]) -> None:
    """Add it to what was found, or why not to the reasons."""
    refusal = seam.refusal()
    if refusal:
        reasons.append(f"{name}: {refusal}")
    else:
        found.append(seam)


def _roi(model: nn.Module, reasons: list[str]) -> list[HeadSeam]:
    """The seams of RoI heads, one per stage of a cascade."""
    found: list[HeadSeam] = []
    for module in model.modules():
        extractors, heads = getattr(module, "bbox_roi_extractor", None), getattr(module, "bbox_head", None)
        if extractors is None or heads is None:
            continue
        cascade = isinstance(heads, nn.ModuleList)
        pairs = zip(heads, extractors, strict=True) if cascade else [(heads, extractors)]
        for stage, (head, extractor) in enumerate(pairs):
            name = type(head).__name__
            if name not in RoISeam.heads:
                reasons.append(f"{name}: it computes its loss in its own way, not as BBoxHead")
                continue
            seam = RoISeam(head, extractor, "roi", f"s{stage}." if cascade else "")
            _take(seam, name, found, reasons)
    return found


def _groups(seams: Sequence[HeadSeam]) -> tuple[LevelGroup, ...]:
    by_name: dict[str, list[HeadSeam]] = {}
    for seam in seams:
        by_name.setdefault(seam.group, []).append(seam)
    groups = []
    for name, members in by_name.items():
        first = members[0]
        for other in members[1:]:
            if other.level_names() != first.level_names():
                raise SpecError(
                    f"model: {type(other.head).__name__}",
                    f"levels {', '.join(other.level_names())}",
                    f"those of {type(first.head).__name__}, {', '.join(first.level_names())}",
                    "heads on different levels cannot share one set of weights",
                )
        groups.append(
            LevelGroup(
                name=name,
                head=type(first.head).__name__,
                levels=first.level_names(),
                strides=tuple(int(first.strides[i]) for i in first.order),
                terms=tuple(term for member in members for term in member.term_names()),
            )
        )
    return tuple(groups)
