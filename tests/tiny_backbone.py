"""A ResNet's outside, as torchvision's pyramid builder sees it, with hardly an inside."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class TinyResNet(nn.Module):
    """Stands in for `torchvision.models.resnet18`; 64 channels at stride 32."""

    def __init__(self, weights: Any = None, norm_layer: Any = nn.BatchNorm2d) -> None:
        super().__init__()

        def stage(inside: int, outside: int) -> nn.Module:
            conv = nn.Conv2d(inside, outside, 3, 2, 1, bias=False)
            return nn.Sequential(conv, norm_layer(outside), nn.ReLU(inplace=True))

        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = norm_layer(8)
        self.layer1, self.layer2 = stage(8, 8), stage(8, 16)
        self.layer3, self.layer4 = stage(16, 32), stage(32, 64)
        self.inplanes = 64

    def forward(self, x: Tensor) -> Tensor:
        """Unused: the pyramid takes the stages out."""
        return self.layer4(self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x))))))  # type: ignore[no-any-return]
