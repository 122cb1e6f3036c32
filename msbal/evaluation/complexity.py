"""What a model costs: parameters and the work of one image, by PyTorch's own counter.

``torch.utils.flop_counter`` counts convolutions and matrix products, a multiplication and an addition as two
operations. Papers and MMDetection's tool give multiply-adds, which are half of that, under the name of
FLOPs; the tool also counts normalisation (2 per element), activations, biases of convolutions (1 per
element) and pooling (1 per element of its input). Counted in that way, RetinaNet-R50 as MMDetection builds
it has 239.32 G at 1280 x 800, the tool's documented metric, and 250.34 G at 1333 x 800, the metric of the
paper's Table 1. A detector that pads its input to a multiple of 32, as MMDetection's own pipeline does, has
251.31 G there, at 1344 x 800; torchvision's RetinaNet takes P6 from P5 and has 1.1 G less.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msbal.data import DetectionData, ImageRecord

if TYPE_CHECKING:
    from torch import nn

    from msbal.backend import Detector

# Elements of the output, times this.
_NORMALISATION = re.compile(r"(Frozen|Sync)?BatchNorm|GroupNorm|LayerNorm|InstanceNorm")
_ACTIVATION = re.compile(r"^(ReLU6?|PReLU|ELU|LeakyReLU)$")
_POOLING = re.compile(r"^(Adaptive)?(Max|Avg)Pool\dd$")


@dataclass(frozen=True)
class Complexity:
    """The cost of one forward pass.

    Attributes:
        input: shape of the tensor that reached the first convolution, ``(N, channels, height, width)``.
        parameters, trainable: numbers; MMDetection's tool gives the trainable ones.
        multiply_adds: of convolutions and matrix products.
        other: further operations that MMDetection's tool counts.
    """

    input: tuple[int, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    other: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of convolutions and matrix products, each on its own."""
        return 2 * self.multiply_adds

    @property
    def as_mmdetection(self) -> int:
        """The metric that MMDetection's tool prints as FLOPs."""
        return self.multiply_adds + self.other

    def to_json(self) -> dict[str, Any]:
        """Return all metrics by name."""
        return {
            "input": list(self.input),
            "parameters": self.parameters,
            "trainable_parameters": self.trainable,
            "multiply_adds": self.multiply_adds,
            "operations": self.operations,
            "flops_as_mmdetection": self.as_mmdetection,
        }


@dataclass(frozen=True)
class BalancingCost:
    """What balancing adds to a training step.

    Attributes:
        plain: multiply-adds of the framework's own forward pass and losses.
        split: the same through the loss splitter, the balancer included.
        parameters: learnable numbers that the balancer holds.
    """

    plain: int
    split: int
    parameters: int

    def to_json(self) -> dict[str, int]:
        """Return all metrics by name."""
        return {
            "training_multiply_adds": self.plain,
            "training_multiply_adds_balanced": self.split,
            "balancer_parameters": self.parameters,
        }


def count(model: nn.Module, forward: Callable[[], object]) -> Complexity:
    """Count what `forward` does in `model`.

    Args:
        forward: runs the model once, for one image.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    extras = _Extras()
    with ExitStack() as hooks:
        for module in model.modules():
            if not any(True for _ in module.children()):
                hooks.enter_context(module.register_forward_hook(extras.add))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward()
    parameters = list(model.parameters())
    return Complexity(
        input=tuple(extras.input),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=counter.get_total_flops() // 2,
        other=extras.operations,
    )


def detector_complexity(
    detector: Detector, classes: DetectionData, width: int = 1333, height: int = 800
) -> Complexity:
    """Count one prediction of a backend's detector, its own resizing and padding included.

    A detector with proposals does work per proposal: with untrained weights that part is not typical.

    Args:
        classes: any split of the data set that it was built for.
        width, height: pixels of the (grey) image that it is given.
    """
    with grey_image(classes, width, height) as data:
        return count(detector.model, lambda: detector.predict(data))


def balancing_cost(
    detector: Detector, balance: Callable[[Any], object], parameters: int, data: DetectionData
) -> BalancingCost:
    """Count a training step's forward pass with and without balancing, on the first image of `data`.

    Args:
        balance: takes the groups of `detector.split_losses` and gives the balanced loss.
        parameters: learnable numbers that belong to it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    was_training = detector.model.training
    detector.model.train()
    batch = detector.batch(data, [0])
    with FlopCounterMode(display=False) as plain:
        detector.framework_losses(batch)
    batch = detector.batch(data, [0])
    with FlopCounterMode(display=False) as split:
        balance(detector.split_losses(batch).groups)
    detector.model.train(was_training)
    return BalancingCost(plain.get_total_flops() // 2, split.get_total_flops() // 2, parameters)


@contextmanager
def grey_image(classes: DetectionData, width: int, height: int) -> Iterator[DetectionData]:
    """Make a split of one grey image without boxes, for as long as the context lasts."""
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="msbal-") as folder:
        path = Path(folder) / "grey.png"
        Image.new("RGB", (width, height), (124, 116, 104)).save(path)
        record = ImageRecord(
            id=1, path=path, width=width, height=height,
            boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int64), area=np.zeros(0, np.float32),
            crowd=np.zeros(0, np.bool_), difficult=np.zeros(0, np.bool_),
        )  # fmt: skip
        yield DetectionData("grey", classes.classes, classes.category_ids, (record,))


@dataclass
class _Extras:
    """What MMDetection's tool counts beside convolutions and matrix products, and the first convolution's input."""

    operations: int = 0
    input: tuple[int, ...] = ()

    def add(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Count a module's forward pass; a forward hook."""
        name = type(module).__name__
        if name.startswith("Conv"):
            self.input = self.input or tuple(inputs[0].shape)
            self.operations += output.numel() if getattr(module, "bias", None) is not None else 0
        elif _NORMALISATION.search(name):
            self.operations += 2 * output.numel()
        elif _ACTIVATION.match(name):
            self.operations += output.numel()
        elif _POOLING.match(name):
            self.operations += inputs[0].numel()
