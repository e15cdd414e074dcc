"""Optuna's Gaussian process: the next trial is where the largest improvement is expected.

Source: Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions", Journal of Global
Optimization 13 (1998); Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization",
arXiv:2310.20708 (its logarithm, which Optuna maximises).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core.plugins.arguments import check_count, check_flag
from nnas_core.tuners._optuna import OptunaTuner

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["GpTuner"]


_MOST_PARAMETERS = 2000
"""A proposal looks at thousands of points: with so many numbers each, that is about a gigabyte and a minute."""


class GpTuner(OptunaTuner):
    """Optuna's ``GPSampler``; its parameters are those of ``nnas_core.tuners._optuna.Encoding``.

    A Gaussian process is fitted to all values, with a length a parameter and the Hamming distance between
    categories, and the logarithm of the expected improvement is maximised. The improvement is that over what is
    expected of the trials that run. When it is largest at a known architecture, the process learns the known value
    once more, and so becomes surer of it. A proposal costs the third power of the number of trials.

    Args:
        n_startup_trials: trials that must succeed before the process is fitted, at least 1.
        deterministic_objective: True if equal architectures have equal values to the last digit; False estimates
            the noise of the values.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range, or Optuna, SciPy or greenlet is not installed; or the space has more
            than 2,000 parameters.
    """

    name = "gp"
    needs = ("scipy", "greenlet")  # without greenlet Optuna works, but more slowly, and warns
    tries = 3
    retells = True

    def __init__(
        self,
        n_startup_trials: int = 10,
        deterministic_objective: bool = False,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("gp: n_startup_trials", n_startup_trials)
        check_flag("gp: deterministic_objective", deterministic_objective)
        self._startup = n_startup_trials
        self._deterministic = deterministic_objective

    @property
    def _most_parameters(self) -> int:
        return _MOST_PARAMETERS

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(
            n_startup_trials=self._startup,
            deterministic_objective=self._deterministic,
            warn_independent_sampling=False,
            seed=seed,
        )
