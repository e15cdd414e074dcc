"""The view of a study: its trials, and what they say of the choices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from nnas_core._listing import shortened
from nnas_core.errors import InputError
from nnas_core.files import finite, finite_only
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.pareto import undominated
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, StudySettings, TrialRecord
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.viewing.costs import read_costs
from nnas_core.viewing.files import size_facts
from nnas_core.viewing.importance import importance_of
from nnas_core.viewing.view import Front, Trials, View, ViewedTrial

__all__ = ["view_study"]

_MOST_TRIALS = 4000
"""Trials that are shown one by one: half of them the best, half the newest."""

_MOST_DECISIONS = 400_000
"""In all trials that are shown: with 1,000 choices these are 400 trials."""

_LEAST_TRIALS = 50

_BEFORE = "_before_recalibration"
"""After the name of a metric: what it was with the statistics of the supernet."""

_BEST_PART = 10
"""Of ten trials one is among the best, whose candidates are counted."""


def view_study(
    store: StudyStore, study: StudyRecord, costs: tuple[str, ...] = (), damage: Damage | None = None
) -> View:
    """What a study shows.

    Args:
        store: where it is.
        study: which.
        costs: reports of profiles and latency tables.
        damage: gets the rows of trials that are not as they were written, which are left out, with a note that names
            them; None: that is an error.

    Raises:
        InputError: a file of costs is not what it should be, or a row is damaged, and ``damage`` is not given.
    """
    settings, space = study.settings, study.settings.space
    found, works = store.trials(study, damage=damage), store.in_use_by(study)
    best_first = _best_first(found, settings.optimize_mode)
    fronts, unknown = _fronts(best_first, settings)
    trials = _trials(found, best_first, settings, fronts)
    notes = [] if damage is None else _damages(damage)
    if len(trials.shown) < trials.count:
        notes.append(
            f"of {trials.count:,} trials {len(trials.shown):,} are listed, the best, the newest and fronts;"
            " curve, fronts and importance are of all"
        )
    if unknown:
        notes.append(f"no front of {', '.join(unknown)}: no objective says whether small or large is better")
    if trials.succeeded and not trials.importance:
        notes.append(f"{trials.succeeded} trials are too few, or too equal, to say which choices matter")
    best = best_first[: max(1, len(best_first) // _BEST_PART)]
    ended = sum(trial.state in ENDED_STATES for trial in found)
    facts = [
        ("state", "interrupted" if study.state == "running" and works is None else study.state),
        ("tuner", settings.tuner),
        ("trials", f"{ended:,} ended of {len(found):,}"),
        ("best value", f"{best_first[0].value:.6g} (trial {best_first[0].number})" if best_first else "-"),
        ("mode", settings.optimize_mode),
        *([("constraints", ", ".join(map(str, settings.constraints)))] if settings.constraints else []),
        *([("objectives", ", ".join(map(str, settings.objectives)))] if settings.objectives else []),
        ("created", study.created),
        *size_facts(space),
    ]
    return View(
        "study",
        study.name,
        space,
        facts,
        architecture=best_first[0].architecture if best_first else None,
        weights=_shares(best, space) if best else None,
        meaning=f"share of each candidate in {_the_best(len(best))}" if best else None,
        trials=trials,
        costs=read_costs(costs, space),
        notes=notes,
        running=works is not None,
    )


def _damages(damage: Damage) -> list[str]:
    try:
        damage.refuse()
    except InputError as error:
        return [f"{problem}: left out" for problem in error.problems]
    return []


def _the_best(count: int) -> str:
    return "the best trial" if count == 1 else f"the best {count:,} trials"


def _best_first(trials: Sequence[TrialRecord], mode: str) -> list[TrialRecord]:
    """Those that succeeded with a finite value, and meet the constraints."""
    sign = -1 if mode == "maximize" else 1
    good = [
        (sign * value, trial.number, trial)
        for trial in trials
        if trial.feasible and (value := finite(trial.value)) is not None
    ]
    return [trial for *_, trial in sorted(good, key=lambda one: one[:2])]


def _shares(trials: Sequence[TrialRecord], space: SearchSpace) -> dict[str, list[float]]:
    """How many of the trials take each candidate."""
    hard = [trial.architecture.indices() for trial in trials if trial.architecture.is_hard]
    counts = {choice.key: [0] * len(choice.candidates) for choice in space}
    for decisions in hard:
        for key, decision in decisions.items():
            for index in decision:
                counts[key][index] += 1
    return {key: [count / max(1, len(hard)) for count in row] for key, row in counts.items()}


def _trials(
    found: Sequence[TrialRecord], best_first: Sequence[TrialRecord], made: StudySettings, fronts: Sequence[Front]
) -> Trials:
    space = made.space
    most = max(_LEAST_TRIALS, min(_MOST_TRIALS, _MOST_DECISIONS // max(1, len(space))))
    chosen = {number for front in fronts for number in _spread(front.numbers, most // (4 * len(fronts)))}
    half = max(1, (most - len(chosen)) // 2)
    chosen.update(trial.number for trial in (*best_first[:half], *found[-half:]))
    measured = [
        (tuple(trial.architecture.indices().values()), value)
        for trial in found
        if trial.architecture.is_hard and (value := finite(trial.value)) is not None
    ]
    importance, exact = importance_of(space, [one for one, _ in measured], [value for _, value in measured])
    return Trials(
        mode=made.optimize_mode,
        count=len(found),
        counts=Counter(trial.state if trial.feasible else "infeasible" for trial in found),
        shown=[_viewed(trial) for trial in found if trial.number in chosen],
        best=best_first[0].number if best_first else None,
        curve=list(_improvements(best_first, made.optimize_mode)),
        fronts=fronts,
        importance=importance,
        exact=exact,
        succeeded=len(measured),
    )


def _spread(numbers: Sequence[int], most: int) -> Sequence[int]:
    """All, or about ``most`` from one end to the other."""
    if len(numbers) <= most:
        return numbers
    places = np.linspace(0, len(numbers) - 1, max(2, most)).round().astype(int)
    return [numbers[place] for place in places.tolist()]


def _viewed(trial: TrialRecord) -> ViewedTrial:
    return ViewedTrial(
        number=trial.number,
        state=trial.state,
        feasible=trial.feasible,
        value=finite(trial.value),
        seconds=finite(trial.seconds),
        measured=finite_only({**trial.metrics, **trial.cost}),
        decisions=list(trial.architecture.indices().values()) if trial.architecture.is_hard else None,
        error=None if trial.error is None else shortened(trial.error.strip().split("\n")[0]),
    )


def _improvements(best_first: Sequence[TrialRecord], mode: str) -> Iterator[tuple[int, float]]:
    best: float | None = None
    for trial in sorted(best_first, key=lambda one: one.number):
        value = trial.value
        if value is not None and (best is None or (value > best if mode == "maximize" else value < best)):
            best = value
            yield trial.number, value


def _signs(trials: Sequence[TrialRecord], made: StudySettings) -> dict[str, int | None]:
    """Name of a number beside the value -> 1 where larger is better, -1 where smaller is, None where nobody says.

    Objectives say it, and limits; a cost and a loss are to be small. The study's own metric, which equals the value,
    has its direction, and so has what that metric was before a recalibration.
    """
    own = 1 if made.optimize_mode == "maximize" else -1
    signs: dict[str, int | None] = {one.name: -1 if one.is_most else 1 for one in made.constraints}
    signs.update({one.name: one.sign for one in made.objectives[1:]})
    for trial in trials:
        signs.update((name, -1) for name in trial.cost if name not in signs)
    for name in dict.fromkeys(name for trial in trials for name in trial.metrics):
        metric = name.removesuffix(_BEFORE)
        if all(trial.metrics.get(metric) == trial.value for trial in trials):
            signs.setdefault(name, own)
        else:
            signs.setdefault(name, -1 if metric == "loss" else signs.get(metric))
    return signs


def _fronts(trials: Sequence[TrialRecord], made: StudySettings) -> tuple[list[Front], list[str]]:
    """A front for each number that is not the value itself, those of objectives first, and what has no direction."""
    own = 1 if made.optimize_mode == "maximize" else -1
    names = [one.name for one in made.objectives[1:]]
    signs = _signs(trials, made)
    signs = {name: signs[name] for name in dict.fromkeys([*names, *(name for name in signs if name not in names)])}
    fronts: list[Front] = []
    unknown: list[str] = []
    for name, sign in signs.items():
        pairs = [
            (trial.number, trial.value, second)
            for trial in trials
            if trial.value is not None and (second := finite(trial.numbers.get(name))) is not None
        ]
        if all(value == second for _, value, second in pairs):
            continue
        if sign is None:
            unknown.append(name)
            continue
        best = undominated(np.array([(own * value, sign * second) for _, value, second in pairs]))
        numbers = [number for (number, *_), is_best in zip(pairs, best.tolist(), strict=True) if is_best]
        fronts.append(Front(name, sign < 0, numbers))
    return fronts, unknown
