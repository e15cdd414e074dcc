"""A tuner keeps no files: a resumed study repeats all its calls, in their old order, in a fresh one."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nnas_core.errors import InputError, NnasWarning, NoResultError, UserCodeError
from nnas_core.randomness import generator
from nnas_core.space.architecture import Architecture
from nnas_core.space.region import Region
from nnas_core.study.storage.records import StudySettings, digest_of
from nnas_core.study.storage.tuner_log import Event, Stored
from nnas_core.tuners.base import NoMoreTrials, Tuner

__all__ = ["Proposer"]

_MOST_REFUSED = 20
"""Proposals in a row that may be beyond a constraint."""

_Parameters = dict[str, Any]  # as ``Tuner.generate_parameters`` returns them
_Asked = tuple[int, _Parameters]  # with the id of the proposal


@dataclass
class Proposer:
    """Asks and tells a tuner; counts its calls and checks its proposals.

    Attributes:
        tuner: fresh, and given its search space.
        settings: of the study: the tuner's name for errors, the space that proposals must fit, what makes a trial
            feasible, and what is to be large or small.
        region: that proposals must be in; None: all are.
        untold: what was proposed for trials that the tuner knows no result of, by their number.
        retried: trials that failed, as the tuner was told, and have another chance.
    """

    tuner: Tuner
    settings: StudySettings
    region: Region | None = None
    untold: dict[int, _Asked] = field(default_factory=dict)
    retried: set[int] = field(default_factory=set)
    _next_id: int = 0
    _ended: set[int] = field(default_factory=set)
    _also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.tuner.receive_trial_result).parameters.values()
        takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
        named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        given = ("metrics", "cost", *(["objectives"] if len(self.settings.objectives) > 1 else []))
        self._also = tuple(name for name in given if takes_any or name in named)

    @property
    def name(self) -> str:
        """Holds what errors call the tuner."""
        return self.settings.tuner

    @property
    def first_untold(self) -> int | None:
        """Holds the number of the first trial whose result is still to come; None if there is none."""
        return min((*self.untold, *self.retried), default=None)

    def propose(self) -> tuple[int, _Parameters, Architecture]:
        """Returns the id of the next proposal, its parameters, and its architecture.

        What is not in the region fails at once; after some in a row, a draw from the region stands for the last.

        Raises:
            NoMoreTrials: there is none, or none was found within the constraints.
            UserCodeError: the tuner proposed what is no architecture of the space.
        """
        try:
            return self._proposed()
        except NoResultError as error:  # what was tried before is a result
            warnings.warn(f"{error.message}; no other trial begins", NnasWarning, stacklevel=2)
            raise NoMoreTrials from error

    def _proposed(self) -> tuple[int, _Parameters, Architecture]:
        region = self.region
        for refused in range(_MOST_REFUSED + 1):
            parameter_id = self._next_id
            parameters = self.tuner.generate_parameters(parameter_id)
            self._next_id += 1
            architecture = self._checked(parameters)
            if region is None or region.codes.read(architecture.parameters()) in region:
                break
            if refused < _MOST_REFUSED:
                self.tuner.trial_end(parameter_id, False)
                continue
            # the same again when the calls are repeated
            code = region.draw(generator(self.settings.seed, "inside", parameter_id))
            parameters = region.codes.parameters(code)
            architecture = self._checked(parameters)
        return parameter_id, parameters, architecture

    def _checked(self, parameters: object) -> Architecture:
        try:
            architecture = self.settings.space.parse(parameters)
            self.settings.space.validate(architecture)
            decisions = architecture.indices()
        except InputError as error:
            what = f"{error.where}: {error.message}" if error.where else error.message
            raise self._unfit(error.problems or [what]) from error
        problems = [
            f"{key}: a layer choice takes one candidate, not {len(decision)}"
            for key, decision in decisions.items()
            if len(decision) != 1 and self.settings.space[key].kind == "layer_choice"
        ]
        if problems:
            raise self._unfit(problems)
        return architecture

    def _unfit(self, problems: Sequence[str]) -> UserCodeError:
        return UserCodeError(
            f"tuner {self.name!r} proposed what is no architecture of the search space", problems=problems
        )

    def tell(self, trial: Stored, architecture: Callable[[int], Architecture]) -> None:
        """Lets the tuner know how a trial ended; metrics and costs too, if its ``receive_trial_result`` takes them.

        What became of another chance it learns as a trial of elsewhere: its own it was told has failed.

        Args:
            trial: which.
            architecture: looks up the architecture of a trial.
        """
        asked = self.untold.pop(trial.number, None)
        if asked is not None:
            self._tell(*asked, trial)
        elif self._is_result(trial):
            self.tuner.import_data([self._imported(trial, architecture(trial.number))])
        self.retried.discard(trial.number)
        self._ended.add(trial.number)

    def _tell_failed(self, trial: Stored) -> None:
        """Lets the tuner know that a trial failed which is tried again later."""
        asked = self.untold.pop(trial.number, None)
        if asked is not None:  # else it was told so before
            self._tell(*asked, replace(trial, state="failed", value=None))
        self.retried.add(trial.number)
        self._ended.discard(trial.number)

    def tell_again(self, trial: Stored, parameter_id: int, parameters: _Parameters) -> None:
        """Lets the tuner know how a trial ended whose architecture it proposed again.

        One that has not ended counts as failed: the tuner shall propose something else, and learns of its result later.
        """
        self._tell(parameter_id, parameters, trial)

    def _tell(self, parameter_id: int, parameters: _Parameters, trial: Stored) -> None:
        succeeded = self._is_result(trial)
        if trial.value is not None and succeeded:
            self.tuner.receive_trial_result(parameter_id, parameters, trial.value, **self._more(trial))
        self.tuner.trial_end(parameter_id, succeeded)

    def _is_result(self, trial: Stored) -> bool:
        """Returns true for what a tuner shall learn from: it succeeded, meets the constraints, and has all objectives.

        One that was imported may lack some.
        """
        numbers = trial.numbers
        complete = len(self.settings.objectives) < 2 or self.settings.unreported(numbers) is None
        return trial.state == "succeeded" and complete and not self.settings.unmet(numbers)

    def _more(self, trial: Stored) -> dict[str, Any]:
        """Returns what a tuner learns besides the value, as far as it takes it; objectives are to be large."""
        numbers = trial.numbers
        given: dict[str, Any] = {"metrics": dict(trial.metrics), "cost": dict(trial.cost)}
        if "objectives" in self._also:
            given["objectives"] = [one.sign * numbers[one.name] for one in self.settings.objectives]
        return {name: given[name] for name in self._also}

    def replay(
        self, events: list[Event], trials: dict[int, Stored], architecture: Callable[[int], Architecture]
    ) -> None:
        """Repeats the calls of an earlier run, or those that others have made since the last time.

        A tuner that now proposes something else is told the results of what was tried, under the old ids. Imported
        trials go to ``import_data``, where they came in the order of the calls.

        Args:
            events: all that follow those repeated and made here, in order.
            trials: those of the events by their number, as they are stored now.
            architecture: looks up the architecture of a trial.
        """
        strayed: list[int] = []
        again: dict[int, _Asked] = {}  # a repeat is told right after its proposal
        imported: list[dict[str, object]] = []
        for event in events:
            trial = trials[event.number]
            if event.kind == "imported":
                if self._is_result(trial):
                    imported.append(self._imported(trial, architecture(event.number)))
                self._ended.add(event.number)
                continue
            self._import(imported)
            if event.kind == "told":
                self._tell_as_before(trial, again, architecture)
            elif event.kind == "failed":
                self._tell_failed(trial)
            elif not self._propose_as_before(trial, again, architecture):
                strayed.append(event.number)
        self._import(imported)
        if strayed:
            warnings.warn(
                f"tuner {self.name!r} does not repeat its proposals ({len(strayed)} differ, first that of "
                f"trial {strayed[0]}); it goes on with the results that are stored",
                NnasWarning,
                stacklevel=3,
            )

    def _propose_as_before(
        self, trial: Stored, again: dict[int, _Asked], architecture: Callable[[int], Architecture]
    ) -> bool:
        """Asks for the proposal that was made then; returns false if the tuner makes another one now."""
        repeated = self._repeat(trial)
        parameter_id, parameters = (self._next_id, None) if repeated is None else repeated
        known = trial.number in self.untold or trial.number in self._ended or trial.number in self.retried
        asked = again if known else self.untold
        asked[trial.number] = parameter_id, parameters or architecture(trial.number).parameters()
        self._next_id = parameter_id + 1
        return parameters is not None

    def _tell_as_before(
        self, trial: Stored, again: dict[int, _Asked], architecture: Callable[[int], Architecture]
    ) -> None:
        if trial.number not in again:
            self.tell(trial, architecture)
            return
        known = trial if trial.number in self._ended else replace(trial, state="running", value=None)
        self.tell_again(known, *again.pop(trial.number))

    def _imported(self, trial: Stored, architecture: Architecture) -> dict[str, object]:
        return {"parameter": architecture.parameters(), "value": trial.value, **self._more(trial)}

    def _import(self, imported: list[dict[str, object]]) -> None:
        """Hands over the trials of elsewhere that came in a row, and forgets them."""
        if not imported:
            return
        if type(self.tuner).import_data is Tuner.import_data:
            warnings.warn(
                f"tuner {self.name!r} does not learn from imported trials (it has no import_data)",
                NnasWarning,
                stacklevel=4,
            )
        self.tuner.import_data(imported[:])
        imported.clear()

    def _repeat(self, trial: Stored) -> _Asked | None:
        """Returns the next proposal; None if it is not that of ``trial``, whose place it takes."""
        before = self._next_id
        try:
            parameter_id, parameters, architecture = self.propose()
        except (NoMoreTrials, UserCodeError):
            parameter_id, architecture = before, None
        if architecture is not None and digest_of(architecture.canonical) == trial.digest:
            return parameter_id, parameters
        self._next_id = max(parameter_id, before)
        return None
