"""A policy over architectures: an LSTM reads what was decided so far, and decides the next choice.

It is sampled in numpy, step by step and without autograd; what that gave is then evaluated for its gradient, with all
decisions known, in one call of the LSTM. Only the step after an InputChoice, which reads hidden states of earlier
steps, begins another call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nnas_core.mutables.tree import MutableTree
from nnas_core.mutators._controller.groups import Inputs, Layers, grouped
from nnas_core.mutators._controller.sampling import Arrays, Draws, draw
from nnas_core.mutators._controller.steps import Script
from nnas_core.space.choice import Decision

__all__ = ["INITIAL", "Controller", "Evaluated"]

INITIAL = 0.1
"""Parameters start uniformly between -INITIAL and INITIAL (section 3.1 of the paper)."""


@dataclass(frozen=True)
class Evaluated:
    """The policy's judgement of architectures; all ``[B]`` and differentiable.

    Attributes:
        log_probability: of the architecture. That of an InputChoice is the logarithm of the chosen *set's*
            probability, whatever order its inputs were drawn in.
        entropy: the sum, over the choices, of the entropy of what could have been decided there. Its mean over drawn
            architectures is an unbiased estimate of the entropy of the policy.
        penalty: the sum, over inputs that are each chosen or not, of the Kullback-Leibler divergence of that
            distribution from the one with probability ``skip_target``.
    """

    log_probability: Tensor
    entropy: Tensor
    penalty: Tensor


class Controller(nn.Module):
    """The policy: an LSTM, a head for LayerChoices, an attention over anchors for InputChoices.

    A LayerChoice is decided by the softmax of its head. An input has a score ``v tanh(A anchor + Q state)``. Where any
    number is taken, each input is chosen with probability ``sigmoid(2 score)``, that is ``softmax([-score, score])``.
    Where ``n_chosen`` are taken, a set's probability is proportional to the product of its ``exp(score)``: that of as
    many draws from the softmax, given that they differ. All logits and scores are divided by the temperature, and
    limited to ``tanh_constant`` by a tanh, first.

    The step after a LayerChoice reads the embedding of what was chosen; that after an InputChoice the sum of the
    chosen anchors, divided by one more than their number where that is free, else their mean (section 2.3, 2.4).

    Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", arXiv:1802.03268.

    Args:
        tree: of the model.
        generator: of the initial parameters; torch's default generator if None.
        size, layers: of the LSTM.
        tanh_constant, temperature: of all logits; None leaves them as they are.
        exit_step: see ``Script``.
        skip_target: 0 < skip_target < 1, see ``Evaluated.penalty``.
        mean_entropy: where any number of inputs is taken, count the mean of their entropies instead of the sum.
        dtype: of the parameters.

    Raises:
        BindingError: as ``Script``.
    """

    def __init__(
        self,
        tree: MutableTree,
        generator: torch.Generator | None = None,
        *,
        size: int = 64,
        layers: int = 1,
        tanh_constant: float | None = 1.5,
        temperature: float | None = None,
        exit_step: bool = False,
        skip_target: float = 0.4,
        mean_entropy: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.script = Script(tree, exit_step=exit_step)
        self.tanh_constant = tanh_constant
        self.temperature = temperature
        self.skip_target = skip_target
        self.mean_entropy = mean_entropy
        with torch.random.fork_rng(devices=[]):  # it fills its weights from the global generator
            self.lstm = nn.LSTM(size, size, layers, bias=False, dtype=dtype)
        self.embedding = nn.Parameter(torch.empty(1 + self.script.rows, size, dtype=dtype))  # the first: the start
        self.head = nn.Parameter(torch.empty(self.script.rows, size, dtype=dtype))
        self.anchor = nn.Parameter(torch.empty(size, size, dtype=dtype))
        self.query = nn.Parameter(torch.empty(size, size, dtype=dtype))
        self.score = nn.Parameter(torch.empty(size, dtype=dtype))
        for parameter in self.parameters():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_((2 * drawn - 1) * INITIAL)
        self._layers: Sequence[Layers] = grouped(self.script, Layers)
        self._inputs: Sequence[Inputs] = grouped(self.script, Inputs)
        homes = [(place.choice.key, len(place.choice.candidates)) for place in self.script.places]
        self._homes = [(key, index) for key, count in homes for index in range(count)]

    # ---- masks and decisions

    def decisions(self, mask: NDArray[np.bool_]) -> dict[str, Decision]:
        """The architecture of a mask ``[N]``, by key."""
        chosen: dict[str, Decision] = {place.choice.key: () for place in self.script.places}
        for column in np.flatnonzero(mask).tolist():
            key, index = self._homes[column]
            chosen[key] = (*chosen[key], index)
        return chosen

    def masks(self, architectures: Sequence[Mapping[str, Decision]]) -> NDArray[np.bool_]:
        """The masks ``[B, N]`` of architectures; the inverse of ``decisions``."""
        masks = np.zeros((len(architectures), self.script.width), dtype=np.bool_)
        for mask, architecture in zip(masks, architectures, strict=True):
            for place in self.script.places:
                mask[[place.start + index for index in architecture[place.choice.key]]] = True
        return masks

    # ---- with all decisions known

    def forward(self, masks: NDArray[np.bool_]) -> Evaluated:
        """Evaluate architectures, differentiably.

        Args:
            masks: ``[B, N]``, as ``draw`` and ``masks`` give them.
        """
        with torch.autocast(self.embedding.device.type, enabled=False):
            weights = torch.as_tensor(masks).to(self.embedding.device, self.embedding.dtype)
            hidden = self._hidden(weights)
            log_probability = entropy = penalty = weights.new_zeros(len(weights))
            for layers in self._layers:
                logits = self._limited(hidden[layers.steps] @ layers.rows_of(self.head).T)
                log_p, one = layers.evaluate(logits, weights)
                log_probability, entropy = log_probability + log_p, entropy + one
            keys, queries = (hidden @ self.anchor.T, hidden @ self.query.T) if self._inputs else (hidden, hidden)
            for inputs in self._inputs:
                state = torch.tanh(keys[inputs.anchors] + queries[inputs.steps].unsqueeze(1))  # [G, n, B, H]
                scores = self._limited(state @ self.score).permute(2, 0, 1)
                log_p, one, more = inputs.evaluate(scores, weights, self.skip_target, self.mean_entropy)
                log_probability, entropy, penalty = log_probability + log_p, entropy + one, penalty + more
        return Evaluated(log_probability, entropy, penalty)

    def _hidden(self, weights: Tensor) -> Tensor:
        """The states of all steps ``[T, B, H]``."""
        steps = len(self.script.reads)
        # one row more, for what is decided last: no step reads that
        rows = torch.zeros(steps + 1, len(weights), dtype=torch.long, device=weights.device)
        for layers in self._layers:
            rows[layers.readers] = 1 + layers.row + layers.chosen(weights).argmax(2).T
        inputs = F.embedding(rows[:steps], self.embedding)
        if not self._inputs:
            states: Tensor = self.lstm(inputs)[0]
            return states
        shares = weights.clone()  # of each chosen anchor in what is read next
        for group in self._inputs:
            shares[:, group.columns] = group.shares(weights)
        shares = shares.T.unsqueeze(2)  # [N, B, 1]
        pieces: list[Tensor] = []
        hidden: list[Tensor] = []
        state: tuple[Tensor, Tensor] | None = None
        for start, stop, place in self.script.segments:
            piece = inputs[start:stop]
            if place is not None:
                anchors = torch.stack([hidden[step] for step in place.anchors])
                read = (anchors * shares[place.columns]).sum(0, keepdim=True)
                piece = torch.cat([read, piece[1:]]) if stop > start + 1 else read
            output, state = self.lstm(piece, state)
            pieces.append(output)
            hidden += output.unbind()
        return torch.cat(pieces)

    def _limited(self, logits: Tensor) -> Tensor:
        if self.temperature is not None:
            logits = logits / self.temperature
        return logits if self.tanh_constant is None else self.tanh_constant * torch.tanh(logits)

    # ---- sampling

    def draw(self, count: int, generator: torch.Generator | None = None) -> Draws:
        """Draw architectures.

        Args:
            count: B, how many.
            generator: of the random numbers, on the CPU; torch's default generator if None.
        """
        numbers = torch.rand(count, self.script.numbers, generator=generator, dtype=torch.float64)
        return draw(self.script, self._arrays(), numbers.numpy())

    def _arrays(self) -> Arrays:
        halved = np.full(4 * self.lstm.hidden_size, 0.5, dtype=self.embedding.detach().cpu().numpy().dtype)
        halved[2 * self.lstm.hidden_size : 3 * self.lstm.hidden_size] = 1.0
        weights = [[_array(one).T * halved for one in layer] for layer in self.lstm.all_weights]
        return Arrays(
            below=[below for below, _ in weights],
            own=[own for _, own in weights],
            embedding=_array(self.embedding) @ weights[0][0],
            head=_array(self.head),
            anchor=_array(self.anchor),
            query=_array(self.query),
            score=_array(self.score),
            tanh_constant=self.tanh_constant,
            temperature=self.temperature,
        )


def _array(parameter: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = parameter.detach().cpu().numpy()
    return array
