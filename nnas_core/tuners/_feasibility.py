"""How likely a trial is to succeed, as far as those that ended say what it depends on.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006 (section 3.6, expectation
propagation: equations 3.53, 3.56 to 3.59, 3.65, 3.71 to 3.74 and 3.82); Gelbart et al., "Bayesian Optimization with
Unknown Constraints", arXiv:1403.5607 (what it is for).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnas_core.tuners._coordinates import Counts
from nnas_core.tuners._gaussian import Kernel
from nnas_core.tuners._normal import log_below, log_density

__all__ = ["Feasibility"]

_Floats = NDArray[np.float64]

_AMPLITUDES = (1.0, 8.0, 64.0)
"""Variances of what is learned, in units of the noise: from hardly more than chance to hard rules."""

_MOST_SWEEPS, _SETTLED, _STEP = 100, 1e-4, 0.7
"""Sweeps of expectation propagation, the change of the evidence that ends them, and how far each goes."""

_LEAST = 1e-10
"""Of a precision or variance."""


class Feasibility:
    """The probability that trials succeed, learned from some that did or did not.

    Two explanations are weighed by how likely they make what happened. The one: a Gaussian process, whose sign, with
    normal noise, says whether a trial succeeds. The other: all succeed with one probability, uniform before anything is
    known. So failures at random teach nothing about architectures.

    Args:
        kernel: of the process.
        amplitude: what its variance is multiplied by.
        shared: ``[n, n]``: equal decisions of the trials.
        succeeded: ``[n]``.
        handicap: log of how much likelier the trials are under this process than under all that it was chosen from,
            which counts against it.

    Attributes:
        kernel, amplitude, handicap: as given.
        log_evidence: of the process.
        trust: the probability that the process is what explains it, where both were equally likely before.
        rate: the mean of the one probability that is the other explanation.
    """

    def __init__(
        self,
        kernel: Kernel,
        amplitude: float,
        shared: Counts,
        succeeded: NDArray[np.bool_],
        handicap: float = 0.0,
    ) -> None:
        self.kernel = kernel
        self.amplitude = amplitude
        self.handicap = handicap
        covariance = amplitude * kernel.of_equal[shared]
        self.log_evidence = self._propagate(covariance, np.where(succeeded, 1.0, -1.0))
        count, won = len(succeeded), int(succeeded.sum())
        alone = math.lgamma(won + 1) + math.lgamma(count - won + 1) - math.lgamma(count + 2)
        self.trust = 1 / (1 + math.exp(min(700.0, alone + handicap - self.log_evidence)))
        self.rate = (won + 1) / (count + 2)

    def _propagate(self, covariance: _Floats, signs: _Floats) -> float:
        """Finds what a normal likelihood must say of each trial to have the same moments; returns the log evidence."""
        count = len(signs)
        precision, shift = np.full(count, _LEAST), np.zeros(count)  # tau and nu of the book, one a trial
        evidence = -math.inf
        for _ in range(_MOST_SWEEPS):
            roots = np.sqrt(precision)
            factor = np.linalg.cholesky(np.eye(count) + roots[:, None] * covariance * roots)
            self._whiten = np.linalg.inv(factor) * roots
            pulled = self._whiten @ covariance
            variance = np.maximum(np.diag(covariance) - np.square(pulled).sum(axis=0), _LEAST)
            mean = covariance @ shift - pulled.T @ (pulled @ shift)
            rest = np.maximum(1 / variance - precision, _LEAST)  # precision and mean without the trial's own part
            rest_mean = (mean / variance - shift) / rest
            spread = np.sqrt(1 + 1 / rest)
            z = signs * rest_mean / spread
            chance = log_below(z)
            before, evidence = (
                evidence,
                float(
                    chance.sum()
                    + 0.5 * np.log1p(precision / rest).sum()
                    - np.log(np.diag(factor)).sum()
                    + 0.5 * (shift @ mean - (shift**2 / (rest + precision)).sum())
                    + 0.5 * (rest_mean * rest / (precision + rest) * (precision * rest_mean - 2 * shift)).sum()
                ),
            )
            if abs(evidence - before) < _SETTLED:
                break
            slope = np.exp(log_density(z) - chance)
            new_mean = rest_mean + signs * slope / (rest * spread)
            new_variance = 1 / rest - slope * (z + slope) / np.square(rest * spread)
            shift += _STEP * (new_mean / new_variance - rest * rest_mean - shift)
            precision += _STEP * (np.maximum(1 / new_variance - rest, _LEAST) - precision)
        self._pulls = shift - self._whiten.T @ (self._whiten @ (covariance @ shift))
        return evidence

    def log_chance(self, shared: Counts) -> _Floats:
        """``[k]``: log probabilities of success, by equal decisions ``[n, k]`` with the trials."""
        covariance = self.amplitude * self.kernel.of_equal[shared]
        variance = self.amplitude * self.kernel.prior - np.square(self._whiten @ covariance).sum(axis=0)
        process = log_below(self._pulls @ covariance / np.sqrt(1 + np.maximum(variance, 0.0)))
        return np.log(self.trust * np.exp(process) + (1 - self.trust) * self.rate)

    @classmethod
    def likeliest(cls, kernels: Sequence[Kernel], shared: Counts, succeeded: NDArray[np.bool_]) -> Feasibility:
        """The one with the highest evidence, of some kernels; its handicap is against the mean of all evidences."""
        found = [cls(kernel, amplitude, shared, succeeded) for kernel in kernels for amplitude in _AMPLITUDES]
        best = max(found, key=lambda one: one.log_evidence)
        mean = sum(math.exp(one.log_evidence - best.log_evidence) for one in found) / len(found)
        return cls(best.kernel, best.amplitude, shared, succeeded, -math.log(mean))
