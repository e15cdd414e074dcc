"""What the tuners that see architectures as codes have in common: the space, proposals, results and imports."""

from __future__ import annotations

import pytest

from nnas_core.errors import NnasWarning, UsageError
from nnas_core.plugins import registry
from nnas_core.space.encoding import Code
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._code_tuner import LearningTuner
from nnas_core.tuners.base import NoMoreTrials
from tests.tuners.sample_spaces import inputs, layers

SPACE = {"op": layers(2), "pick": inputs(3, 1)}
LEARNING = [name for name in registry.entries("tuners") if issubclass(registry.find("tuners", name), LearningTuner)]


class ListTuner(LearningTuner):
    """Proposes all codes in order, and keeps what it is told."""

    name = "list"

    def _begin(self) -> None:
        self.told: list[tuple[Code, float, int | None]] = []
        self._rest = iter(self._codes.all())

    def _propose(self, parameter_id: int) -> Code | None:
        return next((code for code in self._rest if code in self._unseen), None)

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        self.told.append((code, value, parameter_id))


def list_tuner(optimize_mode: str = "maximize") -> ListTuner:
    """A tuner that has the space."""
    tuner = ListTuner(optimize_mode=optimize_mode)
    tuner.update_search_space(SPACE)
    return tuner


def test_a_proposal_has_the_parameters_of_its_code() -> None:
    assert list_tuner().generate_parameters(0) == {
        "op": {"_value": "op0", "_idx": 0},
        "pick": {"_value": ["in0"], "_idx": [0]},
    }


@pytest.mark.parametrize(("optimize_mode", "learned"), [("maximize", 2.5), ("minimize", -2.5)])
def test_a_result_is_learned_so_that_larger_is_better(optimize_mode: str, learned: float) -> None:
    tuner = list_tuner(optimize_mode)
    tuner.receive_trial_result(0, tuner.generate_parameters(0), 2.5)
    assert tuner.told == [((0, 0), learned, 0)]


def test_a_trial_of_elsewhere_is_learned_without_a_number_and_not_proposed() -> None:
    tuner = list_tuner()
    known = SearchSpace.from_json(SPACE).at(0).parameters()
    tuner.import_data([{"parameter": known, "value": 2}])
    assert tuner.told == [((0, 0), 2.0, None)]
    assert tuner.generate_parameters(0)["pick"] == {"_value": ["in1"], "_idx": [1]}


def test_a_trial_of_elsewhere_without_a_finite_value_is_known_and_not_learned() -> None:
    tuner = list_tuner()
    known = SearchSpace.from_json(SPACE).at(0).parameters()
    with pytest.warns(NnasWarning, match="imported value nan is not a finite number"):
        tuner.import_data([{"parameter": known, "value": float("nan")}])
    assert tuner.told == []
    assert tuner.generate_parameters(0)["pick"] == {"_value": ["in1"], "_idx": [1]}


def test_a_new_search_space_forgets_the_old_one() -> None:
    tuner = list_tuner()
    first = tuner.generate_parameters(0)
    tuner.update_search_space(SPACE)
    assert tuner.generate_parameters(0) == first


def test_a_wrong_mode_is_refused_by_the_name_of_the_tuner() -> None:
    with pytest.raises(UsageError, match="list: optimize_mode must be maximize or minimize, not 'best'"):
        ListTuner(optimize_mode="best")


@pytest.mark.parametrize("name", LEARNING)
def test_what_was_tried_without_being_proposed_is_not_proposed(name: str) -> None:
    tuner = registry.find("tuners", name)()
    tuner.update_search_space(SPACE)
    tried = SearchSpace.from_json(SPACE).at(4).parameters()
    tuner.receive_trial_result(7, tried, 1.0)
    proposed = [tuner.generate_parameters(number) for number in range(5)]
    assert tried not in proposed
    with pytest.raises(NoMoreTrials):
        tuner.generate_parameters(5)
