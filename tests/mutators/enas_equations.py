"""A space with choices of all kinds, and the policy of ENAS over it by its own equations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
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
    """The policy of ``Space``, one architecture and one equation at a time; what two have in common is computed once.

    The parameters of the mutator must stay as they are.
    """

    def __init__(self, mutator: EnasMutator) -> None:
        self.controller = mutator.controller
        self.known: dict[tuple[object, ...], Any] = {}

    def once(self, *path: object, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives after the decisions of ``path``, and the states that the LSTM is then in."""
        if path not in self.known:
            result = compute()
            self.known[path] = result, list(self.states)
        result, states = self.known[path]
        self.states = list(states)
        return result

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
        # as many free states as any choice has inputs without a tag; then the first state that decides
        free, state = self.once(compute=lambda: ([self.step(start), self.step(start)], self.step(start)))
        path: tuple[object, ...] = (which["stem"][0],)
        total = self.limited(c.head[:2] @ state).log_softmax(0)[which["stem"][0]]
        stem = state = self.once(*path, compute=lambda: self.step(two[which["stem"][0]]))  # has read what stem decided
        path += (which["op"][0],)
        total = total + self.limited(c.head[2:5] @ state).log_softmax(0)[which["op"][0]]
        op, of_picks = self.once(*path, compute=lambda: self._op(three[which["op"][0]], free[0], stem))
        total = total + of_picks[which["pick"][0]]
        path += (which["pick"][0],)
        anchors = [free[0], stem, op]
        cell, of_pairs = self.once(*path, compute=lambda: self._cell(anchors[which["pick"][0]], start, stem, free))
        total = total + of_pairs[PAIRS.index(which["pair"])]
        path += (which["pair"],)
        anchors = [stem, cell, free[0], free[1]]
        read = sum(anchors[index] for index in which["pair"]) / 2
        p, self.penalty, self.entropy_of_any = self.once(*path, compute=lambda: self._any(read, cell))
        taken = torch.tensor([index in which["any"] for index in range(2)])
        total = total + torch.where(taken, p, 1 - p).log().sum()
        path += (which["any"],)
        read = sum(([cell, cell][index] for index in which["any"]), 0 * cell) / (1 + len(which["any"]))
        of_last = self.once(*path, compute=lambda: self.limited(c.head[:2] @ self.step(read)).log_softmax(0))
        return total + of_last[which["last"][0]]

    def _op(self, read: Tensor, free: Tensor, stem: Tensor) -> tuple[Tensor, Tensor]:
        op = self.step(read)
        return op, self.scores(op, [free, stem, op]).log_softmax(0)

    def _cell(self, read: Tensor, start: Tensor, stem: Tensor, free: list[Tensor]) -> tuple[Tensor, Tensor]:
        cell = state = self.step(read)
        if self.controller.script._exit_step:
            state = self.step(start)
        scores = self.scores(state, [stem, cell, *free])
        return cell, torch.stack([scores[list(pair)].sum() for pair in PAIRS]).log_softmax(0)

    def _any(self, read: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.scores(self.step(read), [cell, cell])
        p = torch.softmax(torch.stack([-q, q]), dim=0)[1]
        target = self.controller.skip_target
        penalty = (p * torch.log(p / target) + (1 - p) * torch.log((1 - p) / (1 - target))).sum()
        return p, penalty, -(p * torch.log(p) + (1 - p) * torch.log(1 - p)).sum()
