"""A space with choices of all kinds, and the policy of ENAS over it by its own equations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice, MutableScope
from nnas_core.mutators.enas import EnasMutator

Decisions = Mapping[str, tuple[int, ...]]


class Cell(MutableScope):
    """``op`` of three, and one of three inputs."""

    def __init__(self) -> None:
        super().__init__("cell")
        self.op = LayerChoice([nn.Identity() for _ in range(3)], key="op")
        self.pick = InputChoice(choose_from=["", "stem", "op"], n_chosen=1, key="pick")


class Space(nn.Module):
    """2 * (3 * 3) * 6 * 4 * 2 = 864 architectures; LayerChoices of two sizes, InputChoices of all kinds, a scope."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # the controller follows its type
        self.stem = LayerChoice([nn.Identity(), nn.Identity()], key="stem")
        self.cell = Cell()
        self.pair = InputChoice(choose_from=["stem", "cell", "", ""], n_chosen=2, key="pair")
        self.any = InputChoice(choose_from=["cell", "pick"], key="any")
        self.last = LayerChoice([nn.Identity(), nn.Identity()], key="last")


PAIRS = list(itertools.combinations(range(4), 2))
SUBSETS = [(), (0,), (1,), (0, 1)]
EVERYTHING: list[Decisions] = [
    {"stem": (a,), "op": (b,), "pick": (c,), "pair": d, "any": e, "last": (f,)}
    for a, b, c, d, e, f in itertools.product(range(2), range(3), range(3), PAIRS, SUBSETS, range(2))
]


def space_mutator(seed: int = 0, spread: float = 20.0, **options: Any) -> EnasMutator:
    """A controller of ``Space`` with parameters ``spread`` times as large as at the start, so that it has opinions."""
    mutator = EnasMutator(Space(), torch.Generator().manual_seed(seed), **{"lstm_size": 5, **options})
    with torch.no_grad():
        for parameter in mutator.parameters():
            parameter.mul_(spread)
    return mutator


class Reference:
    """The policy of ``Space``, one architecture and one equation at a time."""

    def __init__(self, mutator: EnasMutator) -> None:
        self.controller = mutator.controller

    def step(self, read: Tensor) -> Tensor:
        """The equations of an LSTM in torch's order of gates; the state of its last layer."""
        for layer, (below, own) in enumerate(self.controller.lstm.all_weights):
            h, c = self.states[layer]
            i, f, g, o = (below @ read + own @ h).reshape(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            self.states[layer] = (h, c)
            read = h
        return read

    def limited(self, logits: Tensor) -> Tensor:
        if self.controller.temperature is not None:
            logits = logits / self.controller.temperature
        if self.controller.tanh_constant is not None:
            logits = self.controller.tanh_constant * torch.tanh(logits)
        return logits

    def scores(self, state: Tensor, anchors: list[Tensor]) -> Tensor:
        c = self.controller
        return self.limited(torch.stack([c.score @ torch.tanh(c.anchor @ a + c.query @ state) for a in anchors]))

    def log_probability(self, which: Decisions) -> Tensor:
        """Logarithm of the probability of one architecture; ``penalty`` and ``entropy_of_any`` are kept beside it."""
        c = self.controller
        size = c.lstm.hidden_size
        self.states = [(torch.zeros(size, dtype=torch.float64),) * 2 for _ in c.lstm.all_weights]
        start, two, three = c.embedding[0], c.embedding[1:3], c.embedding[3:6]
        free = [self.step(start), self.step(start)]  # as many as any choice has inputs without a tag
        state = self.step(start)
        total = self.limited(c.head[:2] @ state).log_softmax(0)[which["stem"][0]]
        stem = state = self.step(two[which["stem"][0]])  # the first state that has read what stem decided
        total = total + self.limited(c.head[2:5] @ state).log_softmax(0)[which["op"][0]]
        op = state = self.step(three[which["op"][0]])
        anchors = [free[0], stem, op]
        total = total + self.scores(state, anchors).log_softmax(0)[which["pick"][0]]
        cell = state = self.step(anchors[which["pick"][0]])
        if c.script._exit_step:
            state = self.step(start)
        anchors = [stem, cell, free[0], free[1]]
        of_pairs = torch.stack([self.scores(state, anchors)[list(pair)].sum() for pair in PAIRS])
        total = total + of_pairs.log_softmax(0)[PAIRS.index(which["pair"])]
        state = self.step(sum(anchors[index] for index in which["pair"]) / 2)
        anchors = [cell, cell]
        p = torch.softmax(torch.stack([-(q := self.scores(state, anchors)), q]), dim=0)[1]
        target = c.skip_target
        self.penalty = (p * torch.log(p / target) + (1 - p) * torch.log((1 - p) / (1 - target))).sum()
        self.entropy_of_any = -(p * torch.log(p) + (1 - p) * torch.log(1 - p)).sum()
        taken = torch.tensor([index in which["any"] for index in range(2)])
        total = total + torch.where(taken, p, 1 - p).log().sum()
        read = sum((anchors[index] for index in which["any"]), 0 * cell) / (1 + len(which["any"]))
        return total + self.limited(c.head[:2] @ self.step(read)).log_softmax(0)[which["last"][0]]
