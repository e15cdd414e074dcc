"""The networks that are measured, each written once, as plain PyTorch.

A network asks ``choose(key, candidates)`` at every place where something is to be decided. With ``supernet`` that
makes a LayerChoice; with ``sampled(...)`` it takes the candidate itself, which gives the same architecture written in
plain PyTorch. Both build all candidates from the same random numbers, so their weights are equal.

This file imports nothing of nnas at the top: the plain side of a comparison must not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

Choose = Callable[[str, list[nn.Module]], nn.Module]


def supernet(key: str, candidates: list[nn.Module]) -> nn.Module:
    """Leave the decision to a mutator."""
    from nnas_core import LayerChoice

    return LayerChoice(candidates, key=key)


def sampled(architecture: Mapping[str, Sequence[int]]) -> Choose:
    """Take what ``architecture`` (key -> indices) says; no class of nnas is in the result."""
    return lambda key, candidates: candidates[architecture[key][0]]


class PlainMixture(nn.Module):
    """What is written by hand for a mixture of candidates: ``sum(w * op(x))``."""

    def __init__(self, candidates: list[nn.Module]) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(candidates)
        self.weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return sum(w * op(x) for w, op in zip(self.weights, self.candidates, strict=False))


def mixture(mixtures: dict[str, list[PlainMixture]]) -> Choose:
    """Mix all candidates by hand; the mixtures are collected by key."""

    def choose(key: str, candidates: list[nn.Module]) -> nn.Module:
        made = PlainMixture(candidates)
        mixtures.setdefault(key, []).append(made)
        return made

    return choose


def everything(key: str, candidates: list[nn.Module]) -> nn.Module:
    """Keep all candidates in a container of torch's: what building a supernet costs without nnas."""
    return nn.ModuleList(candidates)


# ---- python-bound


class Tiny(nn.Module):
    """``depth`` choices among 4 Linear(16, 16), with ReLU: kernels are so small that Python's overhead dominates."""

    example = ((8, 16), 10)

    def __init__(self, choose: Choose, depth: int = 20) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            choose(f"layer{number:04}", [nn.Linear(16, 16) for _ in range(4)]) for number in range(depth)
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


class TinyConv(nn.Module):
    """``depth`` choices among 4 convolutions of 4 channels on 4x4 images, with ReLU."""

    example = ((8, 4, 4, 4), 10)

    def __init__(self, choose: Choose, depth: int = 20) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            choose(f"layer{number:04}", [nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)]) for number in range(depth)
        )
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x.mean(dim=(2, 3)))


class Pointwise(nn.Module):
    """Twelve choices among 4 convolutions of 1x1, 8 channels on 8x8 images, with ReLU."""

    example = ((2, 8, 8, 8), 10)

    def __init__(self, choose: Choose, depth: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            choose(f"layer{number:04}", [nn.Conv2d(8, 8, 1) for _ in range(4)]) for number in range(depth)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x.mean(dim=(2, 3)))


# ---- cells, as in NAS-Bench-201 (Dong and Yang, arXiv:2001.00326)


class Zero(nn.Module):
    """No connection."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul(0.0)

    def is_zero_layer(self) -> bool:
        """What NNI's programs say of such an operation."""
        return True


def relu_conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """ReLU, convolution, BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outputs))


class Cell(nn.Module):
    """Four nodes, six edges, five operations an edge; every cell of the network has the same keys."""

    def __init__(self, choose: Choose, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{end}-{start}": choose(f"edge{end}{start}", self._operations(channels))
                for end in range(1, 4)
                for start in range(end)
            }
        )

    @staticmethod
    def _operations(channels: int) -> list[nn.Module]:
        return [
            Zero(),
            nn.Identity(),
            relu_conv_bn(channels, channels, 1),
            relu_conv_bn(channels, channels, 3),
            nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        ]

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for end in range(1, 4):
            nodes.append(sum(self.edges[f"{end}-{start}"](nodes[start]) for start in range(end)))
        return nodes[-1]


class Reduction(nn.Module):
    """Residual block that halves the resolution and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            relu_conv_bn(channels, 2 * channels, 3, 2), relu_conv_bn(2 * channels, 2 * channels, 3)
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Cells(nn.Module):
    """Three cells of 16, 32 and 64 channels, 32x32 images."""

    example = ((32, 3, 32, 32), 10)

    def __init__(self, choose: Choose, channels: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            Cell(choose, channels),
            Reduction(channels),
            Cell(choose, 2 * channels),
            Reduction(2 * channels),
            Cell(choose, 4 * channels),
            nn.BatchNorm2d(4 * channels),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class EightWide(nn.Module):
    """Six choices among eight convolutions with BatchNorm and ReLU, 16 channels, 32x32 images."""

    example = ((64, 3, 32, 32), 10)

    def __init__(self, choose: Choose, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            choose(f"layer{number}", [relu_conv_bn(channels, channels, kernel) for kernel in (1, 3, 1, 3, 1, 3, 1, 3)])
            for number in range(6)
        )
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(dim=(2, 3)))


# ---- blocks, as in Single Path One-Shot (Guo et al., arXiv:1904.00420)


class ShuffleBlock(nn.Module):
    """ShuffleNetV2 unit with one depthwise kernel, or three (``xception``)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, xception: bool = False) -> None:
        super().__init__()
        self.stride = stride
        own = inputs if stride == 2 else inputs // 2
        inner = outputs // 2
        made = outputs - own
        layers = []
        if xception:
            layers += [*_depthwise(own, kernel, stride), *_pointwise(own, inner)]
            layers += [*_depthwise(inner, kernel), *_pointwise(inner, inner), *_depthwise(inner, kernel)]
        else:
            layers += [*_pointwise(own, inner), *_depthwise(inner, kernel, stride)]
        self.branch = nn.Sequential(*layers, *_pointwise(inner, made))
        self.shortcut = nn.Sequential(*_depthwise(own, kernel, 2), *_pointwise(own, own)) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return torch.cat((self.shortcut(x), self.branch(x)), 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, channels // 2, 2, height, width).transpose(1, 2)
        return torch.cat((x[:, 0], self.branch(x[:, 1])), 1)


def _depthwise(channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class SinglePath(nn.Module):
    """Twenty choice blocks of four ShuffleNet units.

    Args:
        width: channels of the first stage; 16 is a quarter of the paper's.
        stem_stride: 2 for ImageNet's images, 1 for 32x32.
    """

    example = ((32, 3, 32, 32), 10)

    def __init__(self, choose: Choose, width: int = 16, stem_stride: int = 1, classes: int = 10) -> None:
        super().__init__()
        stages = [(4, width), (4, 5 * width // 2), (8, 5 * width), (4, 10 * width)]
        channels, blocks = width // 4, []
        stem = nn.Conv2d(3, channels, 3, stem_stride, 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU())
        for repeats, outputs in stages:
            for repeat in range(repeats):
                stride = 2 if repeat == 0 else 1
                operations: list[nn.Module] = [ShuffleBlock(channels, outputs, kernel, stride) for kernel in (3, 5, 7)]
                operations.append(ShuffleBlock(channels, outputs, 3, stride, xception=True))
                blocks.append(choose(f"block{len(blocks):02}", operations))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


# ---- what `nnas ss-gen` is given


def single_path_imagenet(choose: Choose = supernet) -> nn.Module:
    """The paper's widths: 20 choices, tens of millions of weights."""
    return SinglePath(choose, width=64, stem_stride=2, classes=1000)


def thousand_choices(choose: Choose = supernet) -> nn.Module:
    """1,000 choices among 4 small convolutions: many modules, few weights."""
    return nn.Sequential(
        *(choose(f"layer{number:04}", [nn.Conv2d(16, 16, 3, padding=1) for _ in range(4)]) for number in range(1000))
    )


def batch_for(net: Any, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random batch of the shape that ``net`` (a class of this file) is measured with."""
    shape, classes = net.example
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randint(classes, (shape[0],), generator=generator)
