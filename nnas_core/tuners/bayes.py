"""Learn a Bayesian linear model of decisions and of pairs of them, and try what it may be best at.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, chapter 2 (equations 2.23,
2.24 and 2.30); Srinivas et al., "Gaussian Process Optimization in the Bandit Setting", arXiv:0912.3995 (the upper
confidence bound); Desautels et al., arXiv:1206.6402 (trials at the same time).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from nnas_core.plugins.arguments import check_count, check_range
from nnas_core.space.encoding import Code
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._code_tuner import LearningTuner
from nnas_core.tuners._ranks import ranks

__all__ = ["BayesTuner", "Kernel", "Posterior", "coordinates", "normal_scores"]

_Floats = NDArray[np.float64]
_Rows = NDArray[np.int64]

_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
_NOISES = (0.003, 0.03, 0.1, 0.3)

_NEWEST = 250
"""The kernel is chosen anew when there are half as many more values as at the last time, or so many more."""

_MOST_LISTED = 20_000
"""Architectures of a space that are all looked at before each proposal; of a larger one, a selection is."""

_MOST_VALUES = 500
"""Values that a new model is made of: beyond that, the best half and the newest half."""

_CANDIDATES, _MOST_WORK = 1_000, 100_000_000
"""Architectures in a selection, and the comparisons of decisions that may cost: fewer are looked at beyond that."""

_PARENTS = 10

_CLIMBS, _MOST_STEPS = 30, 250
"""Steps from the best of a selection, and neighbours that are looked at for each."""


class BayesTuner(LearningTuner):
    """Bayesian optimization with a linear model.

    Every decision has a weight, and so has every pair of decisions at two keys; what is not known of them is a normal
    distribution. After ``num_init`` random architectures, each proposal is the one whose predicted value plus ``beta``
    standard deviations is the highest: of all that were not tried in a space of up to 20,000; of a larger one, among
    random ones and relatives of the best, from which it climbs along single steps.

    Values count by their ranks, turned into the quantiles of a normal distribution, so it does not matter what they
    measure. How much pairs weigh and how noisy values are follows from the marginal likelihood. A trial that fails
    counts as the worst so far, so what makes trials fail is learned too. Of one that runs, the model expects what it
    predicts. No architecture is proposed twice.

    The choice of one candidate is one decision; where any number or k of n are chosen, each candidate is one, in or
    out. The work of a proposal grows with the number of values that the model is made of; beyond 500 these are the best
    250 and the newest ones.

    Args:
        num_init: trials with a result before the model is asked, at least 1; until then proposals are random.
        beta: standard deviations that an unknown may be better than predicted; 0 never explores.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range.
    """

    name = "bayes"

    def __init__(self, num_init: int = 20, beta: float = 4.0, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        check_count("bayes: num_init", num_init)
        check_range("bayes: beta", beta, "[0, inf)")
        self._starts = num_init
        self._beta = beta

    def _begin(self) -> None:
        """Begins with a space of which nothing is known."""
        self._values: dict[Code, float] = {}  # in the order that they came
        self._running: dict[int, Code] = {}
        self._failed: set[Code] = set()
        self._model: Posterior | None = None
        self._fitted = 0  # values that the kernel was chosen by
        self._base: list[Code] = []
        self._listed: list[Code] | None = None
        self._every: _Rows | None = None
        if self._codes.size <= _MOST_LISTED:
            self._listed = list(self._codes.all())
            self._every = coordinates(self._codes.space, self._listed)
            self._untried = np.ones(len(self._listed), dtype=bool)

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes a random architecture at first, then the one with the highest upper confidence bound."""
        ready = len(self._values) - len(self._failed) >= self._starts and bool(self._unseen)
        code = self._best() if ready else self._unseen.draw(self._rng)
        if code is not None:
            self._running[parameter_id] = code
        return code

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Adds a value to the model."""
        self._failed.discard(code)
        self._values[code] = value

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Takes the trial for one that no longer runs; one that failed for as bad as the worst."""
        code = self._running.pop(parameter_id, None)
        if code is not None and not success and code not in self._values:
            self._failed.add(code)
            self._values[code] = -math.inf  # ranks are all that counts

    def _see(self, code: Code) -> None:
        super()._see(code)
        if self._listed is not None:
            self._untried[np.ravel_multi_index(code, self._codes.sizes)] = False

    def _best(self) -> Code | None:
        known, model = self._known()
        scores = normal_scores([self._values[code] for code in known])
        pending = [code for code in self._running.values() if code not in self._values]
        model.condition(coordinates(self._codes.space, [*known, *pending]))
        model.learn(scores)
        if self._listed is not None:
            bounds = model.bounds_of_all(self._beta)
            bounds[~self._untried] = -math.inf
            return self._listed[int(bounds.argmax())]
        return self._climb(model, known, scores)

    def _known(self) -> tuple[list[Code], Posterior]:
        """Returns the codes that the model is made of, and the model; a new one where it is time to choose a kernel."""
        tried = list(self._values)
        if self._model is None or len(tried) >= self._fitted + min(_NEWEST, self._fitted // 2):
            best = set(sorted(tried, key=lambda code: -self._values[code])[: _MOST_VALUES // 2])
            newest = len(tried) - (_MOST_VALUES - len(best))
            self._base = [code for place, code in enumerate(tried) if place >= newest or code in best]
            self._fitted = len(tried)
            rows = coordinates(self._codes.space, self._base)
            kernel = Kernel.most_likely(rows, normal_scores([self._values[code] for code in self._base]))
            self._model = Posterior(kernel, self._every)
        return [*self._base, *tried[self._fitted :]], self._model

    def _climb(self, model: Posterior, known: Sequence[Code], scores: _Floats) -> Code | None:
        """Returns the best of a selection, and from there on the best neighbour as long as one is better."""
        width = max(1, len(coordinates(self._codes.space, known[:1])[0]))
        count = max(64, min(_CANDIDATES, _MOST_WORK // (width * max(1, len(known)))))
        parents = [known[place] for place in np.argsort(-scores, kind="stable")[:_PARENTS]]
        drawn = [self._codes.sample(self._rng) for _ in range(count // 2)]
        for number in range(count - len(drawn)):
            child = self._codes.mutate(parents[number % len(parents)], self._rng)
            drawn.append(child if number % 2 else self._codes.mutate(child, self._rng))
        best, bound = self._highest(model, drawn)
        for _ in range(_CLIMBS):
            if best is None:
                break
            steps = range(self._codes.degree)
            if self._codes.degree > _MOST_STEPS:
                steps = self._rng.choice(self._codes.degree, _MOST_STEPS, replace=False).tolist()
            next_best, higher = self._highest(model, [self._codes.neighbour(best, step) for step in steps])
            if next_best is None or higher <= bound:
                break
            best, bound = next_best, higher
        return best if best is not None else self._unseen.draw(self._rng)

    def _highest(self, model: Posterior, codes: Sequence[Code]) -> tuple[Code | None, float]:
        unseen = [code for code in codes if code in self._unseen]
        if not unseen:
            return None, -math.inf
        bounds = model.bounds(coordinates(self._codes.space, unseen), self._beta)
        place = int(bounds.argmax())
        return unseen[place], float(bounds[place])


def normal_scores(values: Sequence[float]) -> _Floats:
    """Returns the quantiles of a normal distribution that the ranks of ``values`` stand for, scaled to variance 1.

    Equal values have equal scores; all are 0 where all values are equal.
    """
    count = len(values)
    shares = 0.5 + ranks(values) * (count - 1) / (2 * count)
    normal = NormalDist()
    scores = np.array([normal.inv_cdf(share) for share in shares.tolist()])
    return scores / (scores.std() or 1.0)


def coordinates(space: SearchSpace, codes: Sequence[Code]) -> _Rows:
    """``[n, M]``: the decisions that the model knows: at each key one, or in and out of each candidate.

    Keys that leave no choice are left out.
    """
    plain = [choice.size > 1 and choice.n_chosen == 1 for choice in space]
    singles = itertools.chain.from_iterable(itertools.compress(code, plain) for code in codes)
    left = iter(np.fromiter(singles, np.int64, len(codes) * sum(plain)).reshape(len(codes), -1).T)
    columns: list[_Rows] = []
    for place, choice in enumerate(space):
        if choice.size < 2:
            continue
        if plain[place]:
            columns.append(next(left)[:, None])
            continue
        numbers = [code[place] for code in codes]
        inside = {number: np.zeros(len(choice.candidates), dtype=np.int64) for number in numbers}
        for number, row in inside.items():  # relatives have most of theirs in common
            row[list(choice.decision(number))] = 1
        columns.append(np.array([inside[number] for number in numbers]).reshape(len(codes), -1))
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(codes), 0), dtype=np.int64)


class Kernel:
    """The covariance of the values of two architectures under the model, by how many of M decisions they share.

    With a weight of variance 1 for the mean, of ``(1 - share) / M`` for every decision and ``2 share / (M (M - 1))``
    for every pair, m equal decisions give ``1 + (1 - share) m / M + share m (m - 1) / (M (M - 1))``.

    Args:
        width: M.
        share: of the variance that belongs to pairs, from 0 to 1; 0 where there are none.
        noise: variance of what no weight explains, where all weights together have 1.
    """

    def __init__(self, width: int, share: float, noise: float) -> None:
        equal = np.arange(width + 1)
        pairs = equal * (equal - 1) / max(1, width * (width - 1))
        self.width = width
        self.share = share
        self.noise = noise
        self._of_equal = 1 + (1 - share) * equal / max(1, width) + share * pairs

    @property
    def prior(self) -> float:
        """The variance of a value before anything is known, without noise."""
        return float(self._of_equal[-1])

    def between(self, rows: _Rows, others: _Rows) -> _Floats:
        """``[n, k]``: covariances of ``rows`` ``[n, M]`` with ``others`` ``[k, M]``."""
        equal = np.zeros((len(rows), len(others)), dtype=np.float32)  # whole numbers, exact up to 2^24
        for decision in np.unique(rows).tolist():
            with np.errstate(invalid="ignore"):  # a flag that another library left; zeros and ones give none
                equal += (rows == decision).astype(np.float32) @ (others == decision).astype(np.float32).T
        return self._of_equal[equal.astype(np.int64)]

    def log_likelihood(self, rows: _Rows, scores: _Floats) -> float:
        """Returns that of ``scores`` ``[n]``, up to a constant, at the scale that is best for them (equation 2.30)."""
        count = len(rows)
        factor = np.linalg.cholesky(self.between(rows, rows) + self.noise * np.eye(count))
        whitened = np.linalg.solve(factor, scores)
        scale = max(float(whitened @ whitened) / count, 1e-12)
        return -0.5 * count * math.log(scale) - float(np.log(np.diag(factor)).sum())

    @classmethod
    def most_likely(cls, rows: _Rows, scores: _Floats) -> Kernel:
        """Returns the kernel whose share and noise, of a few, make ``scores`` likeliest."""
        width = rows.shape[1]
        shares = _SHARES if width > 1 else (0.0,)
        kernels = [cls(width, share, noise) for share in shares for noise in _NOISES]
        return max(kernels, key=lambda kernel: kernel.log_likelihood(rows, scores))


class Posterior:
    """Mean and variance of values, given some; rows are added one after the other, at a cost of their number.

    Args:
        kernel: the prior.
        every: ``[N, M]``: architectures whose bounds are asked for again and again; None for none.
    """

    def __init__(self, kernel: Kernel, every: _Rows | None = None) -> None:
        self._kernel = kernel
        self._every = every
        self._rows = np.zeros((0, kernel.width), dtype=np.int64)
        # The inverse of the Cholesky factor of the covariance of the rows, noise included; that times the covariances
        # with ``every``. Both have room for more rows.
        self._inverse = np.zeros((0, 0))
        self._pulls = np.zeros((0, 0 if every is None else len(every)))
        self._whitened = np.zeros(0)

    def condition(self, rows: _Rows) -> None:
        """Takes ``rows`` ``[n, M]`` for measured; what they have in common with the rows before is kept."""
        both = min(len(rows), len(self._rows))
        differ = np.flatnonzero((rows[:both] != self._rows[:both]).any(axis=1))
        kept = int(differ[0]) if len(differ) else both
        self._rows = rows
        self._make_room(len(rows), kept)
        for place in range(kept, len(rows)):
            row, before = rows[place : place + 1], self._inverse[:place, :place]
            shared = before @ self._kernel.between(rows[:place], row)[:, 0]
            root = math.sqrt(self._kernel.prior + self._kernel.noise - float(shared @ shared))
            self._inverse[place, :place] = -(shared @ before) / root
            self._inverse[place, place] = 1 / root
            if self._every is not None:
                pull = self._kernel.between(row, self._every)[0] - shared @ self._pulls[:place]
                self._pulls[place] = pull / root

    def _make_room(self, count: int, kept: int) -> None:
        if count <= len(self._inverse):
            return
        room = 2 * count
        inverse, pulls = np.zeros((room, room)), np.zeros((room, self._pulls.shape[1]))
        inverse[:kept, :kept], pulls[:kept] = self._inverse[:kept, :kept], self._pulls[:kept]
        self._inverse, self._pulls = inverse, pulls

    def learn(self, scores: _Floats) -> None:
        """Gives the first rows their values ``[k]``, ``k <= n``; the others get what the model expects of them.

        So these change no expectation, but variances.
        """
        count = len(scores)
        self._whitened = np.zeros(len(self._rows))
        self._whitened[:count] = self._inverse[:count, :count] @ scores
        self.scale = max(float(self._whitened @ self._whitened) / max(1, count), 1e-12)

    def mean_and_variance(self, rows: _Rows) -> tuple[_Floats, _Floats]:
        """``[k]`` each, for ``rows`` ``[k, M]``; the variance without noise, at the scale that is likeliest."""
        count = len(self._rows)
        return self._of(self._inverse[:count, :count] @ self._kernel.between(self._rows, rows))

    def bounds(self, rows: _Rows, beta: float) -> _Floats:
        """``[k]``: the mean and ``beta`` standard deviations."""
        mean, variance = self.mean_and_variance(rows)
        return mean + beta * np.sqrt(variance)

    def bounds_of_all(self, beta: float) -> _Floats:
        """``[N]``: the same for ``every``."""
        mean, variance = self._of(self._pulls[: len(self._rows)])
        return mean + beta * np.sqrt(variance)

    def _of(self, pulls: _Floats) -> tuple[_Floats, _Floats]:
        mean = self._whitened @ pulls
        variance = self._kernel.prior - np.einsum("nk,nk->k", pulls, pulls)
        return mean, self.scale * np.maximum(variance, 0.0)
