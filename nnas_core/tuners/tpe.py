"""Optuna's TPE: what good trials have in common, and others have not, comes again.

Source: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (section 4); Watanabe,
"Tree-Structured Parzen Estimator", arXiv:2304.11127 (Optuna's version).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core.plugins.arguments import check_count, check_flag
from nnas_core.tuners._optuna import OptunaTuner

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["TpeTuner"]


class TpeTuner(OptunaTuner):
    """Optuna's ``TPESampler``; its parameters are those of ``nnas_core.tuners._optuna.Encoding``.

    Trials are split into the best few and the others, and a density is estimated for each. Of some samples of the
    first, the one is proposed whose ratio of both densities is largest. Trials that run count among the others.

    Args:
        n_startup_trials: trials that must succeed before the densities are used, at least 0.
        n_ei_candidates: samples that are compared, at least 1.
        multivariate: True estimates the densities over all keys together, False for each key alone.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range, or Optuna is not installed.
    """

    name = "tpe"
    tries = 25
    retells = False

    def __init__(
        self,
        n_startup_trials: int = 10,
        n_ei_candidates: int = 24,
        multivariate: bool = True,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("tpe: n_startup_trials", n_startup_trials, least=0)
        check_count("tpe: n_ei_candidates", n_ei_candidates)
        check_flag("tpe: multivariate", multivariate)
        self._startup = n_startup_trials
        self._candidates = n_ei_candidates
        self._multivariate = multivariate

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(
            n_startup_trials=self._startup,
            n_ei_candidates=self._candidates,
            multivariate=self._multivariate,
            seed=seed,
        )
