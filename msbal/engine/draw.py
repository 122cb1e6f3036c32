"""Random numbers as a pure function of (seed, stream, counter).

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) used
as a counter-based generator: the n-th output is a hash of ``key + n * golden gamma``. There is no
generator state, so nothing has to be saved or kept in step over ranks: every rank, device and resumed
run draws the same. In integer arithmetic only, so bit-exact everywhere, in a handful of kernels.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from msbal.engine.numbers import Numbers

_MASK = (1 << 64) - 1
_BLOCK = 512
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    # int64's >> is arithmetic; the mask makes it logical. Products wrap around, as SplitMix64 wants.
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MULTIPLY_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MULTIPLY_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _mix_host(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Draw:
    """The random numbers of one balancer.

    Number n is output n of SplitMix64 seeded with ``key = mix(mix(seed) + (1 + crc32(stream)) * golden
    gamma)``, where mix is SplitMix64's output function: so neither neighbouring seeds nor streams share
    numbers.

    Args:
        seed: any integer; its lowest 64 bits count.
        stream: a name; balancers of one run with different names draw independently.
    """

    def __init__(self, seed: int, stream: str = "") -> None:
        self._block: tuple[int, list[float]] = (-1, [])
        self.key = _signed(_mix_host(_mix_host(seed) + _GOLDEN * (1 + zlib.crc32(stream.encode()))))

    def number(self, n: int) -> float:
        """Number n, by the host's arithmetic."""
        return (_mix_host(self.key + n * _GOLDEN) >> 11) * 2.0**-53

    def uniform(self, counter: Tensor) -> Tensor:
        """Uniform in [0, 1), float64, one for each element of the int64 `counter`, on its device."""
        bits = _mix(counter * _signed(_GOLDEN) + self.key)
        return ((bits >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53

    def normal(self, first: Tensor | int, count: int) -> Any:
        """Standard normal numbers `first` to ``first + count - 1``, ``[count]`` float64; `Numbers` for an int.

        Box and Muller's transform: number n is made of the uniform numbers 2n and 2n + 1.
        """
        if isinstance(first, int):
            block, at = divmod(first, _BLOCK)
            found = self._normal_block(block)[at : at + count]
            while len(found) < count:
                block += 1
                found += self._normal_block(block)[: count - len(found)]
            return Numbers(found)
        return self._normal(first + torch.arange(count, device=first.device))

    def _normal(self, counter: Tensor) -> Tensor:
        radius = torch.sqrt(-2.0 * torch.log1p(-self.uniform(2 * counter)))
        return radius * torch.cos(2.0 * torch.pi * self.uniform(2 * counter + 1))

    def _normal_block(self, block: int) -> list[float]:
        """The numbers from ``block * _BLOCK`` on: at once, they cost a tenth.

        Always of the same bounds: a function's last bit may depend on where in a vector a number lies.
        """
        if self._block[0] != block:
            numbers = self._normal(torch.arange(block * _BLOCK, (block + 1) * _BLOCK)).tolist()
            self._block = (block, numbers)
        return self._block[1]
