"""Every registered tuner keeps to what ``nnas_core.testing`` asks of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpaceDocument
from nnas_core.testing import TunerConformance
from nnas_core.testing.tuners import SPACES

# A proposal of gp takes seconds in the large space, and 33 are made until the mixed one ends.
_FOR_GP: dict[str, SearchSpaceDocument] = {
    **SPACES,
    "large": {
        **{f"key{number}": SPACES["large"][f"key{number}"] for number in range(20)},
        "half": SPACES["large"]["half"],
    },
    "mixed": {"op": SPACES["mixed"]["op"], "from": SPACES["mixed"]["from"]},
}

# What differs from one algorithm to the next: arguments with which a few trials suffice, since learning costs time.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bananas": {"arguments": {"num_candidates": 60, "epochs": 20, "num_init": 4}, "trials": 9},
    "bayes": {"arguments": {"num_init": 3}, "trials": 7},
    "cmaes": {"arguments": {"popsize": 4}, "trials": 9},
    "gp": {"arguments": {"n_startup_trials": 3}, "trials": 4, "spaces": _FOR_GP, "pytestmark": pytest.mark.slow},
    "ppo": {"arguments": {"hidden_size": 8, "embedding_size": 4, "trials_per_update": 3}, "trials": 8},
    "nsga2": {"arguments": {"population_size": 3}, "trials": 8},
    "tpe": {"arguments": {"n_startup_trials": 3}, "trials": 7},
}

for _name in registry.entries("tuners"):
    _case = f"Test{_name.title().replace('-', '')}"
    globals()[_case] = type(
        _case, (TunerConformance,), {"tuner": registry.find("tuners", _name), **_SPECIAL.get(_name, {})}
    )


class TestEvolutionWithRepeats(TunerConformance):
    """What may repeat itself passes too."""

    tuner = registry.find("tuners", "evolution")
    arguments: ClassVar[Mapping[str, Any]] = {"population": 5, "sample": 2, "repeats": True}
    repeats = True


class TestNsga2WithObjectives(TunerConformance):
    """Several objectives are served."""

    tuner = registry.find("tuners", "nsga2")
    arguments: ClassVar[Mapping[str, Any]] = {"objectives": {"parameters": "minimize"}, "population_size": 3}
    trials = 8
