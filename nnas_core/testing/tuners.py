"""Every tuner passes these tests, to inherit: ``class TestMine(TunerConformance): tuner = Mine``."""

from __future__ import annotations

import collections
import copy
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import ClassVar, TypeAlias

import numpy as np

from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import ChoiceDocument, Parameter
from nnas_core.space.search_space import SearchSpace, SearchSpaceDocument
from nnas_core.space.sizes import size_in_words
from nnas_core.study.opening import create_tuner
from nnas_core.testing._global_state import global_state, under_other_states
from nnas_core.testing._memory import limited_memory
from nnas_core.tuners.base import ImportedTrial, NoMoreTrials, Tuner

__all__ = ["SPACES", "TunerConformance"]


def _layer(*names: str) -> ChoiceDocument:
    return {"_type": "layer_choice", "_value": list(names)}


def _inputs(n_chosen: int | None, *names: str) -> ChoiceDocument:
    return {"_type": "input_choice", "_value": {"candidates": list(names), "n_chosen": n_chosen}}


SPACES: dict[str, SearchSpaceDocument] = {
    "layers": {"a": _layer("x", "y"), "b": _layer("x", "y", "z", "w", "v"), "c": _layer("only"), "d": _layer(*"pqr")},
    "inputs": {
        "any": _inputs(None, "a", "b", "c"),
        "none": _inputs(0, "a", "b"),
        "one": _inputs(1, "a", "b", "c"),
        "two": _inputs(2, "a", "b", "c", "d"),
        "all": _inputs(2, "a", "b"),
    },
    "mixed": {"op": _layer("conv", "pool", "skip"), "from": _inputs(None, "op", "in"), "pick": _inputs(2, *"uvw")},
    "equal names": {"a": _layer("conv", "conv", "pool"), "b": _layer("conv", "pool"), "c": _inputs(1, "in", "in")},
    "large": {
        **{f"key{number}": _layer(*(f"op{index}" for index in range(2 + number % 6))) for number in range(20)},
        "many": _inputs(None, *(f"in{index}" for index in range(70))),
        "half": _inputs(5, *(f"in{index}" for index in range(10))),
    },
    "medium": {
        **{f"key{number}": _layer(*(f"op{index}" for index in range(2 + number))) for number in range(4)},
        "some": _inputs(None, *(f"in{index}" for index in range(6))),
        "half": _inputs(3, *(f"in{index}" for index in range(6))),
    },
    "one architecture": {"only": _layer("x"), "all": _inputs(1, "in")},
    "two architectures": {"maybe": _inputs(None, "in")},
}
"""Search spaces that a tuner serves, as JSON: every kind of choice, with sizes from 1 to more than 10^30."""

_SMALL = "mixed"
"""The space whose 36 architectures are proposed to the last."""

_MEDIUM = "medium"
"""The space in which proposals are compared with each other: none takes long, and no tuner knows all of it."""


_Parameters: TypeAlias = dict[str, Parameter]
"""A proposal for one trial."""

_Call: TypeAlias = tuple[str, int, float | None]
"""``"propose"`` or ``"tell"``, the number of the trial, and its value; None: it failed, or is not known yet."""


class TunerConformance:
    """Tests of a tuner, for pytest; set ``tuner``, and what else differs.

    They check that proposals fit spaces of all kinds of choices and have the form of NNI's parameters; that no
    architecture comes twice, and that a space ends; that all randomness comes from the seed; that the same calls give
    the same proposals, with failures and with several trials at a time, as a resumed study needs it; that minimizing
    is maximizing negated values; and that failures, and trials of elsewhere, are taken.

    A call that wants more than ``memory`` bytes fails, on Linux, before the machine does: one of the spaces has a
    choice of any of 70 inputs, whose 2^70 decisions no tuner can list.

    A tuner that does not name ``seed`` or ``optimize_mode`` in its constructor gets none, as in a study.
    """

    tuner: ClassVar[type[Tuner]]
    """The class to test."""

    arguments: ClassVar[Mapping[str, object]] = {}
    """For its constructor, besides the seed and the mode."""

    spaces: ClassVar[Mapping[str, SearchSpaceDocument]] = SPACES
    """By the names of ``SPACES``; a tuner that takes long to learn may have smaller ones."""

    repeats: ClassVar[bool] = False
    """True if it may propose an architecture again, and so need not end."""

    trials: ClassVar[int] = 40
    """Counts the trials of each test; more than a tuner takes to begin to learn."""

    memory: ClassVar[int] = 2**30
    """Bytes that a call of the tuner may take."""

    # ---- running

    def make(self, space: SearchSpaceDocument, seed: int = 0, optimize_mode: str = "maximize") -> Tuner:
        """Returns a new tuner that has received its search space."""
        tuner = self._built(seed, optimize_mode)
        tuner.update_search_space(copy.deepcopy(space))
        return tuner

    def _built(self, seed: int, optimize_mode: str) -> Tuner:
        name = self.tuner.__name__
        built = create_tuner(self.tuner, self.arguments, name=name, seed=seed, optimize_mode=optimize_mode)
        return _Limited(built, self.memory)

    def run(
        self, tuner: Tuner, space: SearchSpace, *, sign: float = 1.0, at_a_time: int = 1, failing: int = 0
    ) -> tuple[list[_Parameters], list[_Call]]:
        """Runs trials in a tuner, whose values are a fixed function of the architecture.

        Args:
            tuner: as ``make`` gives it.
            space: what it searches.
            sign: of the values.
            at_a_time: trials that run at the same time; the oldest ends first.
            failing: each trial of this number fails, 0: none.

        Returns:
            What was proposed, as JSON keeps it, and all calls.
        """
        proposed: list[_Parameters] = []
        calls: list[_Call] = []
        running: collections.deque[int] = collections.deque()
        while len(proposed) < self.trials:
            number = len(proposed)
            try:
                proposed.append(_kept(tuner.generate_parameters(number)))
            except NoMoreTrials:
                break
            calls.append(("propose", number, None))
            running.append(number)
            if len(running) == at_a_time:
                ended = running.popleft()
                fails = failing > 0 and ended % failing == failing - 1
                value = None if fails else sign * _value(space.parse(proposed[ended]))
                self.tell(tuner, ended, proposed[ended], value)
                calls.append(("tell", ended, value))
        return proposed, calls

    def tell(self, tuner: Tuner, number: int, parameters: _Parameters, value: float | None) -> None:
        """Ends a trial; metrics and costs go to tuners that take them, as in a study."""
        if value is not None:
            given = self._measured(parameters, value)
            tuner.receive_trial_result(number, copy.deepcopy(parameters), value, **given)
        tuner.trial_end(number, value is not None)

    def _measured(self, parameters: _Parameters, value: float) -> dict[str, dict[str, float]]:
        seconds = float(sum(np.sum(one["_idx"]) for one in parameters.values()))
        measured = {"metrics": {"metric": value}, "cost": {"seconds": seconds, "parameters": seconds**2}}
        named = inspect.signature(self.tuner.receive_trial_result).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in named.values())
        return {name: one for name, one in measured.items() if takes_any or name in named}

    def proposals(self, name: str = _MEDIUM, seed: int = 0) -> list[_Parameters]:
        """Returns what a new tuner proposes in one of ``spaces``, one trial after the other."""
        return self.run(self.make(self.spaces[name], seed), SearchSpace.from_json(self.spaces[name]))[0]

    def exhaust(self, tuner: Tuner, space: SearchSpace) -> Iterator[Architecture]:
        """Returns every proposal until there is none; the values get better and worse."""
        for number in range(space.size + 1):
            try:
                parameters = _kept(tuner.generate_parameters(number))
            except NoMoreTrials:
                return
            architecture = space.parse(parameters)
            yield architecture
            self.tell(tuner, number, parameters, _value(architecture))
        raise AssertionError(f"the space has {size_in_words(space.size)} architectures, and more were proposed")

    # ---- what must hold

    def test_proposals_fit_every_space(self) -> None:
        """In each of ``spaces`` they are architectures, in exactly the form of NNI's parameters, fit for JSON."""
        for name, document in self.spaces.items():
            space = SearchSpace.from_json(document)
            tuner = self.make(document)
            for number in range(min(self.trials, space.size)):
                parameters = tuner.generate_parameters(number)
                text = json.dumps(parameters, sort_keys=True, allow_nan=False)
                architecture = space.parse(json.loads(text))
                space.validate(architecture)
                expected = json.dumps(architecture.parameters(), sort_keys=True)
                assert text == expected, f"in the space {name!r} {text} was proposed, not {expected}"
                self.tell(tuner, number, parameters, _value(architecture))

    def test_the_search_space_is_left_as_it_was(self) -> None:
        """The document belongs to the caller."""
        for name, document in self.spaces.items():
            tuner = self._built(0, "maximize")
            given = copy.deepcopy(document)
            tuner.update_search_space(given)
            tuner.generate_parameters(0)
            assert given == document, f"the space {name!r} was changed"

    def test_no_architecture_is_proposed_twice(self) -> None:
        """Neither one trial after the other, nor several at a time, nor after failures."""
        if self.repeats:
            return
        for name, document in self.spaces.items():
            space = SearchSpace.from_json(document)
            for at_a_time, failing in ((1, 0), (4, 3)):
                proposed, _ = self.run(self.make(document), space, at_a_time=at_a_time, failing=failing)
                texts = [json.dumps(one, sort_keys=True) for one in proposed]
                twice = [text for text, count in collections.Counter(texts).items() if count > 1]
                assert not twice, f"in the space {name!r}, {at_a_time} at a time, these came again: {twice[:3]}"

    def test_a_space_ends_when_every_architecture_was_proposed(self) -> None:
        """Then ``NoMoreTrials`` is raised, however often it is asked."""
        if self.repeats:
            return
        for name in (_SMALL, "one architecture", "two architectures"):
            space = SearchSpace.from_json(self.spaces[name])
            tuner = self.make(self.spaces[name])
            found = {one.canonical for one in self.exhaust(tuner, space)}
            assert len(found) == space.size, f"{len(found)} of the {space.size} architectures of {name!r} were proposed"
            assert tuner.generate_multiple_parameters([space.size, space.size + 1]) == []

    def test_several_are_proposed_at_once(self) -> None:
        """As many as asked for, before any result is known."""
        space = SearchSpace.from_json(self.spaces["large"])
        found = self.make(self.spaces["large"]).generate_multiple_parameters([0, 1, 2, 3, 4])
        assert len(found) == 5, f"of 5 asked for at once {len(found)} were proposed"
        for parameters in found:
            space.validate(space.parse(_kept(parameters)))

    def test_equal_seeds_give_equal_proposals(self) -> None:
        """Whatever other tuners do meanwhile."""
        for name in (_MEDIUM, _SMALL):
            first = self.proposals(name, seed=1)
            self.proposals(name, seed=2)
            assert self.proposals(name, seed=1) == first, "equal seeds gave other proposals"

    def test_the_global_random_state_is_neither_used_nor_changed(self) -> None:
        """All randomness comes from the seed."""

        def proposed() -> list[_Parameters]:
            before = global_state()
            found = self.proposals()
            assert global_state() == before, "the global random state was changed"
            return found

        one, other = under_other_states(proposed)
        assert one == other, "proposals depend on the global random state"

    def test_the_same_calls_give_the_same_proposals(self) -> None:
        """In a fresh tuner, with failures, one and four trials at a time: a resumed study repeats its calls."""
        for name in (_MEDIUM, _SMALL):
            space = SearchSpace.from_json(self.spaces[name])
            for at_a_time, failing in ((1, 4), (4, 0), (4, 3)):  # one at a time without failures: equal seeds
                proposed, calls = self.run(self.make(self.spaces[name]), space, at_a_time=at_a_time, failing=failing)
                again = self.make(self.spaces[name])
                for what, number, value in calls:
                    if what == "tell":
                        self.tell(again, number, proposed[number], value)
                    else:
                        found = _kept(again.generate_parameters(number))
                        assert found == proposed[number], (
                            f"in the space {name!r}, {at_a_time} at a time, proposal {number} was not repeated"
                        )

    def test_minimizing_is_maximizing_negated_values(self) -> None:
        """Both give the same proposals."""
        if "optimize_mode" not in inspect.signature(self.tuner).parameters:
            return
        for name in (_MEDIUM, _SMALL):
            space = SearchSpace.from_json(self.spaces[name])
            maximized, _ = self.run(self.make(self.spaces[name]), space)
            minimized, _ = self.run(self.make(self.spaces[name], optimize_mode="minimize"), space, sign=-1.0)
            assert minimized == maximized, "negated values gave other proposals"

    def test_failures_are_survived(self) -> None:
        """Where every trial fails there is a next proposal."""
        space = SearchSpace.from_json(self.spaces[_MEDIUM])
        for at_a_time in (1, 4):
            proposed, _ = self.run(self.make(self.spaces[_MEDIUM]), space, at_a_time=at_a_time, failing=1)
            assert len(proposed) == self.trials

    def test_trials_of_elsewhere_are_taken(self) -> None:
        """At the beginning and later; equal imports give equal proposals, and none is proposed that was imported."""
        space = SearchSpace.from_json(self.spaces[_SMALL])
        known = [space.at(index) for index in range(0, space.size, 3)]
        data: list[ImportedTrial] = [
            {"parameter": parameters, "value": value, **self._measured(parameters, value)}
            for parameters, value in ((one.parameters(), _value(one)) for one in known)
        ]
        half = len(data) // 2
        found: list[list[_Parameters]] = []
        for _ in range(2):
            tuner = self.make(self.spaces[_SMALL])
            tuner.import_data(copy.deepcopy(data[:half]))
            first = _kept(tuner.generate_parameters(0))
            left = [one for one in data[half:] if one["parameter"] != first]
            self.tell(tuner, 0, first, _value(space.parse(first)))
            tuner.import_data(copy.deepcopy(left))
            found.append([first, *(_kept(tuner.generate_parameters(number)) for number in range(1, 6))])
        assert found[0] == found[1], "equal imports gave other proposals"
        later = {space.parse(one).canonical for one in found[0][1:]}
        if not self.repeats and self.tuner.import_data is not Tuner.import_data:
            assert not later & {one.canonical for one in known}, "an imported architecture was proposed"


class _Limited(Tuner):
    """A tuner whose calls may take no more than some memory.

    Args:
        tuner: what it calls.
        memory: bytes.
    """

    def __init__(self, tuner: Tuner, memory: int) -> None:
        super().__init__(tuner.seed, tuner.optimize_mode)
        self._tuner = tuner
        self._memory = memory

    def _limited(self, method: str) -> AbstractContextManager[None]:
        return limited_memory(self._memory, f"{type(self._tuner).__name__}.{method}")

    def update_search_space(self, search_space: SearchSpaceDocument) -> None:
        with self._limited("update_search_space"):
            self._tuner.update_search_space(search_space)

    def generate_parameters(self, parameter_id: int, **kwargs: object) -> _Parameters:
        with self._limited("generate_parameters"):
            return self._tuner.generate_parameters(parameter_id, **kwargs)

    def generate_multiple_parameters(self, parameter_id_list: list[int], **kwargs: object) -> list[_Parameters]:
        with self._limited("generate_multiple_parameters"):
            return self._tuner.generate_multiple_parameters(parameter_id_list, **kwargs)

    def receive_trial_result(self, parameter_id: int, parameters: _Parameters, value: float, **kwargs: object) -> None:
        with self._limited("receive_trial_result"):
            self._tuner.receive_trial_result(parameter_id, parameters, value, **kwargs)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        with self._limited("trial_end"):
            self._tuner.trial_end(parameter_id, success, **kwargs)

    def import_data(self, data: list[ImportedTrial]) -> None:
        with self._limited("import_data"):
            self._tuner.import_data(data)


def _kept(parameters: _Parameters) -> _Parameters:
    """Parameters as they come back from where they are stored."""
    kept: _Parameters = json.loads(json.dumps(parameters))
    return kept


def _value(architecture: Architecture) -> float:
    """Returns a number from 0 to 1 for each architecture, to which each decision adds a fixed part."""
    parts = []
    for key, decision in architecture.indices().items():
        digest = hashlib.sha256(f"{key}{decision}".encode()).digest()
        parts.append(int.from_bytes(digest[:6], "big") / 2**48)
    return sum(parts) / len(parts)
