"""Studies and trials are plain values, the same in memory, in a database and as JSON."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict

from nnas_core.errors import InputError, UsageError
from nnas_core.space.architecture import Architecture
from nnas_core.space.goals import Constraint, Objective, constraints_of, objectives_of
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.origin import Origin

__all__ = [
    "ENDED_STATES",
    "OPTIMIZE_MODES",
    "STUDY_STATES",
    "TRIAL_STATES",
    "LimitsDocument",
    "StudyRecord",
    "StudySettings",
    "TrialRecord",
    "check_name",
    "composed",
    "digest_of",
    "limits_of",
    "numbers_of",
    "study_of",
    "trial_of",
    "worst_value",
]

OPTIMIZE_MODES = ("maximize", "minimize")

STUDY_STATES = ("created", "running", "interrupted", "finished")
"""``running`` only means that a coordinator did not say good-bye; whether it lives, its lease tells."""

TRIAL_STATES = ("waiting", "running", "succeeded", "failed", "stopped")
"""``stopped``: ended early, by an assessor or a person; what the trial reported last is its metric ``intermediate``."""

ENDED_STATES = ("succeeded", "failed", "stopped")

_LONGEST_NAME = 100
_LONGEST_NAME_BYTES = 240  # a folder is named so too


class LimitsDocument(TypedDict):
    """Limits of a study, as they are stored: those of ``Limits``; None also where no run has set any."""

    trials: int | None
    duration_s: float | None
    concurrency: int | None


def limits_of(stored: Mapping[str, Any]) -> LimitsDocument:
    """Returns the limits in a row of the table of studies."""
    return {
        "trials": stored.get("trials"),
        "duration_s": stored.get("duration_s"),
        "concurrency": stored.get("concurrency"),
    }


@dataclass(frozen=True)
class StudySettings:
    """Holds everything that decides which trials a study makes; a resumed study must have the same.

    Attributes:
        name: letters and digits of any script, ``.``, ``_`` and ``-``; at most 100. It is kept composed (NFC).
        space: the search space.
        tuner: the name it was found by.
        tuner_args: its arguments, without ``seed`` and ``optimize_mode``.
        seed: of the tuner, and of everything else that is random in the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.
        config: every other option that matters to the results, by name; plain JSON. ``assessor`` and ``assessor_arg``
            are among them where trials may end early, ``constraint`` and ``objective``, lists of texts, where there are
            limits or other aims than the trials' own value.
        origin: where it was begun, and with which programs; where a study goes on does not matter.

    Raises:
        UsageError: a bad name or mode.
    """

    name: str
    space: SearchSpace
    tuner: str
    tuner_args: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    optimize_mode: str = "maximize"
    config: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "name", composed(self.name))
        if self.optimize_mode not in OPTIMIZE_MODES:
            raise UsageError(f"optimize_mode must be maximize or minimize, not {self.optimize_mode!r}")
        for name in ("tuner_args", "config"):  # tuples become lists now, as they will when read back
            object.__setattr__(self, name, json.loads(json.dumps(dict(getattr(self, name)), allow_nan=False)))
        for name in ("constraint", "objective"):
            texts = self.config.get(name, [])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise UsageError(f"`{name}` must be a list of texts, not {json.dumps(texts)[:80]}")
        _ = self.constraints, self.objectives

    @property
    def assessor(self) -> str | None:
        """The name that the assessor is found by, if there is one."""
        name: str | None = self.config.get("assessor")
        return name

    @property
    def assessor_args(self) -> Mapping[str, Any]:
        """Arguments of the assessor, without ``optimize_mode``."""
        args: Mapping[str, Any] = self.config.get("assessor_arg", {})
        return args

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The limits that a trial must meet to be the best."""
        return constraints_of(self.config.get("constraint", ()))

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What is to be large or small; the first is the value of a trial. Empty: what a trial says is its value."""
        return objectives_of(self.config.get("objective", ()))

    def unmet(self, numbers: Mapping[str, float]) -> list[Constraint]:
        """Returns the constraints that numbers, by name, do not meet; one that is not there meets none."""
        return [one for one in self.constraints if not one.holds(numbers.get(one.name, math.nan))]

    def unreported(self, numbers: Mapping[str, float]) -> tuple[str, str] | None:
        """Returns a name that a constraint or an objective has and a trial lacks, after the parameter that has it."""
        for what, named in (("constraint", self.constraints), ("objective", self.objectives)):
            for one in named:
                if one.name not in numbers:
                    return what, one.name
        return None

    def differences(self, now: StudySettings) -> list[str]:
        """Returns one line for each thing that differs in ``now``; none for equal settings."""
        pairs: list[tuple[str, object, object]] = [("tuner", self.tuner, now.tuner)]
        pairs += _entries("tuner argument ", self.tuner_args, now.tuner_args)
        pairs += [("seed", self.seed, now.seed), ("optimize_mode", self.optimize_mode, now.optimize_mode)]
        pairs += _entries("", self.config, now.config)
        lines = [
            f"{name}: {_show(old)} before, {_show(new)} now"
            for name, old, new in pairs
            if old != new and not self._mean_the_same(old, new, now)
        ]
        space = self.space.differences(now.space, ("the study", "the model now"))
        lines += [f"search space: {line}" for line in space[:20]]
        if len(space) > 20:
            lines.append(f"search space: and {len(space) - 20} more keys")
        return lines

    def _mean_the_same(self, old: object, new: object, now: StudySettings) -> bool:
        return isinstance(old, str) and isinstance(new, str) and self.origin.means(old, now.origin, new)


class _Missing:
    pass


def _entries(prefix: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[tuple[str, object, object]]:
    names = sorted(set(old) | set(new))
    return [(prefix + name, old.get(name, _Missing), new.get(name, _Missing)) for name in names]


def _show(value: object) -> str:
    return "not set" if value is _Missing else json.dumps(value, sort_keys=True, ensure_ascii=False)


@dataclass(frozen=True)
class StudyRecord:
    """A stored study.

    Attributes:
        id: its row.
        settings: as it was created.
        state: one of ``STUDY_STATES``.
        created: when, UTC, ISO 8601.
        version: of the nnas that created it.
    """

    id: int
    settings: StudySettings
    state: str
    created: str
    version: str

    @property
    def name(self) -> str:
        """Holds the name, unique in its database."""
        return self.settings.name

    def with_state(self, state: str) -> StudyRecord:
        """Returns the same study in another state."""
        return replace(self, state=state)

    def to_json(self) -> dict[str, object]:
        """Returns the study document (schema ``study``)."""
        return {
            "name": self.name,
            "state": self.state,
            "tuner": self.settings.tuner,
            "tuner_args": dict(self.settings.tuner_args),
            "seed": self.settings.seed,
            "optimize_mode": self.settings.optimize_mode,
            "config": dict(self.settings.config),
            "search_space": self.settings.space.to_json(),
            "fingerprint": self.settings.space.fingerprint,
            "created": self.created,
            "nnas_version": self.version,
        }


@dataclass(frozen=True)
class TrialRecord:
    """A stored trial.

    Attributes:
        number: 0, 1, 2, ... in the order of the proposals.
        state: one of ``TRIAL_STATES``.
        attempt: which evaluation this is, from 1; one that was lost or interrupted counts. 0: imported, not evaluated
            here.
        architecture: what is evaluated; no other trial of the study has it.
        value: *the* metric; None unless it succeeded.
        metrics, cost: as the evaluation returned them.
        error: why it failed, or who but an assessor stopped it; else None.
        seconds: how long the evaluation took.
        started, finished: when, UTC, ISO 8601.
        log_folder: where the engine that evaluates it keeps logs; None: nowhere.
        feasible: False if it succeeded, and its numbers do not meet the constraints of the study.
    """

    number: int
    state: str
    attempt: int
    architecture: Architecture
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float | None = None
    started: str | None = None
    finished: str | None = None
    log_folder: str | None = None
    feasible: bool = True

    @property
    def numbers(self) -> dict[str, float]:
        """All that was measured, by name; a metric goes before a cost of its name."""
        return numbers_of(self.value, self.metrics, self.cost)

    @property
    def lasting_cost(self) -> dict[str, float]:
        """The costs of the architecture: all but how long the trial took."""
        return {name: value for name, value in self.cost.items() if name != "seconds"}

    def to_json(self) -> dict[str, object]:
        """Returns the trial document (schema ``trial``), the architecture as masks."""
        return {
            "number": self.number,
            "state": self.state,
            "feasible": self.feasible,
            "attempt": self.attempt,
            "architecture": self.architecture.masks(),
            "value": self.value,
            "metrics": dict(self.metrics),
            "cost": dict(self.cost),
            "error": self.error,
            "seconds": self.seconds,
            "started": self.started,
            "finished": self.finished,
        }


def numbers_of(value: float | None, metrics: Mapping[str, float], cost: Mapping[str, float]) -> dict[str, float]:
    """Returns what constraints and objectives may be about: costs, metrics, which go before them, and ``value``."""
    own = {} if value is None else {"value": value}
    return {**own, **cost, **metrics}


def check_name(name: str) -> None:
    """Refuses a study name that could be mistaken for a path, an option or markup.

    Raises:
        UsageError: always with the rule.
    """
    if not name:
        raise UsageError("the name of the study is empty", hint="give one, or leave out `study`")
    kinds = [unicodedata.category(character)[0] for character in name]
    fit = kinds[0] in "LN" and all(
        kind in "LMN" or character in "._-\u200c\u200d" for kind, character in zip(kinds, name, strict=True)
    )
    if not fit or len(name) > _LONGEST_NAME or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise UsageError(
            f"bad study name {name[:120]!r}",
            hint="use letters, digits, '.', '_' and '-', a letter or digit first, at most 100",
        )


def composed(name: str) -> str:
    """Returns the one spelling that a name is stored and found by, however its accents were typed."""
    return unicodedata.normalize("NFC", name)


def digest_of(canonical: str) -> str:
    """Returns what makes an architecture unique in its study; of ``Architecture.canonical``."""
    return hashlib.sha256(canonical.encode()).hexdigest()


def worst_value(optimize_mode: str) -> float:
    """Returns what a report that is not finite counts as: no value is worse."""
    return -math.inf if optimize_mode == "maximize" else math.inf


def study_of(row: Any) -> StudyRecord:
    """Returns the study in a sound row of the table of studies.

    Raises:
        InputError, UsageError: what it says fits no study.
    """
    space = SearchSpace.from_json(row.search_space)
    if space.fingerprint != row.fingerprint:
        raise InputError("its search space was changed")
    settings = StudySettings(
        name=row.name,
        space=space,
        tuner=row.tuner,
        tuner_args=row.tuner_args,
        seed=int(row.seed),
        optimize_mode=row.optimize_mode,
        config=row.config,
        origin=Origin.from_json(row.origin),
    )
    return StudyRecord(row.id, settings, row.state, row.created, row.nnas_version)


def trial_of(row: Any, study: StudyRecord, state: str | None = None) -> TrialRecord:
    """Returns the trial in a sound row of the table of trials, perhaps in another state than it says.

    Raises:
        InputError: its architecture is none of the study's search space.
    """
    try:
        architecture = Architecture.from_canonical(row.architecture, study.settings.space.choices)
    except (ValueError, TypeError, RecursionError) as error:
        problem = f"study {study.name!r}, trial {row.number}: architecture: none of the study's search space"
        raise InputError("the study database is damaged", problems=[problem]) from error
    succeeded = row.state == "succeeded"
    made = study.settings
    return TrialRecord(
        number=row.number,
        state=row.state if state is None else state,
        attempt=row.attempt,
        architecture=architecture,
        value=row.value,
        metrics=row.metrics,
        cost=row.cost,
        error=row.error,
        seconds=row.seconds,
        started=row.started,
        finished=row.finished,
        log_folder=row.log_folder,
        feasible=not (succeeded and made.constraints and made.unmet(numbers_of(row.value, row.metrics, row.cost))),
    )
