"""Tuners propose architectures between trials: one algorithm a file, found by the name of the file.

    Tuner <- CodeTuner (_code_tuner)     sees architectures as codes, proposes none that it must not: random, grid
                <- LearningTuner         learns from values: bayes, evolution, spos_evolution, local_search, ppo, ...
                <- OptunaTuner (_optuna) asks and tells a sampler of Optuna: tpe, gp, cmaes, nsga2

Begin with ``base``: ``Tuner`` has the methods of NNI 1.x and is all that a tuner of one's own needs. Every class is
here by its name, ``nnas_core.tuners.BayesTuner``, and loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnas_core._handing_on import hand_on
from nnas_core.plugins.folders import own_classes

if TYPE_CHECKING:
    from nnas_core.tuners.base import ImportedTrial as ImportedTrial
    from nnas_core.tuners.base import NoMoreTrials as NoMoreTrials
    from nnas_core.tuners.base import Tuner as Tuner

    def __getattr__(name: str) -> type[Any]: ...  # an algorithm, by the name of its class

else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "ImportedTrial": "base",
            "NoMoreTrials": "base",
            "Tuner": "base",
            **own_classes("tuners"),
        },
    )
