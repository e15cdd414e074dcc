"""Optuna's NSGA-II: parents that no other trial beats in all objectives cross, for one objective or several.

Source: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.files import finite
from nnas_core.plugins.arguments import check_count, check_range, sign_of
from nnas_core.tuners._optuna import OptunaTuner

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from nnas_core.space.goals import Objective

__all__ = ["Nsga2Tuner"]


class Nsga2Tuner(OptunaTuner):
    """Optuna's ``NSGAIISampler``; its genes are the parameters of ``nnas_core.tuners._optuna.Encoding``.

    The first generation is random. Each later one comes from the best of all before it, by rank of domination and
    then by distance to their neighbours: two parents cross, and each gene is drawn anew with a small probability.
    What was imported, and what was drawn because children were known, belongs to the generation of its time.

    Args:
        objectives: what counts besides the study's own metric: name of a metric or cost of the trials ->
            ``"minimize"`` or ``"maximize"``, for example ``{"parameters": "minimize"}``. A metric goes before a
            cost of its name. A trial that lacks one counts as failed, with a warning.
        population_size: trials of a generation, at least 2. Optuna's own default of 50 is for thousands of trials.
        mutation_prob: of each gene, from 0 to 1; null takes 1 / number of genes.
        crossover_prob: that a child has two parents rather than one, from 0 to 1.
        swapping_prob: of each gene, that it comes from the second parent, from 0 to 1.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``: for the study's own metric.

    Raises:
        UsageError: an argument is out of range, or Optuna is not installed.
    """

    name = "nsga2"
    serves_objectives = True
    _aims: Sequence[Objective] = ()
    tries = 50
    retells = False

    def __init__(
        self,
        objectives: dict[str, str] | None = None,
        population_size: int = 20,
        mutation_prob: float | None = None,
        crossover_prob: float = 0.9,
        swapping_prob: float = 0.5,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        if not isinstance(objectives, Mapping | None):
            raise UsageError(
                f"nsga2: objectives must be an object, not {objectives!r}", hint='{"parameters": "minimize"} is one'
            )
        # in one order, however they were written: the study stores them, and starts again with them
        self._objectives = dict(sorted((objectives or {}).items()))
        for objective, mode in self._objectives.items():
            sign_of(f"nsga2: objective {objective!r}", mode)
        check_count("nsga2: population_size", population_size, least=2)
        self._chances: dict[str, float | None] = {
            "mutation_prob": mutation_prob,
            "crossover_prob": crossover_prob,
            "swapping_prob": swapping_prob,
        }
        for option, chance in self._chances.items():
            if chance is not None:
                check_range(f"nsga2: {option}", chance, "[0, 1]")
        self._size = population_size

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        chances: dict[str, Any] = self._chances
        self._generations = NSGAIISampler(population_size=self._size, seed=seed, **chances)
        return self._generations

    def aim_at(self, objectives: Sequence[Objective]) -> None:
        """Serves the objectives of the study.

        Raises:
            UsageError: the tuner has objectives of its own.
        """
        if self._objectives:
            raise UsageError(
                "nsga2: the study has objectives, and so has the tuner", hint="leave the argument objectives out"
            )
        self._aims = objectives

    def _directions(self) -> list[str]:
        if self._aims:
            return ["maximize"] * len(self._aims)  # as the study gives them
        return [self.optimize_mode, *self._objectives.values()]

    def _values(self, value: float, measured: Mapping[str, object]) -> list[float] | None:
        if self._aims:
            given = measured.get("objectives")
            return [float(one) for one in given] if isinstance(given, Sequence) else None
        metrics, cost = _numbers(measured, "metrics"), _numbers(measured, "cost")
        values = [value]
        for objective in self._objectives:
            found = finite(metrics.get(objective, cost.get(objective)))
            if found is None:
                there = "; ".join(
                    f"{what}: {', '.join(sorted(numbers)) or 'none'}"
                    for what, numbers in (("metrics", metrics), ("costs", cost))
                )
                warnings.warn(
                    f"nsga2 counts trials as failed, which have no objective {objective!r}; they have {there}",
                    NnasWarning,
                    stacklevel=3,
                )
                return None
            values.append(found)
        return values

    def _adopt(self, trial: FrozenTrial) -> None:
        self._generations.get_trial_generation(self._study, trial)


def _numbers(measured: Mapping[str, object], kind: str) -> Mapping[str, object]:
    """Returns the metrics or the costs of a trial; empty where none came."""
    numbers = measured.get(kind)
    return numbers if isinstance(numbers, Mapping) else {}
