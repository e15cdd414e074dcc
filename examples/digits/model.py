"""A search space for scikit-learn's digits (1,797 images of 8x8): 9,000 networks that train in seconds.

A cell of three nodes: each chooses an operation, and the last two choose which earlier outputs they read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice


def conv(channels_in: int, channels: int, kernel: int) -> nn.Module:
    """Convolution, BatchNorm, ReLU; keeps height and width."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def separable(channels: int, kernel: int) -> nn.Module:
    """A depthwise convolution and a pointwise one: a fraction of the parameters of ``conv``."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def operation(channels: int, key: str) -> LayerChoice:
    """What a node may do with its input. All candidates keep the shape, so any of them fits."""
    return LayerChoice(
        OrderedDict(
            conv3x3=conv(channels, channels, 3),
            conv5x5=conv(channels, channels, 5),
            sepconv3x3=separable(channels, 3),
            maxpool3x3=nn.MaxPool2d(3, stride=1, padding=1),
            skip=nn.Identity(),
        ),
        key=key,
    )


class DigitsNet(nn.Module):
    """Stem, cell, classifier.

    Args:
        channels: width of every layer; try ``-a channels=16``.
    """

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.stem = LayerChoice(
            OrderedDict(conv1x1=conv(1, channels, 1), conv3x3=conv(1, channels, 3), conv5x5=conv(1, channels, 5)),
            key="stem",
        )
        self.pool = nn.MaxPool2d(2)
        self.node1 = operation(channels, "node1")
        # `choose_from` names the mutables whose outputs are offered, in the order of the list in forward().
        self.node2_input = InputChoice(choose_from=["stem", "node1"], n_chosen=1, key="node2_input")
        self.node2 = operation(channels, "node2")
        self.node3_input = InputChoice(
            choose_from=["stem", "node1", "node2"], n_chosen=2, reduction="mean", key="node3_input"
        )
        self.node3 = operation(channels, "node3")
        # n_chosen=None: any subset may be added to the last node's output, the empty one included.
        self.shortcut = InputChoice(choose_from=["node1", "node2"], n_chosen=None, key="shortcut")
        # What arrives here is of another scale in every architecture; BatchNorm makes up for that.
        self.classifier = nn.Sequential(nn.BatchNorm2d(channels), nn.Flatten(), nn.Linear(16 * channels, 10))

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, 10]."""
        stem = self.pool(self.stem(x))  # [N, C, 4, 4]
        node1 = self.node1(stem)
        node2 = self.node2(self.node2_input([stem, node1]))
        node3 = self.node3(self.node3_input([stem, node1, node2]))
        shortcut = self.shortcut([node1, node2])
        if shortcut is not None:  # None is what an empty choice gives
            node3 = node3 + shortcut
        return self.classifier(node3)


@cache
def _split() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """1,077 images to train on, 360 to steer the search, 360 to be looked at once; always the same."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0  # [1797, 1, 8, 8], 0 to 1
    labels = torch.from_numpy(digits.target).long()
    # A generator of its own: loading data must not disturb, or depend on, the program's random numbers.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, valid, test = (TensorDataset(images[part], labels[part]) for part in order.split([1077, 360, 360]))
    return train, valid, test


def train_dataset() -> TensorDataset:
    return _split()[0]


def valid_dataset() -> TensorDataset:
    return _split()[1]


def test_dataset() -> TensorDataset:
    return _split()[2]


def build_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """nnas's default with twice the learning rate: the default is made for longer training."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=3e-4)
