"""The second search space of the ground truth: 81 small networks for handwritten digits.

Three places, each a choice of three operations that differ in how far they see and in how many weights they have, and
a choice of the earlier output that is added to the last one. The operations have no residual connection of their own,
so that, unlike in the space of MNIST-1D, what a place is given depends on what was chosen before it. Real images of
8x8, which scikit-learn brings along.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice

PARTS = [600, 400, 797]
"""Images to train on, to steer the search, and for the test."""


def normed(*layers: nn.Module, channels: int) -> nn.Module:
    """``layers``, BatchNorm, ReLU."""
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())


def conv(channels: int, kernel: int) -> nn.Module:
    """A full convolution; keeps height and width."""
    return normed(nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), channels=channels)


def separable(channels: int) -> nn.Module:
    """A depthwise convolution of 3x3 and a pointwise one; keeps height and width."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return normed(depthwise, nn.Conv2d(channels, channels, 1, bias=False), channels=channels)


class DigitsNet(nn.Module):
    """A stem, three choices of operation with pooling behind the first, a choice of shortcut, and a classifier.

    Args:
        channels: width of every layer.
    """

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem = normed(nn.Conv2d(1, channels, 3, padding=1, bias=False), channels=channels)
        self.early = LayerChoice(
            OrderedDict(separable=separable(channels), conv1=conv(channels, 1), maxpool=nn.MaxPool2d(3, 1, padding=1)),
            key="early",
        )
        self.middle = LayerChoice(
            OrderedDict(separable=separable(channels), conv1=conv(channels, 1), avgpool=nn.AvgPool2d(3, 1, padding=1)),
            key="middle",
        )
        self.late = LayerChoice(
            OrderedDict(skip=nn.Identity(), conv3=conv(channels, 3), conv1=conv(channels, 1)), key="late"
        )
        self.shortcut = InputChoice(n_candidates=3, n_chosen=1, key="shortcut")  # of stem, early, middle
        self.pool = nn.MaxPool2d(2)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, 10]."""
        stem = self.stem(x)
        early = self.pool(self.early(stem))  # [N, C, 4, 4]
        middle = self.middle(early)
        late = self.late(middle) + self.shortcut([self.pool(stem), early, middle])
        return self.classifier(late.mean(dim=(2, 3)))


@cache
def _split() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """The parts, always the same; the images of scikit-learn come in the order of their writers, so they are mixed."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0  # [1797, 1, 8, 8], 0 to 1
    labels = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, valid, test = (TensorDataset(images[part], labels[part]) for part in order.split(PARTS))
    return train, valid, test


def train_dataset() -> TensorDataset:
    return _split()[0]


def valid_dataset() -> TensorDataset:
    return _split()[1]


def test_dataset() -> TensorDataset:
    return _split()[2]
