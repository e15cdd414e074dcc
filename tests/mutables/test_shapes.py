"""The shapes of the outputs of candidates, by hand."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.shapes import output_shapes


class Pair(nn.Module):
    """Gives no tensor, but two."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Net(nn.Module):
    """A choice that changes the shape, one that occurs twice, one with something else than a tensor, one not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = LayerChoice([nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding=1, stride=2)], key="stem")
        self.act = LayerChoice([nn.ReLU(), nn.Flatten()], key="act")
        self.again = LayerChoice([nn.Identity(), nn.AdaptiveAvgPool2d(1)], key="act")
        self.end = LayerChoice([Pair(), nn.Identity(), nn.Flatten()], key="end")
        self.idle = LayerChoice([nn.Identity(), nn.Tanh()], key="idle")

    def forward(self, x: Tensor) -> object:
        x = self.stem(x)
        self.again(x[:, :2])
        return self.end(self.act(x))


def test_shapes_are_those_of_one_sample_at_the_first_place_of_a_key() -> None:
    mutator = Mutator(Net())
    with torch.no_grad():
        found = output_shapes(mutator, lambda: mutator.model(torch.zeros(5, 3, 8, 8)))
    assert found == {
        "stem": [(4, 6, 6), (4, 4, 4)],
        "act": [(2, 6, 6), (2, 1, 1)],  # what runs first is `again`
        "end": [None, (64,), (144,)],
        "idle": [None, None],
    }
    assert not mutator.model.stem._forward_hooks
