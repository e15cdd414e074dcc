"""The search space of the ground truth: 243 small networks for MNIST-1D, every one of which can be trained alone.

Five places, each a choice of three: a residual convolution, a dilated one, or nothing. Pooling between them halves the
length, so that no two architectures are the same function: a convolution sees more of the signal in a late place, and a
dilated one sees the padding there. The data (Greydanus, Kobak, arXiv:2011.14439) are generated, nothing is downloaded.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice

TRAINING = 3200
"""Signals to train on; the other 800 of the data set's training part steer the search."""


class Residual(nn.Module):
    """``relu(x + norm(conv(x)))`` with three taps; keeps the shape.

    The sum is why weights can be shared: whatever stands before it, a place is given much the same. Without it a
    supernet of single paths reached half the accuracy.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, L] -> [N, C, L]."""
        return torch.relu(x + self.norm(self.conv(x)))


class TruthNet(nn.Module):
    """A stem that halves the length, five choices with pooling between them, and a classifier.

    Args:
        channels: width of every layer.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm1d(channels), nn.ReLU()
        )
        self.layers = nn.ModuleList(
            LayerChoice(
                OrderedDict(conv3=Residual(channels), dilated3=Residual(channels, dilation=3), skip=nn.Identity()),
                key=f"layer{number}",
            )
            for number in range(1, 6)
        )
        self.pool = nn.MaxPool1d(2, ceil_mode=True)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 40] -> [N, 10]."""
        x = self.layers[0](self.stem(x))  # [N, C, 20]
        for layer in self.layers[1:]:
            x = layer(self.pool(x))  # [N, C, 10], 5, 3, 2
        return self.classifier(x.mean(dim=2))


@cache
def _split() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """3,200 signals to train on, 800 to steer the search, the data set's own 1,000 for the test."""
    # Here, because importing mnist1d loads matplotlib, and the search space alone needs no data.
    from mnist1d.data import get_dataset_args, make_dataset

    # `make_dataset` works in memory (its sibling `get_dataset` downloads and writes files), but it seeds the
    # global generators; they are put back.
    saved = random.getstate(), np.random.get_state()
    try:
        data = make_dataset(get_dataset_args())
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])

    def dataset(signals: np.ndarray, labels: np.ndarray) -> TensorDataset:
        return TensorDataset(torch.from_numpy(signals).float().unsqueeze(1), torch.from_numpy(labels).long())

    # The generator shuffles the examples, so the last ones are as random as any.
    signals, labels = data["x"], data["y"]
    return (
        dataset(signals[:TRAINING], labels[:TRAINING]),
        dataset(signals[TRAINING:], labels[TRAINING:]),
        dataset(data["x_test"], data["y_test"]),
    )


def train_dataset() -> TensorDataset:
    return _split()[0]


def valid_dataset() -> TensorDataset:
    return _split()[1]


def test_dataset() -> TensorDataset:
    return _split()[2]
