"""Learn what values and failures depend on, and try where the largest improvement is expected.

Source: Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions", Journal of Global Optimization
13 (1998) (expected improvement); Gelbart et al., "Bayesian Optimization with Unknown Constraints", arXiv:1403.5607
(equation 2: times the probability of success); Snoek et al., "Practical Bayesian Optimization of Machine Learning
Algorithms", arXiv:1206.2944 (section 3.2: draws of what the kernel leaves open); Ginsbourger et al., "Kriging Is
Well-Suited to Parallelize Optimization", 2010 (trials at the same time); Odone et al., "Building Kernels from Binary
Strings for Image Matching", IEEE Transactions on Image Processing 14 (2005) (at how many keys a candidate is chosen:
the intersection of histograms); Knowles, "ParEGO", IEEE Transactions on Evolutionary Computation 10 (2006) (several
objectives: random weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnas_core.plugins.arguments import check_count
from nnas_core.space.encoding import Code
from nnas_core.tuners._code_tuner import LearningTuner
from nnas_core.tuners._coordinates import Coordinates, Counts, Pools, Rows, Shared, equal
from nnas_core.tuners._feasibility import Feasibility
from nnas_core.tuners._gaussian import Kernel, Posterior, Prior, bent
from nnas_core.tuners._normal import log_improvement

__all__ = ["BayesTuner"]

_Floats = NDArray[np.float64]

_GROWTH, _NEWEST = 8, 250
"""Kernels are chosen anew when there is an eighth more than at the last time, or so many more."""

_MOST_LISTED = 20_000
"""Architectures of a space that are all looked at before each proposal; in a larger one, it climbs."""

_MOST_VALUES, _MOST_ENDED = 500, 200
"""Values that a new model is made of: beyond that, the best half and the newest half. Newest trials of the other."""

_TOPS, _DRAWN = 5, 5
"""Climbs begin at the best so far, and at random architectures."""

_DRAWN_INSIDE = 100
"""Of which these are the best, where there are constraints: single steps lead nowhere from most of them."""

_MOST_MEASURED = 300
"""Architectures that may be measured in a row, and are beyond a bound."""

_ALL_COUNT = 0.05
"""Of several objectives: how much the sum counts beside the least."""

_MOST_STEPS = 500
"""Neighbours that are looked at from each point of a climb."""

_MOST_LOOKED, _MOST_WORK = 10_000, 500_000_000
"""Neighbours that are looked at for a proposal; fewer where each is compared with many."""


@dataclass(frozen=True)
class _Point:
    """Where a climb is.

    Attributes:
        row: ``[M]``.
        shared: ``[n]``: what it has in common with each that it is compared with.
        gain: there.
    """

    row: Rows
    shared: Shared
    gain: float


class BayesTuner(LearningTuner):
    """Bayesian optimization with Gaussian processes on decisions.

    After ``num_init`` random architectures, each proposal is the one whose expected improvement on the best so far,
    times the probability that its trial succeeds, is the highest: of all that were not tried in a space of up to
    20,000; of a larger one, where climbs along single decisions end that begin at the best and at random ones.

    How many decisions act together, how much it matters at which of several keys with the same candidates one is
    chosen, rather than at how many, how noisy values are, and on which scale they are normal, is drawn again and again
    with the probability that the values give it: few leave much open, and what seems likeliest then is often wrong. So
    neither units nor outliers matter much. Whether trials fail by what they try or at random is learned as well, by a
    model of its own; a failure says nothing about values. Of a trial that runs, the model expects what it predicts. No
    architecture is proposed twice.

    The choice of one candidate is one decision; where any number or k of n are chosen, each candidate is one, in or
    out. The work of a proposal grows with the number of values that the model is made of; beyond 500 these are the best
    250 and the newest ones. What makes trials fail is learned from the newest 200.

    Args:
        num_init: trials that ended, whether or not they succeeded, before the model is asked, at least 1; until then
            proposals are random. Imported ones count.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    name = "bayes"
    serves_objectives = True

    def __init__(self, num_init: int = 20, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        check_count("bayes: num_init", num_init)
        self._starts = num_init

    def _begin(self) -> None:
        """Begins with a space of which nothing is known."""
        self._coordinates = Coordinates(self._codes)
        self._pools = Pools()  # those that the model's kernel knows
        self._kernels = Kernel.all(self._coordinates.width)
        # several objectives have another sum at each proposal: pools, learned anew each time, found smaller volumes
        pooled = bool(self._coordinates.pools) and not self._several
        self._pooled = Kernel.all_pooled(self._coordinates.width) if pooled else []
        self._values: dict[Code, float] = {}  # in the order that they came
        self._ended: dict[Code, bool] = {}  # by trials here, in the order that they ended; true: it succeeded
        self._running: dict[int, Code] = {}
        self._fitted = 0  # values that the kernel was chosen by
        self._base: list[Code] = []
        self._feasibility: Feasibility | None = None
        self._judged = 0  # trials that its kernel was chosen by
        self._every: Rows | None = None
        if self._codes.size <= _MOST_LISTED:
            self._every = self._coordinates.rows(list(self._codes.all()))
            every = list(self._codes.all()) if self._region is not None else []
            self._untried = np.ones(len(self._every), dtype=bool)
            self._untried[: len(every)] = [self._unseen.may_have(code) for code in every]

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes a random architecture at first, then the one with the highest expected improvement."""
        ready = len(self._values.keys() | self._ended.keys()) >= self._starts and bool(self._unseen)
        if ready and self._several:
            self._weigh()
        code = self._best() if ready else self._unseen.draw(self._rng)
        if code is not None:
            self._running[parameter_id] = code
        return code

    def _weigh(self) -> None:
        """Makes one value of several objectives, with random weights: the least of them counts, and a little all."""
        vectors = np.array([self._vectors[code] for code in self._values])
        if not len(vectors):
            return
        lowest, highest = vectors.min(axis=0), vectors.max(axis=0)
        parts = (vectors - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
        weighted = parts * self._rng.dirichlet(np.ones(vectors.shape[1]))
        values = weighted.min(axis=1) + _ALL_COUNT * weighted.sum(axis=1)
        self._values = dict(zip(self._values, values.tolist(), strict=True))
        self._fitted = 0

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Adds a value to the model."""
        self._values[code] = value

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Takes the trial for one that no longer runs, and remembers how it ended."""
        code = self._running.pop(parameter_id, None)
        if code is not None:
            self._ended[code] = success

    def _see(self, code: Code) -> None:
        super()._see(code)
        self._leave_out(code)

    def _leave_out(self, code: Code) -> None:
        if self._every is not None:
            self._untried[np.ravel_multi_index(code, self._codes.sizes)] = False

    # ---- what is known

    def _best(self) -> Code | None:
        """Returns the unseen architecture with the highest gain of those that are looked at."""
        known = self._fit()
        self._judge()
        if self._every is not None and known:
            return self._best_of_all(self._every)
        return self._climb(known)

    def _fit(self) -> list[Code]:
        """Returns the codes whose values the model has, the best first, once it has them."""
        tried = list(self._values)
        self._value_rows = self._ended_rows = np.zeros((0, self._coordinates.width), dtype=np.int64)
        if not tried:
            return []
        if not self._fitted or len(tried) >= self._fitted + min(_NEWEST, 1 + self._fitted // _GROWTH):
            best = set(sorted(tried, key=lambda code: -self._values[code])[: _MOST_VALUES // 2])
            newest = len(tried) - (_MOST_VALUES - len(best))
            self._base = [code for place, code in enumerate(tried) if place >= newest or code in best]
            self._fitted = len(tried)
            rows = self._coordinates.rows(self._base)
            values = np.array([self._values[code] for code in self._base])
            shared = self._coordinates.pools.shared(rows, rows)
            self._prior = Prior.drawn([*self._kernels, *self._pooled], shared, values, self._rng)
            self._pools = self._coordinates.pools if self._prior.kernel.pooled else Pools()
            self._model = Posterior(self._prior.kernel, self._prior.noise, self._every, self._pools)
        known = [*self._base, *tried[self._fitted :]]
        pending = [code for code in self._running.values() if code not in self._values]
        self._value_rows = self._coordinates.rows([*known, *pending])
        self._model.condition(self._value_rows)
        self._model.learn(bent(np.array([self._values[code] for code in known]), self._prior.power)[0])
        expected, _ = self._model.predicted(self._pools.shared(self._value_rows, self._value_rows[: len(known)]))
        self._to_beat = float(expected.max())
        return [known[place] for place in np.argsort(-expected, kind="stable").tolist()]

    def _judge(self) -> None:
        """Learns what makes trials fail; nothing while none did."""
        newest = list(self._ended.items())[-_MOST_ENDED:]
        if all(success for _, success in newest):
            self._feasibility = None
            return
        self._ended_rows = self._coordinates.rows([code for code, _ in newest])
        shared, succeeded = equal(self._ended_rows, self._ended_rows), np.array([success for _, success in newest])
        count = len(self._ended)
        if self._feasibility is None or count >= self._judged + min(_NEWEST, 1 + self._judged // _GROWTH):
            self._feasibility = Feasibility.likeliest(self._kernels[::2], shared, succeeded)
            self._judged = count
        else:
            chosen = self._feasibility
            self._feasibility = Feasibility(chosen.kernel, chosen.amplitude, shared, succeeded, chosen.handicap)

    def _improvement(self, mean: _Floats, variance: _Floats) -> _Floats:
        """``[k]``: log of the expected improvement on the best that is expected of what was tried."""
        return log_improvement(mean, variance, self._to_beat)

    def _gains(self, shared: Shared) -> _Floats:
        """``[k]``: log of expected improvement times probability of success.

        Args:
            shared: ``[n, k]``: with the rows of values, and after them those of trials that ended.
        """
        count = len(self._value_rows)
        gains = np.zeros(shared.equal.shape[1])
        if count:
            gains += self._improvement(*self._model.predicted(shared[:count]))
        if self._feasibility is not None:
            gains += self._feasibility.log_chance(shared.equal[count:])
        return gains

    # ---- where it is looked for

    def _best_of_all(self, every: Rows) -> Code | None:
        """Looks at every architecture, in the order of expected improvement as long as one may be better."""
        improvement = self._improvement(*self._model.predicted_of_all())
        improvement[~self._untried] = -math.inf
        for _ in range(1 if self._region is None else _MOST_MEASURED):
            place = self._highest(improvement, every)
            code = self._coordinates.code(every[place])
            if self._region is None or code in self._unseen:
                return code
            self._leave_out(code)  # only a measurement told that it is beyond a bound
            improvement[place] = -math.inf
        return self._unseen.draw(self._rng)

    def _highest(self, improvement: _Floats, every: Rows) -> int:
        """Returns the place with the highest gain."""
        if self._feasibility is None:
            return int(improvement.argmax())
        order = np.argsort(-improvement, kind="stable")
        best, highest = int(order[0]), -math.inf
        for some in np.split(order, range(_MOST_STEPS, len(order), _MOST_STEPS)):
            if improvement[some[0]] <= highest:  # no probability is above 1
                break
            gains = improvement[some] + self._feasibility.log_chance(equal(self._ended_rows, every[some]))
            if gains.max() > highest:
                best, highest = int(some[gains.argmax()]), float(gains.max())
        return best

    def _climb(self, known: Sequence[Code]) -> Code | None:
        """Goes up from the best known and from random architectures, to where no neighbour has a higher gain."""
        drawn = [self._unseen.any(self._rng) for _ in range(_DRAWN if self._region is None else _DRAWN_INSIDE)]
        others = np.concatenate([self._value_rows, self._ended_rows])
        counts = self._pools.counts(others)
        points = self._points(self._coordinates.rows([*known[:_TOPS], *drawn]), others, counts)
        if self._region is not None:
            first = min(_TOPS, len(known))
            points[first:] = sorted(points[first:], key=lambda one: -one.gain)[:_DRAWN]
        climbing = list(range(len(points)))
        looked, most = 0, min(_MOST_LOOKED, _MOST_WORK // (1 + len(others)) ** 2)
        while climbing and looked < most:
            for place in list(climbing):
                numbers = self._numbers()
                looked += len(numbers)
                higher = self._step(points[place], numbers, others, counts)
                if higher is None:
                    climbing.remove(place)
                else:
                    points[place] = higher
        for point in sorted(points, key=lambda one: -one.gain):
            code = self._coordinates.code(point.row)
            if code in self._unseen:
                return code
        return self._unseen.draw(self._rng)

    def _allows(self, row: Rows) -> bool:
        """Returns true if no constraint is known to exclude a row ``[M]``."""
        return self._region is None or self._region.may_have(self._coordinates.code(row))

    def _numbers(self) -> NDArray[np.int64]:
        """Returns the numbers of the neighbours to look at: all, or some that are drawn."""
        degree = self._codes.degree
        if degree <= _MOST_STEPS:
            return np.arange(degree)
        return self._rng.choice(degree, _MOST_STEPS, replace=False)

    def _points(self, rows: Rows, others: Rows, counts: Counts) -> list[_Point]:
        shared = self._pools.shared(others, rows, counts)
        gains = self._gains(shared).tolist()
        return [_Point(row, shared[:, place], gains[place]) for place, row in enumerate(rows)]

    def _step(self, at: _Point, numbers: NDArray[np.int64], others: Rows, counts: Counts) -> _Point | None:
        """Returns the best of what steps lead to, one or several at different keys at once; None where none is higher.

        Args:
            at: where they begin.
            numbers: of the neighbours.
            others: that ``_gains`` compares with.
            counts: of these.
        """
        steps = self._coordinates.steps(at.row, numbers)
        shared = self._pools.after(steps, at.row, others, at.shared, counts)
        gains = self._gains(shared)
        gains[(shared.equal == self._coordinates.width).any(axis=0)] = -math.inf  # known
        order = np.argsort(-gains, kind="stable")
        better = order[: np.count_nonzero(gains > at.gain)]
        while len(better) and not self._allows(steps.taken(at.row, [int(better[0])])):
            better = better[1:]
        if not len(better):
            return None
        _, first = np.unique(steps.keys[better], return_index=True)
        best_of_keys = better[np.sort(first)]
        best = int(better[0])
        highest = _Point(steps.taken(at.row, [best]), shared[:, best], float(gains[best]))
        powers = [2**power for power in range(1, len(best_of_keys).bit_length())]
        if powers:
            rows = np.array([steps.taken(at.row, best_of_keys[:count]) for count in powers])
            several = max(self._points(rows, others, counts), key=lambda one: one.gain)
            is_known = (several.shared.equal == self._coordinates.width).any()
            if several.gain > highest.gain and not is_known and self._allows(several.row):
                highest = several
        return highest
