"""The conformance class fails for tuners that break what it asks: each of these breaks one thing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from nnas_core import Tuner
from nnas_core.testing import TunerConformance
from nnas_core.tuners.evolution import EvolutionTuner
from nnas_core.tuners.random import RandomTuner


class Good(EvolutionTuner):
    """Passes everything."""

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(population=5, sample=2, seed=seed, optimize_mode=optimize_mode)


class Repeating(Good):
    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        self._repeats = True


class Endless(RandomTuner):
    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        if not self._unseen:
            self.update_search_space(self._codes.space.to_json())
        return super().generate_parameters(parameter_id)


class OfNumpy(Good):
    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        proposed = super().generate_parameters(parameter_id)
        return {key: {"_value": one["_value"], "_idx": np.array(one["_idx"])} for key, one in proposed.items()}


class OfNames(Good):
    """Names that nnas can read are not NNI's parameters."""

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        return self._codes.space.parse(super().generate_parameters(parameter_id)).names()


class Greedy(Good):
    def update_search_space(self, search_space: dict[str, Any]) -> None:
        super().update_search_space(search_space)
        search_space.clear()


class Global(Good):
    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        self._rng = np.random.default_rng(np.random.randint(2**31))
        return super().generate_parameters(parameter_id)


class Shared(Good):
    """Every one takes the next seed of the process, whatever it is given."""

    seeds: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(next(self.seeds), optimize_mode)


class Forgetful(Good):
    """Draws anew after each failure, from whatever is there."""

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        if not success:
            self._rng = np.random.default_rng()


class Upwards(Good):
    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed)


class Fragile(Good):
    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        if not success:
            raise RuntimeError("no trial may fail")


class Unlearned(Good):
    def import_data(self, data: list[dict[str, Any]]) -> None:
        """Take none."""


class Single(Good):
    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: Any) -> list[dict[str, Any]]:
        return super().generate_multiple_parameters(parameter_id_list[:1])


class Listing(Good):
    """Looks at every decision of a choice."""

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        self._decisions = [list(choice.decisions()) for choice in self._codes.space if len(choice.candidates) == 70]
        return super().generate_parameters(parameter_id)


def outcome(kind: type[Tuner], test: str) -> Callable[[], None]:
    """One of the tests for a tuner."""
    case = type("Case", (TunerConformance,), {"tuner": kind, "trials": 20, "memory": 2**24})()
    method: Callable[[], None] = getattr(case, test)
    return method


@pytest.mark.parametrize(
    ("kind", "test", "error"),
    [
        (Repeating, "no_architecture_is_proposed_twice", "these came again"),
        (Endless, "a_space_ends_when_every_architecture_was_proposed", "has 36 architectures, and more were proposed"),
        (OfNumpy, "proposals_fit_every_space", "not JSON serializable"),
        (OfNames, "proposals_fit_every_space", "in the space 'layers' .* was proposed, not"),
        (Greedy, "the_search_space_is_left_as_it_was", "the space 'layers' was changed"),
        pytest.param(
            Global,
            "the_global_random_state_is_neither_used_nor_changed",
            "the global random state was changed",
            marks=pytest.mark.global_random,
        ),
        (
            Listing,
            "proposals_fit_every_space",
            r"^Listing.generate_parameters took more than 16 MiB: does it list what it should draw\? A choice of any",
        ),
        (Shared, "equal_seeds_give_equal_proposals", "equal seeds gave other proposals"),
        (Forgetful, "the_same_calls_give_the_same_proposals", "proposal .* was not repeated"),
        (Upwards, "minimizing_is_maximizing_negated_values", "negated values gave other proposals"),
        (Fragile, "failures_are_survived", "no trial may fail"),
        (Unlearned, "trials_of_elsewhere_are_taken", "an imported architecture was proposed"),
        (Single, "several_are_proposed_at_once", "of 5 asked for at once 1 were proposed"),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else "",
)
def test_a_tuner_that_breaks_a_rule_is_caught(kind: type[Tuner], test: str, error: str) -> None:
    outcome(Good, f"test_{test}")()
    with pytest.raises((AssertionError, TypeError, RuntimeError), match=error):
        outcome(kind, f"test_{test}")()
