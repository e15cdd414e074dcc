"""A search space for MNIST-1D (Greydanus, Kobak, arXiv:2011.14439): digits as noisy signals of length 40.

Four blocks, each a choice of convolution, pooling or nothing, and a choice of the two blocks that the
classifier reads: 7,776 networks. The data are generated, nothing is downloaded.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice


def conv(channels_in: int, channels: int, kernel: int, dilation: int = 1, stride: int = 1) -> nn.Module:
    """Convolution, BatchNorm, ReLU; keeps the length but for the stride."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv1d(channels_in, channels, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm1d(channels),
        nn.ReLU(),
    )


class SignalNet(nn.Module):
    """A stem that halves the length, ``blocks`` blocks of one choice each, and a classifier.

    Args:
        channels: width of every layer.
        blocks: number of blocks.
    """

    def __init__(self, channels: int = 16, blocks: int = 4) -> None:
        super().__init__()
        self.stem = conv(1, channels, 5, stride=2)
        self.blocks = nn.ModuleList(
            LayerChoice(
                OrderedDict(
                    conv3=conv(channels, channels, 3),
                    conv5=conv(channels, channels, 5),
                    conv7=conv(channels, channels, 7),
                    dilated3=conv(channels, channels, 3, dilation=3),
                    maxpool3=nn.MaxPool1d(3, stride=1, padding=1),
                    skip=nn.Identity(),
                ),
                key=f"block{number}",
            )
            for number in range(blocks)
        )
        self.readout = InputChoice(
            choose_from=[f"block{number}" for number in range(blocks)],
            n_chosen=2,
            reduction="mean",  # not "concat": what blends all inputs could not serve that
            key="readout",
        )
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 1, 40] -> [N, 10]."""
        x = self.stem(x)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x.mean(dim=2))  # [N, C]
        return self.classifier(self.readout(outputs))


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
        dataset(signals[:3200], labels[:3200]),
        dataset(signals[3200:], labels[3200:]),
        dataset(data["x_test"], data["y_test"]),
    )


def train_dataset() -> TensorDataset:
    return _split()[0]


def valid_dataset() -> TensorDataset:
    return _split()[1]


def test_dataset() -> TensorDataset:
    return _split()[2]
