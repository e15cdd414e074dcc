"""The studies of an assessment: random architectures beside the found one, and trainings in pairs, one study a seed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from nnas_core.assessment.report import RandomOnes, TrainedAlone
from nnas_core.errors import InputError, NoResultError, UsageError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.ray.engine import RaySettings
from nnas_core.space.architecture import Architecture
from nnas_core.study.failures import causes
from nnas_core.study.limits import RunSettings
from nnas_core.study.storage.records import StudyRecord, TrialRecord, check_name
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.training.settings import TrainingSettings
from nnas_core.workflows.assessed import Assessed, seconds_of
from nnas_core.workflows.settings import AlgorithmSettings, AssessSettings, CommandSettings, GoalSettings, TuneSettings
from nnas_core.workflows.tune import tune
from nnas_core.workflows.tune_command import tune_command

__all__ = ["AssessStudies", "Means", "Measured", "Trained", "study_name"]

_RANDOM, _RANDOM_TRAINED = 100, 20
"""Random architectures that are measured, if nothing else is said."""


@dataclass(frozen=True)
class Means:
    """How the trials of an assessment run.

    Attributes:
        begin: entered for each study, with its name and its number of trials; gives what its run is told.
        local: the processes of a study's trials, by its name; None: trials of a model stay in this process.
        seed: lets global random generators begin with a seed.
        cluster: where processes are, if not on this machine.
    """

    begin: Callable[[str, int], AbstractContextManager[RunSettings]]
    local: Callable[[str], LocalSettings | None]
    seed: Callable[[int], None]
    cluster: RaySettings | None = None


@dataclass(frozen=True)
class Measured:
    """The study of the random architectures.

    Attributes:
        study: that one.
        found: the trial of the found architecture.
        architectures: the random ones, but for those that turned out to be beyond a constraint, in the order of draws.
        report: all numbers.
        seconds: how long each trial took.
    """

    study: StudyRecord
    found: TrialRecord
    architectures: Sequence[Architecture]
    report: RandomOnes
    seconds: Sequence[float]


@dataclass(frozen=True)
class Trained:
    """The studies of the trainings.

    Attributes:
        report: all numbers; None: see ``why_not``.
        seconds: how long each training of a random architecture took.
        why_not: why there are no numbers.
        notes: what went wrong, in a sentence each.
    """

    report: TrainedAlone | None = None
    seconds: Sequence[float] = ()
    why_not: str = ""
    notes: Sequence[str] = ()


def study_name(assessed: Assessed, settings: AssessSettings) -> str:
    """Returns the name of the study that has the random architectures.

    Raises:
        UsageError: the one that is asked for is no name of a study.
    """
    name = settings.study
    if name is None:
        own = assessed.name if assessed.kind == "study" else Path(assessed.name).resolve().name
        name = "assess-" + re.sub(r"[^\w.-]", "_", own)[:60]
    check_name(name)
    return name


class AssessStudies:
    """Runs the studies of one assessment.

    Args:
        settings: how many random architectures, and how they are trained.
        assessed: what was found.
        store: where the studies are, or will be.
        means: how their trials run.
        resume: go on with them.

    Raises:
        UsageError: a study of such a name is there, and shall not be gone on with.
        InputError: there is none to go on with.
    """

    def __init__(
        self, settings: AssessSettings, assessed: Assessed, store: StudyStore, means: Means, resume: bool
    ) -> None:
        self._settings, self._assessed, self._store, self._means = settings, assessed, store, means
        self._name = study_name(assessed, settings)
        self._count = settings.random or (_RANDOM_TRAINED if assessed.measured == "alone" else _RANDOM)
        self._there = {one.name for one in store.studies(Damage(store.where))} if store.is_made else set()
        known = [name for name in (self._name, *self._trainings.values()) if name in self._there]
        if known and not resume:
            raise UsageError(
                f"a study named {known[0]!r} exists already",
                where=store.where,
                hint="go on with it by `resume`, or choose another `study` name",
            )
        if resume and self._name not in self._there:
            store.study(self._name)  # which says what there is

    @property
    def _trainings(self) -> dict[int, str]:
        """The studies of the trainings, by their seeds; that of the random ones may be the first of them."""
        if not self._settings.train or self._assessed.training is None:
            return {}
        first = self._settings.seed
        names = {seed: f"{self._name}-seed-{seed}" for seed in range(first, first + self._settings.seeds)}
        return {**names, first: self._name} if self._assessed.measured == "alone" else names

    # ---- running

    def _run(self, name: str, seed: int, first: Sequence[Architecture], count: int, goals: GoalSettings) -> str:
        """Run a study to its end, or go on with it; returns the reason.

        Raises:
            InputError: the study that is there has others.
        """
        one, store, means = self._assessed, self._store, self._means
        masks: list[object] = [each.masks() for each in first]
        resume, local = name in self._there, means.local(name)
        if resume and store.study(name).settings.tuner_args.get("first") != masks:
            raise InputError(
                f"study {name!r} has other architectures",
                where=store.where,
                hint="give the same `train`, `random` and `seed` as then, or choose another `study` name",
            )
        algorithms = AlgorithmSettings("random", {"first": masks})
        with means.begin(name, count) as run:
            means.seed(seed)
            if one.training is not None:
                tuned = self._tuned(one.training, name, seed, algorithms, goals)
                ended = tune(tuned, store, local, means.cluster, run=run, resume=resume)
            elif one.trial_command is not None and local is not None:
                command = CommandSettings(
                    study=name,
                    space=one.space,
                    trial_command=one.trial_command,
                    goals=goals,
                    optimize_mode=one.mode,
                    algorithms=algorithms,
                    seed=seed,
                )
                ended = tune_command(command, store, local, means.cluster, run=run, resume=resume)
        if ended.reason == "stopped":
            raise NoResultError(
                f"study {name!r} was asked to stop before all of its trials were done", hint="go on by `resume`"
            )
        return ended.reason

    def _tuned(
        self, training: TrainingSettings, name: str, seed: int, algorithms: AlgorithmSettings, goals: GoalSettings
    ) -> TuneSettings:
        return TuneSettings(
            training=replace(training, data=replace(training.data, seed=seed)),
            study=name,
            goals=goals,
            algorithms=algorithms,
            checkpoint=self._assessed.checkpoint if name == self._name else None,
        )

    def _trials(self, study: StudyRecord) -> tuple[TrialRecord | None, list[TrialRecord]]:
        """The trial of the found architecture, and the others."""
        canonical = self._assessed.architecture.canonical
        trials = self._store.trials(study)
        found = [trial for trial in trials if trial.architecture.canonical == canonical]
        return (found[0] if found else None), [trial for trial in trials if trial.architecture.canonical != canonical]

    # ---- random ones

    def measure(self) -> Measured:
        """Measures random architectures beside the found one.

        Raises:
            NoResultError: it has no value, or none of them has.
        """
        one = self._assessed
        count = min(self._count + 1, one.space.size)
        reason = self._run(self._name, self._settings.seed, [one.architecture], count, one.goals)
        study = self._store.study(self._name)
        found, others = self._trials(study)
        if found is None or found.value is None:
            why = "it is beyond the constraints" if found is None else str(found.error)
            raise NoResultError(
                f"the found architecture could not be measured: {why}",
                hint="see the study by `nnas study trials`; try again with another `study` name",
            )
        failed = [trial for trial in others if trial.value is None]
        fit = [trial for trial in others if trial.value is not None and trial.feasible]
        values = [trial.value for trial in fit if trial.value is not None]
        if not values:
            beyond = f", {len(others) - len(failed)} are beyond the constraints" if len(others) > len(failed) else ""
            raise NoResultError(
                f"none of the {len(others)} random architectures has a value to compare with: {len(failed)} failed"
                f"{beyond}",
                problems=causes(failed),
            )
        report = RandomOnes(
            study=self._name,
            measured=one.measured,
            epochs=one.training.epochs if one.training is not None and one.measured == "alone" else None,
            asked=self._count,
            whole=len(others) + 1 == one.space.size or (bool(one.goals.constraint) and reason == "exhausted"),
            failed=len(failed),
            infeasible=len(others) - len(failed) - len(fit),
            found=found.value,
            values=values,
            sign=_sign(study),
        )
        architectures = [trial.architecture for trial in others if trial.feasible]
        return Measured(study, found, architectures, report, [seconds_of(trial) for trial in fit])

    # ---- trainings

    def train(self, random: Sequence[Architecture]) -> Trained:
        """Trains the found architecture and the first of the random ones, once a seed.

        Args:
            random: those that were drawn.

        Raises:
            InputError: a study that is there has others.
        """
        one = self._assessed
        if one.training is None:
            return Trained(why_not="the trial command trains, not nnas: there are no seeds to pair by")
        if not self._trainings:
            return Trained(why_not="no trainings were asked for")
        chosen = list(random[: self._settings.train])
        goals = GoalSettings(objective=one.goals.objective, latency_table=one.goals.latency_table)
        notes, seconds = [], []
        rows: dict[int, tuple[float, dict[str, float]]] = {}
        for seed, name in self._trainings.items():
            try:
                study = self._trained(name, seed, chosen, goals)
            except NoResultError as error:
                notes.append(f"the trainings with seed {seed} are left out: {error.message}")
                continue
            found, others = self._trials(study)
            values = {each.architecture.canonical: each.value for each in others if each.value is not None}
            if found is None or found.value is None:
                notes.append(f"seed {seed} is left out: the training of the found architecture failed with it")
                continue
            rows[seed] = found.value, values
            seconds += [seconds_of(each) for each in others if each.architecture.canonical in values]
        return self._paired(one.training.epochs, chosen, rows, seconds, notes)

    def _trained(self, name: str, seed: int, chosen: Sequence[Architecture], goals: GoalSettings) -> StudyRecord:
        """A study whose trials have all ended."""
        if name == self._name:  # random ones are trained anyway
            return self._store.study(name)
        first = [self._assessed.architecture, *chosen]
        self._run(name, seed, first, len(first), goals)
        return self._store.study(name)

    def _paired(
        self,
        epochs: int,
        chosen: Sequence[Architecture],
        rows: dict[int, tuple[float, dict[str, float]]],
        seconds: list[float],
        notes: list[str],
    ) -> Trained:
        """Pairs up what has values with every seed."""
        names = [each.canonical for each in chosen]
        whole = [name for name in names if rows and all(name in values for _, values in rows.values())]
        if not whole:
            return Trained(why_not="no training of a random architecture has a pair", notes=notes)
        studies = [self._trainings[seed] for seed in rows]
        report = TrainedAlone(
            studies=studies,
            epochs=epochs,
            seeds=list(rows),
            asked=self._settings.train,
            failed=len(names) - len(whole),
            found=[found for found, _ in rows.values()],
            values=[[values[name] for _, values in rows.values()] for name in whole],
            sign=_sign(self._store.study(studies[0])),
        )
        return Trained(report, seconds, "", notes)


def _sign(study: StudyRecord) -> int:
    return 1 if study.settings.optimize_mode == "maximize" else -1
