"""What tuners over Optuna have in common: their encoding, what they need, and that others do not notice them."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import sys
import warnings
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution

from nnas_core.errors import ArchitectureError, UsageError
from nnas_core.space.encoding import Codes
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._optuna import Encoding, OptunaTuner
from nnas_core.tuners.cmaes import CmaesTuner
from nnas_core.tuners.gp import GpTuner
from nnas_core.tuners.nsga2 import Nsga2Tuner
from nnas_core.tuners.tpe import TpeTuner
from tests.tuners.sample_spaces import ALL_KINDS, inputs, layers
from tests.tuners.trial_loops import run_trials

SMALL = SearchSpace.from_json(ALL_KINDS)


def make(kind: type[OptunaTuner], **args: Any) -> OptunaTuner:
    tuner = kind(**args)
    tuner.update_search_space(ALL_KINDS)
    return tuner


# ---- the encoding


@pytest.mark.parametrize("continuous", [False, True], ids=["categories", "scores"])
def test_every_architecture_has_parameters_that_mean_it(continuous: bool) -> None:
    codes = Codes(SMALL)
    encoding = Encoding(codes, continuous)
    assert all(encoding.decode(encoding.encode(code)) == code for code in codes.all())


@pytest.mark.parametrize(
    ("choice", "continuous", "kinds"),
    [
        (layers(100), False, ["number of 100"]),
        (layers(3), True, ["score"] * 3),
        (layers(1), True, []),
        (inputs(3, 1), False, ["number of 3"]),
        (inputs(3, None), False, ["flag"] * 3),
        (inputs(3, None), True, ["score"] * 3),
        (inputs(3, 0), False, []),
        (inputs(3, 3), False, []),
        (inputs(8, 3), False, ["number of 56"]),
        (inputs(9, 3), False, ["score"] * 9),  # 84 subsets
    ],
    ids=str,
)
def test_a_choice_is_a_number_flags_or_scores(choice: dict[str, Any], continuous: bool, kinds: list[str]) -> None:
    encoding = Encoding(Codes(SearchSpace.from_json({"key": choice})), continuous)
    found = []
    for one in encoding.distributions.values():
        if not isinstance(one, CategoricalDistribution):
            found.append("score")
        else:
            found.append("flag" if one.choices == (False, True) else f"number of {len(one.choices)}")
    assert found == kinds


def test_the_highest_scores_are_chosen_of_equal_ones_the_first() -> None:
    space = SearchSpace.from_json({"any": inputs(3, None), "op": layers(3), "two": inputs(4, 2)})
    encoding = Encoding(Codes(space), continuous=True)
    scores = [(0.5, 0.49, 1.0), (0.2, 0.9, 0.9), (0.3, 0.7, 0.3, 0.3)]
    given = {f"{key}.{index}": score for key, row in enumerate(scores) for index, score in enumerate(row)}
    code = encoding.decode(given)
    assert space.parse(Codes(space).parameters(code)).indices() == {
        "any": (0, 2),
        "op": (1,),
        "two": (0, 1),
    }


# ---- what others share with it


class Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


def test_optuna_says_nothing_and_stays_as_it_was() -> None:
    def search() -> None:
        run_trials(make(CmaesTuner, use_separable_cma=True), SMALL, lambda one: float(len(str(one))), trials=12)
        run_trials(make(GpTuner, deterministic_objective=True), SMALL, lambda one: float(len(str(one))), trials=12)

    search()  # SciPy adds a filter of its own when it is imported
    logger = logging.getLogger("optuna")
    listener = Listener()
    level, handlers, filters = logger.level, logger.handlers[:], warnings.filters[:]
    logger.addHandler(listener)
    try:
        search()
    finally:
        logger.removeHandler(listener)
    assert listener.heard == []
    assert (logger.level, logger.handlers, warnings.filters) == (level, handlers, filters)


@pytest.mark.parametrize(
    ("kind", "package"), [(TpeTuner, "optuna"), (GpTuner, "scipy"), (GpTuner, "greenlet"), (CmaesTuner, "cmaes")]
)
def test_a_missing_package_is_named_with_its_extra(
    kind: type[OptunaTuner], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(UsageError, match=f"^tuner '{kind.name}' needs the package {package}$") as caught:
        kind()
    assert caught.value.hint == "pip install 'nnas[optuna]'"


def test_all_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("optuna", "cmaes"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match="tuner 'cmaes' needs the packages optuna, cmaes"):
        CmaesTuner()


def test_an_older_optuna_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.9.0")
    with pytest.raises(UsageError, match=r"tuner 'tpe' needs optuna 5 or newer, not 4\.9\.0"):
        TpeTuner()


@pytest.mark.parametrize(
    ("kind", "args", "message"),
    [
        (TpeTuner, {"n_startup_trials": -1}, "tpe: n_startup_trials must be a whole number of at least 0, not -1"),
        (TpeTuner, {"n_ei_candidates": 0}, "tpe: n_ei_candidates must be a whole number of at least 1, not 0"),
        (TpeTuner, {"multivariate": 1}, "tpe: multivariate must be true or false, not 1"),
        (TpeTuner, {"optimize_mode": "best"}, "tpe: optimize_mode must be maximize or minimize, not 'best'"),
        (GpTuner, {"n_startup_trials": 0}, "gp: n_startup_trials must be a whole number of at least 1, not 0"),
        (GpTuner, {"deterministic_objective": "no"}, "gp: deterministic_objective must be true or false, not 'no'"),
        (CmaesTuner, {"popsize": 3}, "cmaes: popsize must be a whole number of at least 4, not 3"),
        (CmaesTuner, {"use_separable_cma": 0}, "cmaes: use_separable_cma must be true or false, not 0"),
        (Nsga2Tuner, {"population_size": 1}, "nsga2: population_size must be a whole number of at least 2, not 1"),
        (Nsga2Tuner, {"mutation_prob": 1.5}, "nsga2: mutation_prob=1.5 is out of range"),
        (Nsga2Tuner, {"crossover_prob": -0.1}, "nsga2: crossover_prob=-0.1 is out of range"),
        (Nsga2Tuner, {"swapping_prob": math.nan}, "nsga2: swapping_prob=nan is out of range"),
        (Nsga2Tuner, {"objectives": ["flops"]}, r"nsga2: objectives must be an object, not \['flops'\]"),
        (Nsga2Tuner, {"objectives": {"flops": "min"}}, "nsga2: objective 'flops' must be maximize or minimize"),
    ],
)
def test_arguments_out_of_range_are_refused(kind: type[OptunaTuner], args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**args)


@pytest.mark.parametrize("kind", [CmaesTuner, GpTuner, Nsga2Tuner, TpeTuner])
def test_imported_data_that_does_not_fit_is_refused(kind: type[OptunaTuner]) -> None:
    with pytest.raises(ArchitectureError, match="missing keys: 'any', 'none', 'one', 'only', 'two'"):
        make(kind).import_data([{"parameter": {"layer": "op0"}, "value": 1.0}])


# ---- spaces that are too large


def test_a_gaussian_process_has_its_limit() -> None:
    refused = "tuner 'gp' learns at most 2000 parameters, and this search space has 2001"
    with pytest.raises(UsageError, match=refused) as failure:
        GpTuner().update_search_space({"in": inputs(2001, None)})
    assert failure.value.hint == "take a tuner for spaces of any size: evolution, local-search or random"
    GpTuner().update_search_space({"in": inputs(2000, None)})


@pytest.mark.parametrize("kind", [TpeTuner, Nsga2Tuner])
def test_what_would_take_optuna_minutes_is_refused(kind: type[OptunaTuner]) -> None:
    refused = "learns at most 5000 parameters, and this search space has 20000"
    with pytest.raises(UsageError, match=refused):
        kind().update_search_space({"in": inputs(20_000, 10_000)})


def test_a_matrix_of_covariances_has_its_limit() -> None:
    refused = "tuner 'cmaes' learns at most 2000 parameters, and this search space has 2001"
    with pytest.raises(UsageError, match=refused) as failure:
        CmaesTuner().update_search_space({"in": inputs(2001, None)})
    assert failure.value.hint == (
        "take use_separable_cma=true, or a tuner for spaces of any size: evolution, local-search or random"
    )
    CmaesTuner().update_search_space({"in": inputs(2000, None)})
    CmaesTuner(use_separable_cma=True).update_search_space({"in": inputs(2001, None)})
