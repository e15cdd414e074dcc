"""Row 18: sampling from the controller of ENAS, and the gradient, against one LSTM call a mutable.

An InputChoice is the hard case: what is read after it depends on earlier states, so the LSTM is called anew. With one
in every cell, a single sample takes about as long as in the plain way; but a step of the training has 20 by default,
which take little longer than one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F
from harness import Line, Turn, compare, ratios, shown
from nets import Tiny, supernet
from torch import Tensor

from nnas_core import InputChoice, LayerChoice, MutableScope
from nnas_core.mutators.enas import EnasMutator

MUTABLES = 100
INPUTS = 4
"""That an InputChoice of the second network chooses one of."""


def row_18(rounds: int) -> Iterator[Line]:
    """How many times quicker it is: one architecture, the default of 20, and with an InputChoice in every cell."""
    layers, cells = Tiny(supernet, depth=MUTABLES), Cells(MUTABLES // 2)
    for model, count, where in (
        (layers, 1, f"{MUTABLES} LayerChoices"),
        (layers, 20, f"{MUTABLES} LayerChoices, 20 samples"),
        (cells, 20, f"{MUTABLES // 2} LayerChoices and as many InputChoices, 20 samples"),
    ):
        mutator = EnasMutator(model, torch.Generator().manual_seed(0))
        plain = Plain(mutator)

        def ours(mutator: EnasMutator = mutator, count: int = count) -> None:
            masks = mutator.draw(count)
            loss, _ = mutator.surrogate(masks, [0.5] * count)
            mutator.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]

        def theirs(plain: Plain = plain, count: int = count) -> None:
            loss = torch.stack([plain.sample(0.5) for _ in range(count)]).mean()
            plain.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]

        def sides(number: int, ours: Turn = ours, theirs: Turn = theirs) -> dict[str, Turn]:
            return {"nnas": ours, "plain": theirs}

        seconds = compare(sides, rounds if count == 1 else min(rounds, 5), turns=3)
        what = f"controller, sampling and gradient, {where}, against one LSTM call a mutable"
        yield Line(18, what, "x", 1.5, ratios(seconds, "plain", "nnas"), at_least=True, note=shown(seconds))
        mutator.unbind()


class Cells(nn.Module):
    """``depth`` scopes: a LayerChoice of four, and an InputChoice of one of the ``INPUTS`` cells before."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(Cell(number) for number in range(depth))


class Cell(MutableScope):
    """One of them; nothing is computed here."""

    def __init__(self, number: int) -> None:
        super().__init__(f"cell{number}")
        before = [f"cell{one}" for one in range(max(0, number - INPUTS), number)]
        tags = [InputChoice.NO_KEY] * (INPUTS - len(before)) + before
        self.pick = InputChoice(choose_from=tags, n_chosen=1, key=f"pick{number}")
        self.op = LayerChoice([nn.Identity() for _ in range(4)], key=f"op{number}")


class Plain(nn.Module):
    """The same policy as NNI writes it: modules, called for one mutable after the other, with autograd throughout."""

    def __init__(self, mutator: EnasMutator) -> None:
        super().__init__()
        self.script = mutator.controller.script
        size = mutator.controller.lstm.hidden_size
        self.size = size
        self.lstm = nn.LSTMCell(size, size, bias=False)
        self.embedding = nn.Embedding(1 + self.script.rows, size)
        self.soft = nn.Linear(size, self.script.rows, bias=False)
        self.attn_anchor = nn.Linear(size, size, bias=False)
        self.attn_query = nn.Linear(size, size, bias=False)
        self.v_attn = nn.Linear(size, 1, bias=False)
        self.cross_entropy = nn.CrossEntropyLoss(reduction="none")

    def sample(self, reward: float) -> Tensor:
        """The loss of one architecture."""
        state = (torch.zeros(1, self.size), torch.zeros(1, self.size))
        start = read = self.embedding(torch.zeros(1, dtype=torch.long))
        log_prob = entropy = torch.zeros(1)
        decided = {place.step: place for place in self.script.places}
        hidden: list[Tensor] = []
        for step in range(len(self.script.reads)):
            state = self.lstm(read if self.script.reads[step] is not None else start, state)
            hidden.append(state[0])
            if step not in decided:
                continue
            place = decided[step]
            if place.is_layer:
                logits = 1.5 * torch.tanh(self.soft(state[0]))
            else:
                anchors = torch.cat([hidden[one] for one in place.anchors])
                query = torch.tanh(self.attn_anchor(anchors) + self.attn_query(state[0]))
                logits = 1.5 * torch.tanh(self.v_attn(query).view(1, -1))
            chosen = torch.multinomial(F.softmax(logits, dim=-1), 1).view(-1)
            one = self.cross_entropy(logits, chosen)
            log_prob = log_prob + one
            entropy = entropy + (one * torch.exp(-one)).detach()
            read = self.embedding(1 + chosen) if place.is_layer else anchors[chosen]
        return (log_prob * (reward + 1e-4 * entropy)).sum()
