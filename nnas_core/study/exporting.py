"""The results of a study for other programs: as ``nnictl experiment export`` writes them, and as a study of Optuna.

In Optuna's, which has a database of its own and is for its dashboard and plots, a key where one candidate is taken is a
categorical parameter; where several may be, a parameter ``KEY[NAME]`` for each candidate says whether it is.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.files import finite
from nnas_core.space.choice import Choice, Decision
from nnas_core.study.storage.database import parse_url, without_password
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

__all__ = ["results_json", "write_optuna_study"]

_STATES = {"succeeded": "COMPLETE", "failed": "FAIL", "stopped": "PRUNED"}

_Name = str | int | bool  # what Optuna calls a candidate


# ---- as NNI's


def results_json(
    trials: Sequence[TrialRecord], intermediates: Mapping[int, Sequence[float]]
) -> list[dict[str, object]]:
    """Returns a document of the schema ``results``: value as a JSON text, number as a text, and what was reported.

    A report that was not finite is null. Costs are there where some are known, and what is beyond the constraints of
    its study says so.

    Args:
        trials: that succeeded.
        intermediates: by the number of the trial.
    """
    return [
        {
            "parameter": trial.architecture.parameters(),
            "value": json.dumps(trial.value),
            "id": str(trial.number),
            "intermediate": [finite(value) for value in intermediates.get(trial.number, ())],
            **({"cost": trial.lasting_cost} if trial.lasting_cost else {}),
            **({} if trial.feasible else {"feasible": False}),
        }
        for trial in trials
    ]


# ---- as Optuna's


def write_optuna_study(
    url: str,
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    intermediates: Mapping[int, Sequence[float]],
    *,
    storage: str,
) -> int:
    """Writes a study of the same name that ``optuna.load_study`` and ``optuna-dashboard`` read.

    Args:
        url: of Optuna's database, made if there is none.
        study: which.
        trials: of it; those that have not ended are left out.
        intermediates: what they reported on the way, by number.
        storage: where our study is; it cannot be the same place.

    Returns:
        The number of trials written.

    Raises:
        UsageError: Optuna is not installed, ``url`` is none or is ours, or there is a study of that name.
        EnvironmentFailure: the database cannot be written.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("Optuna is not installed", hint="pip install 'nnas[optuna]'")
    where = without_password(url)
    if _is_one_place(url, storage):
        raise UsageError(
            "Optuna's study needs a database of its own", where=where, hint="give another one, as sqlite:///optuna.db"
        )
    import optuna  # late: it is an extra, and slow to import

    chosen = [trial for trial in trials if trial.state in ENDED_STATES]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        made = optuna.create_study(study_name=study.name, storage=url, directions=_directions(study))
        made.set_user_attr("tuner", study.settings.tuner)
        made.set_user_attr("seed", study.settings.seed)
        for trial in chosen:
            made.add_trial(_frozen(trial, study, intermediates.get(trial.number, ())))
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(
            f"there is an Optuna study named {study.name!r} already", where=where, hint="give another database"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error
        raise EnvironmentFailure(
            f"cannot write Optuna's study: {str(cause).splitlines()[0]}",
            where=where,
            hint="check the path or the server",
        ) from error
    finally:
        optuna.logging.set_verbosity(verbosity)
    return len(chosen)


def _is_one_place(url: str, storage: str) -> bool:
    theirs, ours = parse_url(url), parse_url(storage)
    if theirs.get_backend_name() == ours.get_backend_name() == "sqlite":
        return Path(theirs.database or "").resolve() == Path(ours.database or "").resolve()
    return theirs == ours


def _frozen(trial: TrialRecord, study: StudyRecord, reported: Sequence[float]) -> FrozenTrial:
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import FrozenTrial, TrialState

    parameters: dict[str, _Name] = {}
    distributions: dict[str, BaseDistribution] = {}
    decisions = trial.architecture.indices()
    for choice in study.settings.space:
        for name, value, candidates in _categories(choice, decisions[choice.key]):
            parameters[name] = value
            distributions[name] = CategoricalDistribution(candidates)
    finished = _local(trial.finished)
    state, values = _values(trial, study)
    return FrozenTrial(
        number=-1,  # Optuna numbers them itself, in the order that they come
        trial_id=-1,
        state=TrialState[state],
        value=None,
        values=values,
        datetime_start=_local(trial.started) or finished,
        datetime_complete=finished,
        params=parameters,
        distributions=distributions,
        user_attrs=_attributes(trial),
        system_attrs=_constrained(trial, study),
        intermediate_values=dict(enumerate(reported)),
    )


def _directions(study: StudyRecord) -> list[StudyDirection]:
    from optuna.study import StudyDirection

    objectives = study.settings.objectives
    if len(objectives) < 2:
        return [StudyDirection[study.settings.optimize_mode.upper()]]
    return [StudyDirection.MINIMIZE if one.is_min else StudyDirection.MAXIMIZE for one in objectives]


def _values(trial: TrialRecord, study: StudyRecord) -> tuple[str, list[float] | None]:
    """Returns the state and the values; of several objectives all or none, as Optuna has it."""
    state, objectives = _STATES[trial.state], study.settings.objectives
    if len(objectives) < 2:
        return state, None if trial.value is None else [trial.value]
    if trial.state != "succeeded":
        return state, None
    if study.settings.unreported(trial.numbers) is not None:  # it was imported
        return _STATES["failed"], None
    return state, [trial.numbers[one.name] for one in objectives]


def _constrained(trial: TrialRecord, study: StudyRecord) -> dict[str, list[float]]:
    """Returns what Optuna calls constraints: none is above 0 of a trial that meets them all."""
    constraints = study.settings.constraints
    if trial.state != "succeeded" or not constraints:
        return {}
    beyond = [one.excess(trial.numbers.get(one.name, math.nan)) for one in constraints]
    return {"constraints": [min(excess, sys.float_info.max) for excess in beyond]}


def _attributes(trial: TrialRecord) -> dict[str, float | str]:
    found: dict[str, float | str] = {"number": trial.number}
    found.update({f"cost {name}": one for name, one in trial.cost.items()})
    found.update({f"metric {name}": one for name, one in trial.metrics.items()})
    return found if trial.error is None else {**found, "error": trial.error}


def _categories(choice: Choice, decision: Decision) -> Iterator[tuple[str, _Name, tuple[_Name, ...]]]:
    """Yields name, value and candidates of each of Optuna's parameters."""
    distinct = len(set(choice.candidates)) == len(choice.candidates)
    names: tuple[_Name, ...] = choice.candidates if distinct else tuple(range(len(choice.candidates)))
    if choice.n_chosen == 1:
        yield choice.key, names[decision[0]], names
        return
    chosen = set(decision)
    for index, name in enumerate(names):
        yield f"{choice.key}[{name}]", index in chosen, (False, True)


def _local(time: str | None) -> datetime | None:
    """Returns a time as Optuna has it: in the machine's own zone, and without saying so."""
    return None if time is None else datetime.fromisoformat(time).astimezone().replace(tzinfo=None)
