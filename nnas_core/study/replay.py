"""A tuner keeps no files: a resumed study repeats all its calls, in their old order, in a fresh one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnas_core.architecture import Architecture
from nnas_core.errors import InputError, NnasWarning, UserCodeError
from nnas_core.space import SearchSpace
from nnas_core.study.owned import Event, Stored, digest_of
from nnas_core.tuner import NoMoreTrials, Tuner

__all__ = ["Proposer"]


@dataclass
class Proposer:
    """A tuner with its calls counted and its proposals checked.

    Attributes:
        tuner: fresh, and given its search space.
        name: what errors call it.
        space: what proposals must fit.
        untold: what was proposed for trials that the tuner knows no result of, by their number.
    """

    tuner: Tuner
    name: str
    space: SearchSpace
    untold: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    _next_id: int = 0

    def propose(self) -> tuple[int, dict[str, Any], Architecture]:
        """The id of the next proposal, its parameters, and its architecture.

        Raises:
            NoMoreTrials: there is none.
            UserCodeError: the tuner proposed what is no architecture of the space.
        """
        parameter_id = self._next_id
        parameters = self.tuner.generate_parameters(parameter_id)
        self._next_id += 1
        return parameter_id, parameters, self._checked(parameters)

    def _checked(self, parameters: Any) -> Architecture:
        try:
            architecture = self.space.parse(parameters)
            self.space.validate(architecture)
            decisions = architecture.indices()
        except InputError as error:
            what = f"{error.where}: {error.message}" if error.where else error.message
            raise self._unfit(error.problems or [what]) from error
        problems = [
            f"{key}: a layer choice takes one candidate, not {len(decision)}"
            for key, decision in decisions.items()
            if len(decision) != 1 and self.space[key].kind == "layer_choice"
        ]
        if problems:
            raise self._unfit(problems)
        return architecture

    def _unfit(self, problems: Sequence[str]) -> UserCodeError:
        return UserCodeError(
            f"tuner {self.name!r} proposed what is no architecture of the search space", problems=problems
        )

    def tell(self, number: int, succeeded: bool, value: float | None) -> None:
        """Let the tuner know how trial ``number`` ended."""
        parameter_id, parameters = self.untold.pop(number)
        if succeeded and value is not None:
            self.tuner.receive_trial_result(parameter_id, parameters, value)
        self.tuner.trial_end(parameter_id, succeeded)

    def replay(
        self, events: list[Event], trials: dict[int, Stored], architecture: Callable[[int], Architecture]
    ) -> None:
        """Repeat the calls of an earlier run.

        A tuner that now proposes something else is told the results of what was tried, under the old ids.

        Args:
            events: all of them, in order.
            trials: every stored trial by its number.
            architecture: looks up the architecture of a trial.
        """
        strayed = []
        for event in events:
            trial = trials[event.number]
            if event.kind == "told":
                self.tell(event.number, trial.state == "succeeded", trial.value)
                continue
            parameter_id = self._next_id
            parameters = self._repeat(trial)
            if parameters is None:
                strayed.append(event.number)
                parameters = architecture(event.number).parameters()
            self.untold[event.number] = parameter_id, parameters
            self._next_id = parameter_id + 1
        if strayed:
            warnings.warn(
                f"tuner {self.name!r} does not repeat its proposals ({len(strayed)} differ, first that of "
                f"trial {strayed[0]}); it goes on with the results that are stored",
                NnasWarning,
                stacklevel=3,
            )

    def _repeat(self, trial: Stored) -> dict[str, Any] | None:
        try:
            _, parameters, architecture = self.propose()
        except (NoMoreTrials, UserCodeError):
            return None
        return parameters if digest_of(architecture.canonical) == trial.digest else None
