"""A pytest plugin: detectron2's own tests, with every loss that msbal can split split and weighed by 1.

In a checkout of detectron2, whose own tests then run as they always do::

    PYTHONPATH=MSBAL/tests/e2e:. python -m pytest -p detectron2_unit_weights tests/modeling

Weights of 1 may change no result, so the same tests have to pass as without: ``--plain`` leaves detectron2's losses
alone and only makes it importable (see ``msbal_detectron2.compat``). Where the checkout's own package is not on
the path, the installed one is tested.

Models with a pyramid get balancers. Parts that a test builds by themselves, and models of one level, which
msbal refuses to balance, go through the same split with their one level. At the end the plugin says how often.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import MethodType, SimpleNamespace
from typing import Any

import pytest

from msbal_detectron2 import compat

compat.prepare()

from detectron2.modeling.meta_arch.fcos import FCOS  # noqa: E402
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN, ProposalNetwork  # noqa: E402
from detectron2.modeling.meta_arch.retinanet import RetinaNet  # noqa: E402
from detectron2.modeling.proposal_generator.rpn import RPN  # noqa: E402
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers  # noqa: E402
from torch import nn  # noqa: E402

from msbal.errors import SpecError  # noqa: E402
from msbal_detectron2 import balance  # noqa: E402
from msbal_detectron2.splitters import DictSplitter  # noqa: E402
from msbal_detectron2.splitters.fcos import FCOSSplitter  # noqa: E402
from msbal_detectron2.splitters.retinanet import RetinaNetSplitter  # noqa: E402
from msbal_detectron2.splitters.roi import RoISplitter  # noqa: E402
from msbal_detectron2.splitters.rpn import RPNSplitter  # noqa: E402

MODELS = (GeneralizedRCNN, ProposalNetwork, RetinaNet, FCOS)
COUNTS = {"models": 0, "steps": 0, "parts": 0}

ONE_LEVEL = {
    "pooler": SimpleNamespace(min_level=2, max_level=2, canonical_box_size=224, canonical_level=4),
    "group": SimpleNamespace(levels=("P2",)),
}


def at_birth(cls: type[nn.Module], then: Callable[[Any], None]) -> None:
    """Let something be done with every module of this class once it is built."""
    build = cls.__init__

    def built(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        then(self)

    cls.__init__ = built  # type: ignore[method-assign]


def balance_model(model: nn.Module) -> None:
    """With weights of 1; not at all where there is nothing to balance."""
    # What `split_always` has put there stands for detectron2's own.
    parts = {module: own for module in model.modules() if (own := vars(module).pop("losses", None))}
    for scope in (("rpn", "roi"), ("rpn",), ("roi",)):
        with suppress(SpecError):
            balance(model, "equal", interval=2, scope=scope)
            model.register_forward_hook(lambda *_: count("steps"))
            count("models")
            break
    for module, own in parts.items():
        vars(module).setdefault("losses", own)


def split_always(cls: type[nn.Module], splitter: type[DictSplitter]) -> None:
    """Let the ``losses`` that modules of this class inherit be the sum over the levels of the splitter's."""
    own = cls.losses  # type: ignore[attr-defined]

    def losses(self: nn.Module, *args: Any) -> dict[str, Any]:
        count("parts")
        alone = splitter.__new__(splitter)
        vars(alone).update(ONE_LEVEL, owner=self)
        return alone.result(alone.level_losses(*args).values)

    def replace(module: nn.Module) -> None:
        if type(module).losses is own and "losses" not in module.__dict__:  # type: ignore[attr-defined]
            module.__dict__["losses"] = MethodType(losses, module)

    at_birth(cls, replace)


def count(what: str) -> None:
    """For the summary."""
    COUNTS[what] += 1


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--plain``."""
    parser.addoption("--plain", action="store_true", help="run detectron2's tests without a balancer")


def pytest_configure(config: pytest.Config) -> None:
    """Take detectron2's classes over before any test is imported."""
    if config.getoption("--plain"):
        return
    split_always(RPN, RPNSplitter)
    split_always(FastRCNNOutputLayers, RoISplitter)
    split_always(RetinaNet, RetinaNetSplitter)
    split_always(FCOS, FCOSSplitter)
    for cls in MODELS:
        # Of this very class: a subclass goes on building.
        at_birth(cls, lambda model, cls=cls: balance_model(model) if type(model) is cls else None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much went through the splitters."""
    terminalreporter.write_line("msbal: {models} models, {steps} steps, {parts} parts".format(**COUNTS))
