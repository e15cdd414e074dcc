"""Regularized evolution: the best of a few mutates, the oldest dies.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", arXiv:1802.01548
(Algorithm 1).
"""

from __future__ import annotations

from collections import deque

from nnas_core.plugins.arguments import check_count, check_flag
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import LearningTuner

__all__ = ["EvolutionTuner"]

_TRIES = 100
"""Children that may turn out to be known before one is drawn at random; reached only near exhaustion."""


class EvolutionTuner(LearningTuner):
    """Ageing evolution on architectures of any kind of choice.

    The first trials are drawn at random until ``population`` of them succeeded. Then each proposal is the
    best of ``sample`` members, drawn with replacement, with another decision at one key. A trial that
    succeeds joins the population and the oldest member leaves it, however good; a failed one never joins. Of several
    objectives, the best is the member that the fewest others beat in all of them.

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

    name = "evolution"
    serves_objectives = True

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
        self._size = population
        self._sample = sample
        self._repeats = repeats
        self._population: deque[tuple[Code, float]] = deque(maxlen=population)  # the oldest first

    def _begin(self) -> None:
        """Begins with an empty population."""
        self._population.clear()

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Lets the architecture join the population."""
        self._population.append((code, value))  # maxlen lets the oldest go

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes a random architecture while the population grows, a child of the population after that."""
        growing = len(self._population) < self._size
        if self._repeats:
            return self._unseen.any(self._rng) if growing else self._child()
        if growing or not self._unseen:
            return self._unseen.draw(self._rng)
        for _ in range(_TRIES):
            if (child := self._child()) in self._unseen:
                return child
        return self._unseen.draw(self._rng)

    def _child(self) -> Code:
        drawn = self._rng.integers(len(self._population), size=self._sample).tolist()
        worth = self._worth if self._several else lambda member: member[1]
        parent, _ = max((self._population[place] for place in drawn), key=worth)
        return self._codes.mutate(parent, self._rng)

    def _worth(self, member: tuple[Code, float]) -> float:
        """Returns, of several objectives, how many members do not beat this one."""
        own = self._vectors[member[0]]
        others = (self._vectors[code] for code, _ in self._population)
        return -sum(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in others)
