"""Find what can be balanced in a built model: its heads, and the splitter of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from msbal.backend import LevelGroup
from msbal.errors import SpecError
from msbal_mmdet.splitters import REFUSED_MODELS, HeadSplitter, look_up
from msbal_mmdet.splitters.roi import RoISplitter

SCOPES = ("rpn", "roi")


class Found(NamedTuple):
    """What can be balanced.

    Attributes:
        splitters: one for each loss method.
        notes: heads on several levels that stay as they are, and why.
    """

    splitters: tuple[HeadSplitter, ...]
    notes: tuple[str, ...]

    @property
    def groups(self) -> tuple[LevelGroup, ...]:
        """The splitters' groups."""
        return tuple(splitter.group for splitter in self.splitters)


class _Head(NamedTuple):
    """A head, its place in the model, and its splitter or why it has none."""

    path: str
    module: nn.Module
    scope: str  # rpn, roi, or all for another head
    splitter: HeadSplitter | str


def find(model: nn.Module, scope: Sequence[str] | None = None) -> Found:
    """Find the heads of a built model.

    Args:
        model: mmdet's, not wrapped by DDP (give ``model.module``).
        scope: which heads of a two-stage detector: ``rpn``, ``roi``, or both; None for the RPN, and for the one head
            of a one-stage detector.

    Raises:
        SpecError: where nothing can be balanced, with the reason for each head; where one of `scope` cannot.
    """
    where = f"model: {type(model).__name__}"
    if scope is not None and (not scope or set(scope) - set(SCOPES)):
        raise SpecError("balance.scope", f"[{', '.join(scope)}]", "[rpn], [roi] or [rpn, roi]")
    for base in (cls.__name__ for cls in type(model).__mro__):
        if base in REFUSED_MODELS:
            raise SpecError(where, f"it cannot be balanced: {REFUSED_MODELS[base]}")

    heads, frozen = _without_frozen([*_dense(model), *_roi(model)])
    two_stage = any(head.scope != "all" for head in heads)
    if scope is not None and heads and not two_stage:
        raise SpecError(
            "balance.scope", f"[{', '.join(scope)}] for {type(model).__name__}", "no scope",
            "leave it out: the model has no RPN and no RoI head",
        )  # fmt: skip
    # A dense head beside an RPN's (a mask head with levels of its own) is balanced with it.
    wanted = {"all", *(("rpn",) if scope is None else scope)}
    reasons = [
        f"{type(head.module).__name__}: {head.splitter}"
        if isinstance(head.splitter, str)
        else f"{type(head.module).__name__} is left out by scope"
        for head in heads
        if isinstance(head.splitter, str) or head.scope not in wanted
    ]
    chosen = [head for head in heads if head.scope in wanted and not isinstance(head.splitter, str)]
    if not chosen:
        raise SpecError(
            where,
            f"it cannot be balanced: {'; '.join(reasons) or 'it has no head with a loss on several levels'}",
            "a head whose loss is a sum over at least two pyramid levels",
            "choose another detector; the hook in mmdet's own tools/train.py leaves it as it is with unbalanced=True",
        )
    for asked in (SCOPES if two_stage and scope is None else scope) or ():
        if asked not in wanted:
            continue
        refused = [head for head in heads if head.scope == asked and isinstance(head.splitter, str)]
        if refused or not any(head.scope == asked for head in heads):
            why = f"{type(refused[0].module).__name__}: {refused[0].splitter}" if refused else "it has none"
            raise SpecError(
                "balance.scope", f"`{asked}` of {type(model).__name__} cannot be balanced: {why}",
                "heads that all can", "leave it out of the scope, or choose another head or loss",
            )  # fmt: skip
    return Found(tuple(_named(chosen)), (*reasons, *frozen))


def _dense(model: nn.Module) -> Iterator[_Head]:
    """Yield the dense heads, those of an RPN and others."""
    rpn_heads: list[nn.Module] = [
        head for module in model.modules() if isinstance(head := getattr(module, "rpn_head", None), nn.Module)
    ]  # fmt: skip
    inside = {id(inner) for head in rpn_heads for inner in head.modules()}
    for path, module in model.named_modules():
        kind = look_up(module)
        if kind is not None:
            scope = "rpn" if id(module) in inside else "all"
            yield _Head(path, module, scope, kind if isinstance(kind, str) else _made(kind(module)))


def _roi(model: nn.Module) -> Iterator[_Head]:
    """Yield the box heads of RoI heads, one for each stage of a cascade."""
    splitters: dict[str, type[HeadSplitter]] = dict.fromkeys(RoISplitter.heads, RoISplitter)
    for path, module in model.named_modules():
        extractors, heads = getattr(module, "bbox_roi_extractor", None), getattr(module, "bbox_head", None)
        if extractors is None or heads is None:
            continue
        cascade = isinstance(heads, nn.ModuleList)
        pairs = zip(heads, extractors, strict=True) if cascade else [(heads, extractors)]
        for stage, (head, extractor) in enumerate(pairs):
            kind = look_up(head, splitters)
            place = f"{path}.bbox_head.{stage}" if cascade else f"{path}.bbox_head"
            if isinstance(kind, type):
                yield _Head(place, head, "roi", _made(RoISplitter(head, extractor)))
            else:
                yield _Head(
                    place, head, "roi", kind or "it computes its loss in its own way, not as BBoxHead"
                )


def _without_frozen(heads: Sequence[_Head]) -> tuple[list[_Head], list[str]]:
    """Leave out a frozen head beside one that is trained: it is a teacher's, whose loss nobody computes."""
    trained = {head.path: any(p.requires_grad for p in head.module.parameters()) for head in heads}
    scopes = {head.scope for head in heads if trained[head.path]}
    kept = [head for head in heads if trained[head.path] or head.scope not in scopes]
    return kept, [f"{head.path} is frozen" for head in heads if head not in kept]


def _made(splitter: HeadSplitter) -> HeadSplitter | str:
    return splitter.refusal() or splitter


def _named(chosen: Sequence[_Head]) -> Iterator[HeadSplitter]:
    """Yield the splitters, and name the groups of a cascade's stages and of several heads of a kind apart."""
    names = []
    for head in chosen:
        last = head.path.rpartition(".")[2]
        stage = f"_stage{last}" if last.isdigit() else ""
        names.append(f"{head.scope}{stage}")
    for head, name in zip(chosen, names, strict=True):
        alone = Counter(names)[name] == 1
        assert isinstance(head.splitter, HeadSplitter)
        head.splitter.rename(name if alone else head.path.replace(".", "_"))
        yield head.splitter
