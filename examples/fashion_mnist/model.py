"""A supernet for Fashion-MNIST: six ShuffleNet blocks with 4 candidates each, 4,096 networks.

After Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420,
with fewer and narrower blocks, for a CPU. Reads the files of Debian's package dataset-fashion-mnist, or the folder that
the environment variable FASHION_MNIST_DIR names.
"""

from __future__ import annotations

import gzip
import os
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice
from nnas_core.errors import EnvironmentFailure

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
IMAGES = 12_000
"""Of the 60,000 training images, so that a CPU is done with an epoch in half a minute."""

STAGES = (2, 4, 8)
"""Output channels of each stage, in widths; the first block of a stage halves height and width."""


def _conv(channels_in: int, channels: int, *, relu: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)]
    return [*layers, nn.ReLU()] if relu else layers


def _depthwise(channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


class ShuffleBlock(nn.Module):
    """A ShuffleNetV2 unit: half of the channels pass by, the other half is worked on, then both are shuffled.

    Args:
        channels_in: [N, channels_in, H, W] comes in.
        channels: [N, channels, H / stride, W / stride] goes out.
        stride: 2 halves height and width; then both halves see all input channels.
        kernel: of the depthwise convolution.
        deep: three depthwise convolutions (the "Xception" candidate) instead of one.
    """

    def __init__(self, channels_in: int, channels: int, *, stride: int, kernel: int, deep: bool = False) -> None:
        super().__init__()
        half = channels // 2
        branch_in = channels_in if stride == 2 else channels_in // 2
        if deep:
            self.work = nn.Sequential(
                *_depthwise(branch_in, kernel, stride),
                *_conv(branch_in, half),
                *_depthwise(half, kernel),
                *_conv(half, half),
                *_depthwise(half, kernel),
                *_conv(half, half),
            )
        else:
            self.work = nn.Sequential(*_conv(branch_in, half), *_depthwise(half, kernel, stride), *_conv(half, half))
        self.pass_by = (
            nn.Sequential(*_depthwise(branch_in, kernel, stride), *_conv(branch_in, half)) if stride == 2 else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pass_by is None:
            kept, worked = x.chunk(2, dim=1)
        else:
            kept, worked = self.pass_by(x), x
        joined = torch.stack((kept, self.work(worked)), dim=2)  # [N, C/2, 2, H, W]
        return joined.flatten(1, 2)  # channels alternate between the halves: the shuffle


class FashionNet(nn.Module):
    """Stem, ``STAGES`` of choice blocks, classifier.

    Args:
        width: channels of the stem, an even number, of which each stage has a multiple.
        blocks: choices of each stage; ``-a blocks=4 -a width=24`` is about the size that papers search.
    """

    def __init__(self, width: int = 8, blocks: int = 2) -> None:
        super().__init__()
        channels = width
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        choices: list[nn.Module] = []
        for multiple in STAGES:
            for number in range(blocks):
                stride = 2 if number == 0 else 1
                choices.append(self._choice(channels, multiple * width, stride, key=f"block{len(choices)}"))
                channels = multiple * width
        self.blocks = nn.Sequential(*choices)
        self.classifier = nn.Linear(channels, 10)

    @staticmethod
    def _choice(channels_in: int, channels: int, stride: int, key: str) -> LayerChoice:
        return LayerChoice(
            OrderedDict(
                shuffle3=ShuffleBlock(channels_in, channels, stride=stride, kernel=3),
                shuffle5=ShuffleBlock(channels_in, channels, stride=stride, kernel=5),
                shuffle7=ShuffleBlock(channels_in, channels, stride=stride, kernel=7),
                xception=ShuffleBlock(channels_in, channels, stride=stride, kernel=3, deep=True),
            ),
            key=key,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 28, 28] of bytes -> [N, 10]."""
        # The data stay bytes until here: a quarter of the memory, and of what travels to a GPU.
        x = (x.float() / 255.0 - 0.286) / 0.353
        return self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def _read(name: str) -> Tensor:
    """An IDX file as a tensor of bytes."""
    folder = Path(os.environ.get("FASHION_MNIST_DIR", DEBIAN_FOLDER))
    file = folder / f"{name}.gz"
    if not file.is_file():
        raise EnvironmentFailure(
            "Fashion-MNIST is not here",
            where=str(file),
            hint="run `apt-get install dataset-fashion-mnist`, or set FASHION_MNIST_DIR to their folder",
        )
    content = gzip.decompress(file.read_bytes())
    # Two zero bytes, the type (8: unsigned bytes), the number of dimensions, then each dimension in 4 bytes.
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(values.reshape(shape).copy())


@cache
def _load(part: str) -> TensorDataset:
    images = _read(f"{part}-images-idx3-ubyte").unsqueeze(1)  # [N, 1, 28, 28]
    return TensorDataset(images, _read(f"{part}-labels-idx1-ubyte").long())


@cache
def _split() -> tuple[TensorDataset, TensorDataset]:
    """A sixth of the images steers the search; the same ones every time."""
    images, labels = _load("train").tensors
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:IMAGES]
    valid, train = order[: len(order) // 6], order[len(order) // 6 :]
    return TensorDataset(images[train], labels[train]), TensorDataset(images[valid], labels[valid])


def train_dataset() -> TensorDataset:
    return _split()[0]


def valid_dataset() -> TensorDataset:
    return _split()[1]


def test_dataset() -> TensorDataset:
    return _load("t10k")
