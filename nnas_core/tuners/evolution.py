"""Regularized evolution: the best of a few mutates, the oldest dies.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", arXiv:1802.01548
(Algorithm 1).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from nnas_core.plugins.arguments import check_count, check_flag, sign_of
from nnas_core.randomness import generator
from nnas_core.space.encoding import Code, Codes, Unseen
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["EvolutionTuner"]

_TRIES = 100
"""Children that may turn out to be known before one is drawn at random; reached only near exhaustion."""


class EvolutionTuner(Tuner):
    """Ageing evolution on architectures of any kind of choice.

    The first trials are drawn at random until ``population`` of them succeeded. Then each proposal is the
    best of ``sample`` members, drawn with replacement, with another decision at one key. A trial that
    succeeds joins the population and the oldest member leaves it, however good; a failed one never joins.

    Args:
        population: members that live at a time; the paper's searches on CIFAR-10 use 100.
        sample: members that compete to be the parent; the paper's searches use 25.
        repeats: True is the paper's algorithm to the letter, which may propose an architecture again; False
            proposes each once, and ends when the space is exhausted.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        population: int = 20,
        sample: int = 5,
        repeats: bool = False,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("evolution: population", population)
        check_count("evolution: sample", sample)
        check_flag("evolution: repeats", repeats)
        self._sign = sign_of("evolution: optimize_mode", optimize_mode)
        self._size = population
        self._sample = sample
        self._repeats = repeats
        self._rng = generator(seed, "tuner", "evolution")
        self._population: deque[tuple[Code, float]] = deque(maxlen=population)  # the oldest first

    def update_search_space(self, search_space: dict[str, Any]) -> None:
        """Begin with an empty population in a space of which nothing was seen."""
        self._codes = Codes(SearchSpace.from_json(search_space))
        self._unseen = Unseen(self._codes)
        self._population.clear()

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        """Propose a random architecture while the population grows, a child of the population after that.

        Raises:
            NoMoreTrials: without repeats, when every architecture of the space was proposed or imported.
        """
        code = self._propose()
        if code is None:
            raise NoMoreTrials
        self._unseen.see(code)
        return self._codes.parameters(code)

    def receive_trial_result(self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any) -> None:
        """Let the architecture join the population."""
        self._join(self._codes.read(parameters), value)

    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Let architectures that were tried elsewhere join the population, in the order given.

        Those without a finite value only count as known.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for code, value in self._codes.trials(data):
            if value is None:
                self._unseen.see(code)
            else:
                self._join(code, value)

    def _join(self, code: Code, value: float) -> None:
        self._unseen.see(code)
        self._population.append((code, self._sign * value))  # maxlen lets the oldest go

    def _propose(self) -> Code | None:
        growing = len(self._population) < self._size
        if self._repeats:
            return self._codes.sample(self._rng) if growing else self._child()
        if growing or not self._unseen:
            return self._unseen.draw(self._rng)
        for _ in range(_TRIES):
            if (child := self._child()) in self._unseen:
                return child
        return self._unseen.draw(self._rng)

    def _child(self) -> Code:
        drawn = self._rng.integers(len(self._population), size=self._sample).tolist()
        parent, _ = max((self._population[place] for place in drawn), key=lambda member: member[1])
        return self._codes.mutate(parent, self._rng)
