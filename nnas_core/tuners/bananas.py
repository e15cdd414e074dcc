"""An ensemble of small networks predicts values; what is best in a draw from its predictions is tried next.

Source: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural
Architecture Search", arXiv:1910.11858 (Algorithm 1, with independent Thompson sampling).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnas_core.errors import UsageError
from nnas_core.plugins.arguments import check_count, check_range
from nnas_core.space.encoding import Code
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._code_tuner import LearningTuner
from nnas_core.tuners._ranks import ranks

__all__ = ["BananasTuner", "Ensemble", "features", "thompson"]

_Array = NDArray[np.float64]

_TRIES = 20
"""Mutations in a row that may lead to known architectures before a candidate is given up."""


class BananasTuner(LearningTuner):
    """Bayesian optimization with an ensemble of networks instead of a Gaussian process.

    The first ``num_init`` architectures are drawn at random. Then, again and again, the ensemble is trained from
    scratch on all values that are known; ``num_candidates`` are made, each from one of the ``num_best`` best by
    mutations of one key, as many as it takes to come to an unknown architecture; each candidate gets a value drawn
    from the normal distribution with the mean and deviation of its predictions; and the ``batch_size`` highest are
    proposed, one after the other. They are all proposed before the ensemble is trained again, whatever results come
    meanwhile, so that trials may run at the same time.

    The networks learn the rank of a value among all that are known, from -1 to 1, so it does not matter what the
    values measure, nor how bad the bad ones are. A trial that fails is not learned.

    ``encoding`` says what they see of an architecture. All inputs are 0 or 1:

    - ``"adjacency"``: one input for each key and candidate, 1 where it is chosen.
    - ``"path"``: the same, and one input for each two candidates (up to ``path_length`` of them) of keys that follow
      each other in the search space, 1 where all of them are chosen. Keys with one decision are left out. The paper
      encodes the paths from the input of a cell to its output. A search space does not say which candidate feeds which,
      so this takes the order of the keys for that of the data: right for a chain of layers, and otherwise only pairs
      of neighbouring keys.

    Args:
        encoding: ``"adjacency"`` or ``"path"``.
        path_length: candidates in the longest path, at least 2; only for ``"path"``.
        num_init: random architectures to begin with, at least 2.
        batch_size: proposals from one training of the ensemble; 10 in the paper.
        num_ensemble: networks.
        num_candidates: how many the proposals are chosen from, at least ``batch_size``; 100 in the paper.
        num_best: how many of the best known architectures candidates are made from.
        layers: hidden layers of a network; 10 in the paper.
        width: units in each.
        epochs: steps of a training, each on all values.
        learning_rate: of Adam at the first step, positive; it falls to 0 by a cosine.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    name = "bananas"

    def __init__(
        self,
        encoding: Literal["adjacency", "path"] = "adjacency",
        path_length: int = 2,
        num_init: int = 10,
        batch_size: int = 5,
        num_ensemble: int = 5,
        num_candidates: int = 300,
        num_best: int = 3,
        layers: int = 3,
        width: int = 20,
        epochs: int = 150,
        learning_rate: float = 0.01,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        if encoding not in ("adjacency", "path"):
            raise UsageError(f"bananas: encoding must be adjacency or path, not {encoding!r}")
        check_count("bananas: path_length", path_length, 2)
        check_count("bananas: num_init", num_init, 2)
        check_count("bananas: batch_size", batch_size)
        check_count("bananas: num_ensemble", num_ensemble)
        check_count("bananas: num_candidates", num_candidates, batch_size)
        check_count("bananas: num_best", num_best)
        check_count("bananas: layers", layers)
        check_count("bananas: width", width)
        check_count("bananas: epochs", epochs)
        check_range("bananas: learning_rate", learning_rate, "(0, inf)")
        self._length = path_length if encoding == "path" else 1
        self._init = num_init
        self._batch = batch_size
        self._networks = num_ensemble
        self._candidates = num_candidates
        self._parents = num_best
        self._hidden = [width] * layers
        self._epochs = epochs
        self._rate = learning_rate

    def _begin(self) -> None:
        """Begins with random architectures."""
        self._values: dict[Code, float] = {}
        self._next: list[Code] = []  # chosen and not yet proposed, the best last

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes a random architecture while few are known, the next of those that were chosen after that."""
        if len(self._values) < self._init or not self._unseen:
            return self._unseen.draw(self._rng)
        self._next = [code for code in self._next if code in self._unseen]  # some may have been imported
        if not self._next:
            self._next = self._choose()[::-1]
        return self._next.pop() if self._next else self._unseen.draw(self._rng)

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Remembers the value for the next training; trials of elsewhere count among the first ``num_init``."""
        self._values[code] = value

    def _choose(self) -> list[Code]:
        """Returns the candidates with the highest draws, the best first; fewer, or none, where few are unknown."""
        known = list(self._values)
        candidates = self._mutated(sorted(known, key=self._values.__getitem__, reverse=True)[: self._parents])
        if len(candidates) <= 1:
            return candidates
        inputs = self._encoded([*known, *candidates])
        ensemble = Ensemble(self._networks, [inputs.shape[1], *self._hidden, 1], self._rng)
        ensemble.fit(inputs[: len(known)], ranks(list(self._values.values())), self._epochs, self._rate)
        drawn = thompson(ensemble.predict(inputs[len(known) :]), self._rng)
        return [candidates[place] for place in np.argsort(-drawn, kind="stable")[: self._batch].tolist()]

    def _mutated(self, parents: list[Code]) -> list[Code]:
        """Different unknown architectures, near to the parents."""
        found: dict[Code, None] = {}
        for _ in range(self._candidates):
            code = parents[int(self._rng.integers(len(parents)))]
            for _ in range(_TRIES):
                code = self._codes.mutate(code, self._rng)
                if self._unseen.may_have(code) and code not in found:
                    found[code] = None
                    break
        return list(found)

    def _encoded(self, codes: list[Code]) -> _Array:
        """Returns the inputs ``[len(codes), I]``, without those that are 0 for all of them."""
        columns: dict[tuple[int, ...], int] = {}
        rows = [
            [columns.setdefault(feature, len(columns)) for feature in features(self._codes.space, code, self._length)]
            for code in codes
        ]
        inputs = np.zeros((len(codes), len(columns)))
        for row, ones in zip(inputs, rows, strict=True):
            row[ones] = 1.0
        return inputs


def features(space: SearchSpace, code: Code, length: int) -> list[tuple[int, ...]]:
    """Returns the inputs that are 1 for an architecture.

    Args:
        space: of the architecture.
        code: the architecture.
        length: candidates in the longest path; 1: no more than which candidates are chosen.

    Returns:
        Tuples of the number of a key, among those with more than one decision, and of the indices of candidates that
        are chosen there and at the keys after it.
    """
    chosen = [
        (number,) if choice.n_chosen == 1 else choice.decision(number)
        for choice, number in zip(space, code, strict=True)
        if choice.size > 1
    ]
    return [
        (start, *path)
        for size in range(1, length + 1)
        for start in range(len(chosen) - size + 1)
        for path in itertools.product(*chosen[start : start + size])
    ]


def thompson(predictions: _Array, rng: np.random.Generator) -> _Array:
    """Independent Thompson sampling (section 4 of the paper).

    Args:
        predictions: ``[M, B]``, of M networks.
        rng: of the draws.

    Returns:
        ``[B]``: for each column a draw from the normal distribution with the mean and the deviation of its
        predictions (divisor M - 1; no deviation where M is 1).
    """
    networks = len(predictions)
    deviation = predictions.std(axis=0, ddof=1) if networks > 1 else np.zeros(predictions.shape[1])
    drawn: _Array = predictions.mean(axis=0) + deviation * rng.standard_normal(predictions.shape[1])
    return drawn


class Ensemble:
    """Networks of equal sizes that are trained together, each from its own random weights.

    Fully connected, with rectified linear units. The loss is the mean absolute error, which bad outliers move little.

    Args:
        count: M, how many networks.
        sizes: of the layers, the inputs first and the output, 1, last.
        rng: of the weights: normal with variance 2 / inputs of the layer (He et al., arXiv:1502.01852); biases are 0.

    Attributes:
        parameters: all of them in one vector.
    """

    def __init__(self, count: int, sizes: Sequence[int], rng: np.random.Generator) -> None:
        self._shapes = [(count, rows + 1, columns) for rows, columns in itertools.pairwise(sizes)]  # the bias last
        self.parameters = np.empty(sum(map(math.prod, self._shapes)))
        for weights in self._layers(self.parameters):
            rows = weights.shape[1] - 1
            weights[:, :-1] = rng.standard_normal((count, rows, weights.shape[2])) * math.sqrt(2 / max(rows, 1))
            weights[:, -1] = 0.0

    def _layers(self, vector: _Array) -> list[_Array]:
        """Returns the layers ``[M, inputs + 1, outputs]`` as views of a vector."""
        ends = list(itertools.accumulate(map(math.prod, self._shapes), initial=0))
        return [
            vector[start:end].reshape(shape)
            for (start, end), shape in zip(itertools.pairwise(ends), self._shapes, strict=True)
        ]

    def _forward(self, inputs: _Array) -> list[_Array]:
        """Returns the input of each layer, and after them the output of the last, ``[M, B, 1]``."""
        states = [inputs]
        layers = self._layers(self.parameters)
        for number, weights in enumerate(layers, start=1):
            output = states[-1] @ weights[:, :-1]
            output += weights[:, -1:]
            states.append(output if number == len(layers) else np.maximum(output, 0.0, out=output))
        return states

    def predict(self, inputs: _Array) -> _Array:
        """Returns the predictions ``[M, B]`` for inputs ``[B, I]``."""
        return self._forward(inputs)[-1][:, :, 0]

    def gradient(self, inputs: _Array, targets: _Array) -> _Array:
        """Differentiates the sum of the mean absolute errors of all networks, in the order of ``parameters``.

        Args:
            inputs: ``[B, I]``.
            targets: ``[B]``.
        """
        states = self._forward(inputs)
        gradient = np.empty_like(self.parameters)
        flowing = np.sign(states.pop() - targets[:, None]) / len(targets)
        for weights, into in zip(self._layers(self.parameters)[::-1], self._layers(gradient)[::-1], strict=True):
            state = states.pop()
            np.matmul(state.swapaxes(-1, -2), flowing, out=into[:, :-1])
            into[:, -1] = flowing.sum(axis=1)
            if states:
                flowing = (flowing @ weights[:, :-1].swapaxes(1, 2)) * (state > 0.0)
        return gradient

    def fit(self, inputs: _Array, targets: _Array, steps: int, learning_rate: float) -> None:
        """Trains by Adam (Kingma and Ba, arXiv:1412.6980) with all values in each step.

        Args:
            inputs: ``[B, I]``.
            targets: ``[B]``.
            steps: how many.
            learning_rate: of the first step; it falls to 0 by a cosine.
        """
        mean, square = np.zeros_like(self.parameters), np.zeros_like(self.parameters)
        for step in range(1, steps + 1):
            gradient = self.gradient(inputs, targets)
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            rate = learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / steps))
            rate *= math.sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
            self.parameters -= rate * mean / (np.sqrt(square) + 1e-8)
