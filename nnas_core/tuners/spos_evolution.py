"""Evolution in rounds: the best ones mutate and are crossed; made for supernets with inherited weights.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420
(Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable

from nnas_core.errors import UsageError
from nnas_core.plugins.arguments import check_count, check_range
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import LearningTuner

__all__ = ["SposEvolutionTuner"]

_TRIES = 10
"""Children drawn for each one wanted, before the rest is drawn at random; of the paper's program and of NNI."""


class SposEvolutionTuner(LearningTuner):
    """Rounds of architectures: mutations, then crossovers of the best so far, then random ones.

    The first round is random. Each later one is made when it is first asked for, from the ``num_select`` best of
    all rounds: ``num_mutation`` mutations of random members, in which each key is drawn anew with probability
    ``m_prob``; ``num_crossover`` crossovers, which take the decision at each key from one of two random members;
    and random architectures up to ``num_population``. What was proposed before is not proposed again; where tries
    do not suffice to find new children, random ones take their place. The last round of a small space is shorter.

    The best of a round are known only in part where trials run at the same time and some are unfinished when the
    next round is made. It is made of what is known then, and the late ones count for the round after it.

    A trial that fails is never among the best.

    Args:
        max_epochs: rounds, the random one included; with the defaults 20 times 50 architectures, as in the paper.
        num_select: members that are mutated and crossed, at least 1.
        num_population: architectures a round, at least 1.
        m_prob: probability that a key of a mutation is drawn anew, from 0 to 1; the present decision may come again.
        num_crossover: crossovers a round.
        num_mutation: mutations a round; with the crossovers, at most ``num_population``.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range, or a round would have more children than ``num_population``.
    """

    name = "spos-evolution"

    def __init__(
        self,
        max_epochs: int = 20,
        num_select: int = 10,
        num_population: int = 50,
        m_prob: float = 0.1,
        num_crossover: int = 25,
        num_mutation: int = 25,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("spos-evolution: max_epochs", max_epochs)
        check_count("spos-evolution: num_select", num_select)
        check_count("spos-evolution: num_population", num_population)
        check_range("spos-evolution: m_prob", m_prob, "[0, 1]")
        check_count("spos-evolution: num_crossover", num_crossover, 0)
        check_count("spos-evolution: num_mutation", num_mutation, 0)
        if num_crossover + num_mutation > num_population:
            raise UsageError(
                f"spos-evolution: num_crossover={num_crossover} and num_mutation={num_mutation} are more than "
                f"num_population={num_population}",
                hint="make num_population at least their sum; what it has more is drawn at random",
            )
        self._rounds = max_epochs
        self._select = num_select
        self._size = num_population
        self._m_prob = m_prob
        self._crossovers = num_crossover
        self._mutations = num_mutation

    def _begin(self) -> None:
        """Begins before the first round."""
        self._made = 0
        self._round: list[Code] = []  # what is left of it, the next one last
        self._best: dict[Code, float] = {}  # the best first

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes the next architecture of the round, or the first of the next one; None after the last round."""
        if not self._round:
            if self._made == self._rounds or not self._unseen:
                return None
            self._round = self._next_round()[::-1]
            self._made += 1
        return self._round.pop()

    def _see(self, code: Code) -> None:
        super()._see(code)
        if code in self._round:  # tried elsewhere since the round was made
            self._round.remove(code)

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Ranks the architecture among the best so far; one of elsewhere belongs to no round."""
        known = {**self._best, code: value}
        # stable: of equal ones the older is the better
        self._best = dict(sorted(known.items(), key=lambda member: member[1], reverse=True)[: self._select])

    def _next_round(self) -> list[Code]:
        made: list[Code] = []
        members = list(self._best)
        if self._made and members:
            made += self._children(self._mutations, lambda: self._mutation(members))
            made += self._children(self._crossovers, lambda: self._crossover(members))
        while len(made) < self._size and (code := self._unseen.draw(self._rng)) is not None:
            made.append(code)
        return made

    def _children(self, count: int, make: Callable[[], Code]) -> list[Code]:
        """Unseen children, ``count`` at most; they are seen from now on."""
        children: list[Code] = []
        for _ in range(_TRIES * count):
            if len(children) == count:
                break
            if (child := make()) in self._unseen:
                self._unseen.see(child)
                children.append(child)
        return children

    def _mutation(self, members: list[Code]) -> Code:
        parent = self._member(members)
        anew = (self._rng.random(len(parent)) < self._m_prob).tolist()
        return tuple(
            new if drawn else old for old, new, drawn in zip(parent, self._unseen.any(self._rng), anew, strict=True)
        )

    def _crossover(self, members: list[Code]) -> Code:
        one, other = self._member(members), self._member(members)
        first = (self._rng.random(len(one)) < 0.5).tolist()
        return tuple(a if taken else b for a, b, taken in zip(one, other, first, strict=True))

    def _member(self, members: list[Code]) -> Code:
        return members[int(self._rng.integers(len(members)))]
