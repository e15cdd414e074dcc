"""Tuners that see architectures as codes share how they meet their search space, and how proposals and results pass.

Tuner <- CodeTuner        proposes codes, none that it must not: random, grid, and Optuna's samplers
      <- LearningTuner    learns from values as well: evolution, local-search, bananas, ppo, bayes, ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from nnas_core.plugins.arguments import sign_of
from nnas_core.randomness import generator
from nnas_core.space.choice import Parameter
from nnas_core.space.encoding import Code, Codes
from nnas_core.space.goals import Objective
from nnas_core.space.region import Region
from nnas_core.space.search_space import SearchSpace, SearchSpaceDocument
from nnas_core.space.unseen import Unseen
from nnas_core.tuners.base import ImportedTrial, NoMoreTrials, Tuner

__all__ = ["CodeTuner", "LearningTuner"]


class CodeTuner(Tuner):
    """Proposes codes; a subclass writes ``_begin`` and ``_propose``, and here no result matters to it."""

    name: ClassVar[str]
    """Names the tuner for users, in messages, and its stream of random numbers."""

    _region: Region | None = None

    def keep_within(self, region: Region) -> None:
        """Proposes what is in ``region`` only: nothing else counts as unseen."""
        self._region = region

    def update_search_space(self, search_space: SearchSpaceDocument) -> None:
        """Begins in a space of which nothing was seen."""
        self._codes = Codes(SearchSpace.from_json(search_space))
        self._unseen = Unseen(self._codes, self._region)
        self._begin()

    def _begin(self) -> None:
        """Forgets everything about an earlier space; the codes of the new one are there."""

    @abstractmethod
    def _propose(self, parameter_id: int) -> Code | None:
        """Chooses what to try; None where there is nothing left."""

    def _see(self, code: Code) -> None:
        """Learns that an architecture was proposed or imported."""
        self._unseen.see(code)

    def generate_parameters(self, parameter_id: int, **kwargs: object) -> dict[str, Parameter]:
        """Proposes an architecture.

        Raises:
            NoMoreTrials: there is none that may still be proposed.
        """
        code = self._propose(parameter_id)
        if code is None:
            raise NoMoreTrials
        self._see(code)
        return self._codes.parameters(code)

    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Parameter], value: float, **kwargs: object
    ) -> None:
        """Remembers that the architecture was tried; the value is not used."""
        self._see(self._codes.read(parameters))

    def import_data(self, data: list[ImportedTrial]) -> None:
        """Remembers architectures that were tried elsewhere, whatever came out.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for entry in data:
            self._see(self._codes.parse(entry["parameter"]))


class LearningTuner(CodeTuner):
    """Learns from values too, and draws from a generator of its own; a subclass writes ``_learn`` besides."""

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        super().__init__(seed, optimize_mode)
        self._sign = sign_of(f"{self.name}: optimize_mode", optimize_mode)
        self._rng = generator(seed, "tuner", self.name)

    _several = False
    """True if a study has several objectives: ``_vectors`` has them, and ``_learn`` the first alone."""

    def aim_at(self, objectives: Sequence[Objective]) -> None:
        """Learns the values of all objectives from now on."""
        self._several = True

    def update_search_space(self, search_space: SearchSpaceDocument) -> None:
        """Begins in a space of which nothing was seen."""
        self._vectors: dict[Code, tuple[float, ...]] = {}
        super().update_search_space(search_space)

    def _vector(self, code: Code, given: object) -> None:
        """Remembers the values of all objectives, which are to be large."""
        if self._several and isinstance(given, Sequence):
            self._vectors[code] = tuple(float(one) for one in given)

    @abstractmethod
    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Learns the value of an architecture that was seen.

        Args:
            code: what was tried.
            value: larger is better, whatever the mode.
            parameter_id: of the proposal; None for a trial of elsewhere.
        """

    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Parameter], value: float, **kwargs: object
    ) -> None:
        """Learns the value of a trial that succeeded."""
        code = self._codes.read(parameters)
        self._see(code)
        self._vector(code, kwargs.get("objectives"))
        self._learn(code, self._sign * value, parameter_id)

    def import_data(self, data: list[ImportedTrial]) -> None:
        """Learns from architectures that were tried elsewhere; those without a finite value only count as known.

        Raises:
            ArchitectureError: a ``parameter`` does not fit the space.
        """
        for entry, (code, value) in zip(data, self._codes.trials(data), strict=True):
            self._see(code)
            if value is not None:
                self._vector(code, entry.get("objectives"))
                self._learn(code, self._sign * value, None)
