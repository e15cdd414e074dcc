"""Drawing architectures from the policy: one step after another in numpy, which is quicker than torch at this size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnas_core.mutators._controller.steps import Place, Script

__all__ = ["Arrays", "Draws", "Numbers", "draw"]

Numbers = NDArray[Any]
"""An array in the type of the parameters."""


@dataclass(frozen=True)
class Draws:
    """Architectures that were drawn.

    Attributes:
        masks: ``[B, N]``, bool: the chosen candidates of all keys, side by side.
        drawn: for each key the probabilities of what was drawn there, as factors and a divisor ``[B]``.
    """

    masks: NDArray[np.bool_]
    drawn: Sequence[tuple[Numbers, Numbers | float]]

    @property
    def log_probability(self) -> NDArray[np.float64]:
        """``[B]``."""
        probabilities = np.stack([factor.astype(np.float64) / divisor for factor, divisor in self.drawn])
        logarithms: NDArray[np.float64] = np.log(probabilities).sum(axis=0)
        return logarithms


@dataclass(frozen=True)
class Arrays:
    """The parameters of a policy.

    Attributes:
        below, own: of each layer of the LSTM, ``[H, 4H]``: what becomes of its input and of its own state. The columns
            are torch's input, forget, cell and output gates; all but those of the cell are halved, because
            ``sigmoid(x) = (1 + tanh(x / 2)) / 2`` lets one tanh serve all gates.
        embedding: ``[1 + rows, 4H]``, what becomes of each embedding in the first layer.
        head: ``[rows, H]``.
        anchor, query, score: ``[H, H]``, ``[H, H]`` and ``[H]``.
        tanh_constant, temperature: of the logits.
    """

    below: list[Numbers]
    own: list[Numbers]
    embedding: Numbers
    head: Numbers
    anchor: Numbers
    query: Numbers
    score: Numbers
    tanh_constant: float | None
    temperature: float | None

    def limited(self, logits: Numbers) -> Numbers:
        """Logits after temperature and tanh."""
        if self.temperature is not None:
            logits = logits / self.temperature
        return logits if self.tanh_constant is None else self.tanh_constant * np.tanh(logits)


def draw(script: Script, arrays: Arrays, numbers: NDArray[np.float64]) -> Draws:
    """Draw as many architectures as ``numbers`` has rows.

    Args:
        script: of the policy.
        arrays: its parameters.
        numbers: ``[B, script.numbers]``, uniform in [0, 1).
    """
    return _Sampler(script, arrays, numbers).run()


class _Sampler:
    def __init__(self, script: Script, arrays: Arrays, numbers: NDArray[np.float64]) -> None:
        self._script = script
        self._arrays = arrays
        self._numbers = numbers
        count, size = len(numbers), arrays.head.shape[1]
        zeros = np.zeros((count, size), dtype=arrays.head.dtype)
        self._hidden = [zeros] * len(arrays.own)  # [B, H] a layer
        self._cells = [zeros] * len(arrays.own)
        self._states: list[Numbers] = []  # [B, H] a step, of the last layer
        self._keys: dict[int, Numbers] = {}  # anchors of steps that an InputChoice has looked at
        self._masks = np.zeros((count, script.width), dtype=np.bool_)
        self._columns: list[Numbers] = []  # [B] a LayerChoice: what was drawn
        self._drawn: list[tuple[Numbers, Numbers | float]] = []
        self._used = 0  # numbers
        self._rows = np.arange(count)

    def run(self) -> Draws:
        places = iter([*self._script.places, None])
        place = next(places)
        start: Numbers = self._arrays.embedding[:1]
        pending = start  # what the step after a decision reads, as it comes out of `below`
        for step, read in enumerate(self._script.reads):
            self._advance(start if read is None else pending)
            if place is not None and place.step == step:
                pending = self._decide_layer(place) if place.is_layer else self._decide_inputs(place)
                place = next(places)
        if self._columns:
            self._masks[self._rows[:, None], np.stack(self._columns, axis=1)] = True
        return Draws(self._masks, self._drawn)

    def _advance(self, gates: Numbers) -> None:
        """One step of the LSTM; most of the time goes here, so arrays are used again where that can be."""
        size = self._arrays.head.shape[1]
        for layer, own in enumerate(self._arrays.own):
            if layer:
                gates = np.dot(self._hidden[layer - 1], self._arrays.below[layer])
            active = np.dot(self._hidden[layer], own)
            active += gates
            np.tanh(active, out=active)
            opened = active * 0.5
            opened += 0.5
            cell = opened[:, size : 2 * size] * self._cells[layer]
            cell += opened[:, :size] * active[:, 2 * size : 3 * size]
            hidden = np.tanh(cell)
            hidden *= opened[:, 3 * size :]
            self._hidden[layer], self._cells[layer] = hidden, cell
        self._states.append(self._hidden[-1])

    def _decide_layer(self, place: Place) -> Numbers:
        """Decide a LayerChoice; what the next step reads of it."""
        last = place.row + len(place.choice.candidates)
        chosen = self._draw_one(self._arrays.limited(np.dot(self._hidden[-1], self._arrays.head[place.row : last].T)))
        self._columns.append(place.start + chosen)
        embedded: Numbers = self._arrays.embedding[1 + place.row + chosen]
        return embedded

    def _decide_inputs(self, place: Place) -> Numbers:
        """Decide an InputChoice; likewise."""
        arrays = self._arrays
        count = len(place.anchors)
        anchors = np.stack([self._states[step] for step in place.anchors], axis=1)  # [B, n, H]
        keys = np.stack([self._key(step) for step in place.anchors], axis=1)
        query = np.dot(self._hidden[-1], arrays.query.T)
        scores = arrays.limited(np.dot(np.tanh(keys + query[:, None]), arrays.score))
        if place.is_any:
            p = 0.5 * np.tanh(scores) + 0.5  # sigmoid(2 scores)
            mask = self._numbers[:, self._used : self._used + count] < p
            self._used += count
            self._drawn.append((np.where(mask, p, 1 - p).prod(axis=1), 1.0))
        else:
            subsets = self._script.subsets[place.choice.key]
            mask = subsets[self._draw_one(np.dot(scores, subsets.T.astype(scores.dtype)))]
        self._masks[:, place.columns] = mask
        read = (mask[:, :, None] * anchors).sum(axis=1) / place.divisor(mask.sum(axis=1, keepdims=True))
        gates: Numbers = np.dot(read.astype(scores.dtype), arrays.below[0])
        return gates

    def _key(self, step: int) -> Numbers:
        if step not in self._keys:
            self._keys[step] = np.dot(self._states[step], self._arrays.anchor.T)
        return self._keys[step]

    def _draw_one(self, logits: Numbers) -> NDArray[np.intp]:
        """An index a row ``[B]``, by the softmax of ``[B, n]``."""
        weights = np.exp(logits - np.maximum.reduce(logits, axis=1, keepdims=True))
        sums = np.add.accumulate(weights, axis=1)
        number = self._numbers[:, self._used : self._used + 1] * sums[:, -1:]
        self._used += 1
        # the last sum needs no look: what no other takes is left for it
        chosen: NDArray[np.intp] = np.add.reduce(sums[:, :-1] <= number, axis=1, dtype=np.intp)
        self._drawn.append((weights[self._rows, chosen], sums[:, -1]))
        return chosen
