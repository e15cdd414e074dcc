"""Optuna's CMA-ES: scores of all candidates come from a normal distribution that follows the best trials.

Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; Ros and Hansen, "A Simple Modification
in CMA-ES Achieving Linear Time and Space Complexity", PPSN 2008 (separable).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core.plugins.arguments import check_count, check_flag
from nnas_core.tuners._optuna import OptunaTuner

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["CmaesTuner"]


_MOST_IN_A_MATRIX = 2000
"""Scores whose covariances are a matrix; its eigenvectors cost the third power."""


class CmaesTuner(OptunaTuner):
    """Optuna's ``CmaEsSampler`` on a continuous relaxation of the space.

    Each candidate of each key has a score from 0 to 1. At a key that takes k candidates those with the k highest
    scores are chosen, of equal ones the first; at a key that takes any number, those whose score is at least 0.5.
    Many scores mean the same architecture; when one is known, its known value is told again, so that generations
    go on. The distribution learns from its own proposals only: what was imported, and what was drawn when it had
    converged, it does not follow.

    The first trial is drawn at random, the first generation starts in the middle with a deviation of 1/6.

    Args:
        popsize: trials of a generation, at least 4, or there are too few to learn a variance from; null takes
            4 + 3 ln(number of scores), rounded down.
        use_separable_cma: True learns a variance a score instead of a matrix, for spaces of many hundred
            candidates, where the matrix costs too much; above 2,000 it is refused.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Raises:
        UsageError: an argument is out of range, or Optuna or its package cmaes is not installed; or the space has
            more than 2,000 candidates, and the matrix is to be learned.
    """

    name = "cmaes"
    needs = ("cmaes",)
    continuous = True
    tries = 30
    retells = True
    for_large_spaces = f"use_separable_cma=true, or {OptunaTuner.for_large_spaces}"

    def __init__(
        self,
        popsize: int | None = None,
        use_separable_cma: bool = False,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        if popsize is not None:
            check_count("cmaes: popsize", popsize, least=4)
        check_flag("cmaes: use_separable_cma", use_separable_cma)
        self._popsize = popsize
        self._separable = use_separable_cma

    @property
    def _most_parameters(self) -> int | None:
        return super()._most_parameters if self._separable else _MOST_IN_A_MATRIX

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(
            popsize=self._popsize,
            use_separable_cma=self._separable,
            warn_independent_sampling=False,
            seed=seed,
        )
