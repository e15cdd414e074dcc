"""A tuner proposes the architecture of each trial and learns from the results.

The methods are those of NNI 1.x, with the same search-space and parameters JSON, so that a tuner written
for it needs only another import.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from nnas_core.space.choice import Parameter
    from nnas_core.space.goals import Objective
    from nnas_core.space.region import Region
    from nnas_core.space.search_space import SearchSpaceDocument

__all__ = ["ImportedTrial", "NoMoreTrials", "Tuner"]

ImportedTrial: TypeAlias = dict[str, object]
"""A trial of elsewhere: its ``parameter``, its ``value``, and, where they are known, its ``metrics`` and ``cost``."""


class NoMoreTrials(Exception):
    """Raised by ``generate_parameters`` when there is nothing left to propose; ends the study, not an error."""


class Tuner(ABC):
    """Base of all tuners; a subclass in one file of your own is named as ``file.py:Class``.

    A tuner keeps no files. A resumed study builds a fresh one with the same arguments and repeats all calls
    in their old order, so whatever is drawn at random must come from a generator made from ``seed``.

    Args:
        seed: of the study; make your generator from it.
        optimize_mode: ``"maximize"`` or ``"minimize"``: which values of a trial are better.

    A subclass that has its own ``__init__`` gets ``seed`` and ``optimize_mode`` only if it names them.
    """

    def __init__(self, seed: int = 0, optimize_mode: str = "maximize") -> None:
        self.seed = seed
        self.optimize_mode = optimize_mode

    serves_objectives: ClassVar[bool] = False
    """True if several objectives are served: ``receive_trial_result`` and ``import_data`` get ``objectives`` then."""

    def keep_within(self, region: Region) -> None:
        """Receives what may be proposed, where a study has constraints; called before ``update_search_space``.

        A tuner that heeds it draws from ``region`` and looks whether a code is ``in`` it. What another one proposes
        beside it fails at once, without a trial; after some in a row a draw from the region is tried instead.

        Args:
            region: architectures, as codes of ``nnas_core.space.Codes``, that meet the constraints known beforehand.
        """

    def aim_at(self, objectives: Sequence[Objective]) -> None:
        """Receives the objectives of a study that has several; called before ``update_search_space``.

        Args:
            objectives: with their directions; only a tuner with ``serves_objectives`` gets any.
        """

    @abstractmethod
    def update_search_space(self, search_space: SearchSpaceDocument) -> None:
        """Receives the search-space JSON; called once, before anything is proposed.

        Args:
            search_space: key -> ``{"_type": "layer_choice", "_value": [names]}`` or
                ``{"_type": "input_choice", "_value": {"candidates": [...], "n_chosen": int | None}}``.
        """

    @abstractmethod
    def generate_parameters(self, parameter_id: int, **kwargs: object) -> dict[str, Parameter]:
        """Proposes trial ``parameter_id`` (0, 1, 2, ...).

        Returns:
            key -> ``{"_value": name, "_idx": index}`` for a layer choice, lists of both for an input choice.

        Raises:
            NoMoreTrials: there is nothing left to propose, now or ever.
        """

    def generate_multiple_parameters(
        self, parameter_id_list: list[int], **kwargs: object
    ) -> list[dict[str, Parameter]]:
        """Proposes several trials; fewer than asked for when ``NoMoreTrials`` comes in between."""
        proposals: list[dict[str, Parameter]] = []
        for parameter_id in parameter_id_list:
            try:
                proposals.append(self.generate_parameters(parameter_id, **kwargs))
            except NoMoreTrials:
                break
        return proposals

    @abstractmethod
    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Parameter], value: float, **kwargs: object
    ) -> None:
        """Learns the final metric of a trial that succeeded.

        Args:
            parameter_id: as given to ``generate_parameters``.
            parameters: what was proposed.
            value: finite; larger is better unless ``optimize_mode`` is ``"minimize"``.
            **kwargs: ``metrics`` and ``cost``, numbers by name; and where a study has several objectives,
                ``objectives``: their values in its order, times -1 where smaller is better, so that all are to be
                large. What the signature does not name is not given.
        """

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Learns that a trial ended; after ``receive_trial_result`` when it succeeded."""

    def import_data(self, data: list[ImportedTrial]) -> None:
        """Learns from trials of elsewhere."""
