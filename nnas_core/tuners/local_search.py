"""Climb to a local optimum by the smallest steps, then start again somewhere else.

Source: White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", arXiv:2005.02960
(Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator

from nnas_core.plugins.arguments import check_count, check_flag
from nnas_core.space.encoding import Code, shuffled
from nnas_core.tuners._code_tuner import LearningTuner

__all__ = ["LocalSearchTuner"]


class LocalSearchTuner(LearningTuner):
    """Hill climbing with restarts, in which no architecture is tried twice.

    A climb begins at the best of ``num_init`` random architectures. Their neighbours are tried in random order,
    until one is better (or all, see ``query_full_neighbourhood``); the climb goes on from there. Where no neighbour
    is better, the next climb begins. A neighbour that is known from before costs no trial: its value counts.

    Neighbours differ at one key, by the smallest step: another candidate, where one is chosen; where any number may
    be, one enters or leaves; where k of n are, one of the chosen makes room for another. So a choice among 2^100
    subsets has 100 neighbours, and they are drawn one by one.

    Where trials run at the same time, a climb does not wait for those that are unfinished. A result that comes when
    the next climb has begun, and is better than the optimum that its own climb seemed to have, joins the new climb.

    A trial that fails is no step. Where all random ones of a start fail, more are drawn.

    Args:
        num_init: random architectures that a climb begins with, at least 1.
        query_full_neighbourhood: True tries all neighbours and goes to the best of them, as the paper's Algorithm 1;
            False goes to the first that is better, the paper's variant for large neighbourhoods.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    name = "local-search"

    def __init__(
        self,
        num_init: int = 10,
        query_full_neighbourhood: bool = False,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("local-search: num_init", num_init)
        check_flag("local-search: query_full_neighbourhood", query_full_neighbourhood)
        self._starts = num_init
        self._full = query_full_neighbourhood

    def _begin(self) -> None:
        """Begins with the first climb."""
        self._values: dict[Code, float] = {}
        self._optima: list[float] = []  # where the climbs that are over ended
        self._running: dict[int, int] = {}  # proposals without a result: their climbs
        self._begin_climb()

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes a random architecture where a climb begins, a neighbour of the best after that."""
        code = self._next_step() if self._unseen else None
        if code is not None:
            self._running[parameter_id] = len(self._optima)
        return code

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Lets the architecture be the next step of the climb if it is the best of it.

        One that was tried elsewhere stands for a random one of the climb's start.
        """
        climb = len(self._optima)
        if parameter_id is None:
            self._started += 1
        else:
            climb = self._running.pop(parameter_id, climb)
        self._values[code] = value
        if climb == len(self._optima) or value > self._optima[climb]:
            self._consider(code)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Forgets the proposal of a trial that failed."""
        self._running.pop(parameter_id, None)

    def _begin_climb(self) -> None:
        self._started = 0
        self._top: Code | None = None  # the best of this climb
        self._centre: Code | None = None  # whose neighbours are tried; None until the climb has its random ones
        self._order: Iterator[int] = iter(())  # of the neighbours that are left

    def _consider(self, code: Code) -> None:
        if self._top is None or self._values[code] > self._values[self._top]:
            self._top = code

    def _next_step(self) -> Code | None:
        while True:
            if self._top is None or (self._centre is None and self._started < self._starts):
                self._started += 1
                return self._unseen.draw(self._rng)
            if self._centre is not None and (code := self._neighbour(self._centre)) is not None:
                return code
            if self._centre != self._top:  # each step is strictly better than the one before, so a climb ends
                self._centre = self._top
                self._order = shuffled(self._rng, self._codes.degree)
            else:
                self._optima.append(self._values[self._top])
                self._begin_climb()

    def _neighbour(self, centre: Code) -> Code | None:
        """Returns the next unseen neighbour; None where all were tried, or the climb can go on from a better one."""
        while self._full or self._top == centre:
            index = next(self._order, None)
            if index is None:
                break
            code = self._codes.neighbour(centre, index)
            if code in self._unseen:
                return code
            if code in self._values:
                self._consider(code)
        return None
