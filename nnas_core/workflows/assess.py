"""``nnas assess``: what was found, against random architectures that are measured in the same way."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from nnas_core.assessment.collapse import IdleCandidates, collapse_of, kind_by_name, kinds_by_name
from nnas_core.assessment.report import Assessment, Budget, RandomOnes, Subject, TrainedAlone
from nnas_core.errors import InputError, NoResultError
from nnas_core.mutables.idle import idle_kinds
from nnas_core.runs.checkpoint import RunFacts
from nnas_core.runs.weights import changes, weights_digest
from nnas_core.study.storage.store import StudyStore
from nnas_core.workflows.assess_studies import AssessStudies, Means, Measured, Trained
from nnas_core.workflows.assessed import Assessed
from nnas_core.workflows.settings import AssessSettings
from nnas_core.workflows.setup import Setup

__all__ = ["assess"]

_FEW = 5
"""Architectures, below which an interval over them says little."""


def assess(
    settings: AssessSettings, assessed: Assessed, store: StudyStore, means: Means, *, resume: bool = False
) -> Assessment:
    """Measure random architectures beside the found one, and compare.

    Args:
        settings: how many, and how.
        assessed: what was found.
        store: where the studies are, or will be.
        means: how their trials run.
        resume: go on with them, as far as there are any.

    Raises:
        InputError: model, checkpoint, architecture and space do not belong together; or it has weights for decisions.
        UsageError: a study of such a name is there; or there is none to go on with.
        NoResultError: the found architecture has no value, or none of the random ones.
        Interrupted: every finished trial is stored.
    """
    if assessed.space.size == 1:
        raise NoResultError("the search space has one architecture: there is nothing to compare it with")
    if not assessed.architecture.is_hard:
        raise InputError(
            "its architecture has weights instead of decisions: random ones have none", where=assessed.name
        )
    studies = AssessStudies(settings, assessed, store, means, resume)
    idle, by, changed = _candidates(assessed, means, settings.seed)
    measured = studies.measure()
    trained = studies.train(measured.architectures)
    budget, no_budget = _budget(settings, assessed, measured, trained)
    limited = measured.architectures if assessed.goals.constraint else None
    return Assessment(
        subject=_subject(assessed, measured),
        random=measured.report,
        alone=trained.report,
        budget=budget,
        collapse=collapse_of(assessed.space, assessed.architecture, idle, by, limited),
        fail_under=settings.fail_under,
        seed=settings.seed,
        why_not={
            "trained alone": trained.why_not,
            "equal compute": no_budget,
            "collapse": "no choice has both a skip, zero or pool, and a candidate that learns",
        },
        notes=[
            *_meaning(measured.report, trained.report, assessed),
            *_missing(measured, trained.report),
            *assessed.notes,
            *trained.notes,
            *changed,
        ],
    )


def _candidates(assessed: Assessed, means: Means, seed: int) -> tuple[IdleCandidates, str, list[str]]:
    """Load the model once, to see that it is the one that was searched, and which of its candidates are idle.

    Returns:
        The kinds of candidates, what said so, and what has changed since then.
    """
    one = assessed
    if one.training is None:
        return kinds_by_name(one.space), "names", []
    means.seed(seed)
    setup = Setup(replace(one.training, device="cpu"))
    if setup.space != one.space:
        raise InputError(
            "the model has another search space than what is assessed",
            where=one.training.model.model,
            problems=setup.space.differences(one.space, ("the model", one.name)),
            hint="take the model as it was then",
        )
    if one.checkpoint is not None:
        setup.inherit(one.checkpoint)
        if one.weights is not None and weights_digest(setup.model) != one.weights:
            raise InputError(
                f"has other weights than the trials of study {one.name!r} had",
                where=one.checkpoint,
                hint="take the checkpoint that it was made with",
            )
    changed: list[str] = []
    if one.header is not None:
        facts: RunFacts = {
            "command": one.header["command"],
            "model": one.training.model.model,
            "seed": one.header["seed"],
            "digests": {"code": setup.code(), "samples": setup.samples},
        }
        changed = changes(one.header, facts)
    return idle_kinds(setup.model, kind_by_name), "modules", changed


def _subject(assessed: Assessed, measured: Measured) -> Subject:
    made, found = measured.study.settings, measured.found
    names = [one.name for one in made.objectives]
    names += [
        name for name, value in found.metrics.items() if value == found.value and not name.endswith("_recalibration")
    ]
    return Subject(
        kind=assessed.kind,
        name=assessed.name,
        architecture=assessed.architecture.masks(),
        space_size=assessed.space.size,
        constraints=list(map(str, assessed.goals.constraints)),
        metric=next(iter(names), None),
        mode=made.optimize_mode,
    )


def _budget(
    settings: AssessSettings, assessed: Assessed, measured: Measured, trained: Trained
) -> tuple[Budget | None, str]:
    """Random search at equal compute; or why it cannot be told."""
    ones, alone, compute = measured.report, trained.report, assessed.compute
    found: Sequence[float] = [ones.found]
    values: Sequence[Sequence[float]] = [[value] for value in ones.values]
    seconds = measured.seconds
    if ones.measured == "inherited":
        if alone is None:
            return None, "no random architecture was trained alone"
        found, values, seconds = alone.found, alone.values, trained.seconds
    if settings.budget == "seconds":
        by, search, each = "seconds", compute.seconds, statistics.fmean(seconds)
    elif assessed.training is None:
        by, search, each = "trials", compute.trials, 1.0
    else:
        by, search, each = "epochs", compute.epochs, float(assessed.training.epochs)
    if search is None or not each:
        return None, f"how many {by} the search took is not recorded"
    return Budget(by, float(search), each, found, values, ones.sign), ""


# ---- what has to be known


def _meaning(ones: RandomOnes, alone: TrainedAlone | None, assessed: Assessed) -> list[str]:
    notes = []
    if ones.measured == "inherited":
        notes.append(
            "inherited weights estimate how architectures rank under this supernet, not how well they do when they "
            "are trained"
        )
    if assessed.kind != "retrain":
        notes.append("the found one may have been chosen by such numbers, which flatters its percentile")
    if ones.measured == "alone" or alone is not None:
        notes.append(
            "trainings are measured on validation data, which the search may have used, with the optimizer of the run "
            "and nothing else of a recipe"
        )
    if ones.measured == "inherited" and alone is not None:
        notes.append(
            "counted in epochs, a step of a supernet costs as much as one of a network alone; in seconds, what it took"
        )
    if len(assessed.goals.objectives) > 1:
        notes.append(f"of {len(assessed.goals.objectives)} objectives the first alone is compared")
    if alone is not None and len(alone.seeds) == 1:
        notes.append("one seed: the interval says nothing of the noise of training")
    if alone is not None and len(alone.values) < _FEW:
        notes.append(f"{len(alone.values)} random architectures are few for an interval")
    return notes


def _missing(measured: Measured, alone: TrainedAlone | None) -> list[str]:
    notes, ones = [], measured.report
    if not measured.found.feasible:
        notes.append("the found one itself is beyond the constraints, as it is measured here")
    had = len(ones.values) + ones.failed + ones.infeasible
    if ones.whole:
        notes.append(f"all other architectures there are were measured, {had:,} of them")
    if ones.failed:
        notes.append(f"{ones.failed} of {had} random architectures failed, and have no place in the ranking")
    if ones.infeasible:
        notes.append(f"{ones.infeasible} of {had} random architectures were beyond the constraints, and do not count")
    if alone is not None and alone.failed:
        notes.append(f"{alone.failed} random architectures are left out of the pairs: a training of theirs failed")
    return notes
