"""The report of an assessment: numbers, and what they say about each criterion; plain data, the same in every form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nnas_core.assessment.collapse import Collapse
from nnas_core.assessment.statistics import (
    Interval,
    Place,
    Summary,
    expected_best,
    paired_interval,
    place_of,
    summary,
)

__all__ = ["Assessment", "Budget", "Criterion", "RandomOnes", "Subject", "TrainedAlone"]

_MEASURED = {
    "inherited": "with inherited weights (an estimate), on validation data",
    "alone": "trained alone, on validation data",
    "command": "as the trial command reports it",
}


@dataclass(frozen=True)
class Subject:
    """What is assessed.

    Attributes:
        kind: ``"search"``, ``"retrain"`` or ``"study"``.
        name: of the run folder or the study.
        architecture: the found one, as masks.
        space_size: how many architectures there are, whatever the constraints.
        constraints: that it had to meet, and the random ones too.
        metric: what the values are called, if that is known.
        mode: ``"maximize"`` or ``"minimize"``.
    """

    kind: str
    name: str
    architecture: Mapping[str, object]
    space_size: int
    constraints: Sequence[str]
    metric: str | None
    mode: str

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is."""
        return 1 if self.mode == "maximize" else -1

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {
            "kind": self.kind,
            "name": self.name,
            "architecture": dict(self.architecture),
            "space_size": self.space_size,
            "constraints": list(self.constraints),
            "metric": self.metric,
            "optimize_mode": self.mode,
        }


@dataclass(frozen=True)
class RandomOnes:
    """The found architecture and random ones, all measured in the same way, once each.

    Attributes:
        study: that has them.
        measured: ``"inherited"``, ``"alone"`` or ``"command"``.
        epochs: of each, where they are trained alone by nnas.
        asked: how many random ones there should be.
        whole: true if there are no others.
        failed, infeasible: random ones without a value, and those beyond a constraint that is only known afterwards.
        found: the value of the found one.
        values: of the random ones, in the order in which they were drawn; at least one.
        sign: see ``Subject.sign``.
    """

    study: str
    measured: str
    epochs: int | None
    asked: int
    whole: bool
    failed: int
    infeasible: int
    found: float
    values: Sequence[float]
    sign: int

    @cached_property
    def place(self) -> Place:
        """The found one among the random ones."""
        return place_of(self.found, self.values, self.sign)

    @cached_property
    def summary(self) -> Summary:
        """How the random ones are spread."""
        return summary(self.values)

    @property
    def best(self) -> float:
        """The value of the best random one."""
        return max(self.values, key=lambda one: self.sign * one)

    @property
    def how(self) -> str:
        """How all were measured, in words."""
        return _MEASURED[self.measured]

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        place = self.place
        return {
            "study": self.study,
            "measured": self.measured,
            "epochs": self.epochs,
            "asked": self.asked,
            "whole_space": self.whole,
            "failed": self.failed,
            "infeasible": self.infeasible,
            "found": self.found,
            "values": list(self.values),
            "rank": place.rank,
            "percentile": place.percentile,
            "better": place.better,
            "equal": place.equal,
            "worse": place.worse,
            "summary": self.summary.to_json(),
        }


@dataclass(frozen=True)
class TrainedAlone:
    """The found architecture and some random ones, trained from scratch in pairs: same seed, same weights to begin with
    where the architectures have them in common, same order of the data.

    Attributes:
        studies: one a seed.
        epochs: of each training.
        seeds: those of which the found one has a value.
        asked: how many random ones there should be.
        failed: random ones that lack the value of a seed, and are left out.
        found: the value of the found one, one a seed.
        values: of the random ones: a row each, one a seed; at least one row.
        sign: see ``Subject.sign``.
    """

    studies: Sequence[str]
    epochs: int
    seeds: Sequence[int]
    asked: int
    failed: int
    found: Sequence[float]
    values: Sequence[Sequence[float]]
    sign: int

    @cached_property
    def advantages(self) -> list[list[float]]:
        """By how much the found one is better, in each pair."""
        return [[self.sign * (own - other) for own, other in zip(self.found, row, strict=True)] for row in self.values]

    @cached_property
    def interval(self) -> Interval:
        """The mean advantage, and how far it is known."""
        return paired_interval(self.advantages)

    @property
    def wins(self) -> tuple[int, int, int]:
        """Pairs in which the found one is better, equal, worse."""
        pairs = [one for row in self.advantages for one in row]
        better, equal = sum(one > 0 for one in pairs), sum(one == 0 for one in pairs)
        return better, equal, len(pairs) - better - equal

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        better, equal, worse = self.wins
        interval = self.interval
        return {
            "studies": list(self.studies),
            "epochs": self.epochs,
            "seeds": list(self.seeds),
            "asked": self.asked,
            "failed": self.failed,
            "found": list(self.found),
            "values": [list(row) for row in self.values],
            "wins": better,
            "ties": equal,
            "losses": worse,
            "advantage": interval.mean,
            "interval": None if interval.low is None else [interval.low, interval.high],
            "degrees_of_freedom": interval.freedom,
        }


@dataclass(frozen=True)
class Budget:
    """Random search that may compute as much as the search did, estimated from the random ones that were trained.

    Attributes:
        by: what is counted: ``"epochs"``, ``"seconds"`` or ``"trials"``.
        search, each: of the search, and of one random architecture.
        found: the value of the found one, one a seed.
        values: of the random ones: a row each, one a seed.
        sign: see ``Subject.sign``.
    """

    by: str
    search: float
    each: float
    found: Sequence[float]
    values: Sequence[Sequence[float]]
    sign: int

    @property
    def count(self) -> int:
        """How many random architectures the search pays for; at least one."""
        return max(1, math.floor(self.search / self.each + 1e-9))

    @cached_property
    def expected(self) -> float | None:
        """The best of so many, on average; None where fewer were trained."""
        if self.count > len(self.values):
            return None
        columns = [[row[seed] for row in self.values] for seed in range(len(self.found))]
        best = [expected_best(column, self.count, self.sign) for column in columns]
        return math.fsum(best) / len(best)

    @property
    def mean_found(self) -> float:
        """The value of the found one."""
        return math.fsum(self.found) / len(self.found)

    @property
    def advantage(self) -> float | None:
        """By how much the found one is better."""
        return None if self.expected is None else self.sign * (self.mean_found - self.expected)

    def to_json(self) -> dict[str, object]:
        """Returns everything but the values, which stand elsewhere in the report."""
        return {
            "by": self.by,
            "search": self.search,
            "each": self.each,
            "architectures": self.count,
            "trained": len(self.values),
            "found": self.mean_found,
            "expected_best": self.expected,
            "advantage": self.advantage,
        }


@dataclass(frozen=True)
class Criterion:
    """What the numbers say about one question.

    Attributes:
        name: ``"percentile"``, ``"trained alone"``, ``"equal compute"`` or ``"collapse"``.
        outcome: ``"passed"``, ``"warned"``, ``"skipped"``, or, of a gate, ``"failed"``.
        text: in one sentence.
    """

    name: str
    outcome: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Returns everything."""
        return {"name": self.name, "outcome": self.outcome, "text": self.text}


@dataclass(frozen=True)
class Assessment:
    """All of it.

    Attributes:
        subject: what is assessed.
        random: the found one among random ones.
        alone: trained in pairs; None where none are.
        budget: random search at equal compute; None where that cannot be told.
        collapse: None where no choice has candidates of both kinds.
        fail_under: the percentile below which a gate fails; None: no gate.
        seed: of the draws, and the first one of the trainings.
        why_not: for parts that are None, why; by the name of the criterion.
        notes: what else has to be known, in a sentence each.
    """

    subject: Subject
    random: RandomOnes
    alone: TrainedAlone | None
    budget: Budget | None
    collapse: Collapse | None
    fail_under: float | None
    seed: int
    why_not: Mapping[str, str]
    notes: Sequence[str]

    @property
    def passed(self) -> bool:
        """False if a gate failed."""
        return all(one.outcome != "failed" for one in self.criteria)

    @cached_property
    def criteria(self) -> list[Criterion]:
        """One a question, always the same four."""
        return [self._percentile(), self._alone(), self._budget(), self._collapse()]

    def _percentile(self) -> Criterion:
        ones = self.random
        place = ones.place
        fails = self.fail_under is not None and place.percentile < self.fail_under
        outcome = "failed" if fails else "warned" if self.fail_under is None and place.percentile < 50 else "passed"
        asked = f", asked for {self.fail_under:g} %" if self.fail_under is not None else ""
        ties = f", {place.equal} of them equal" if place.equal else ""
        text = (
            f"better than {place.percentile:.1f} % of {_many(place.others, 'random architecture')}{asked} "
            f"(rank {place.rank:g} of {place.others + 1}{ties}), {ones.how}"
        )
        return Criterion("percentile", outcome, text)

    def _alone(self) -> Criterion:
        ones = self.alone
        if ones is None:
            return Criterion("trained alone", "skipped", self.why_not["trained alone"])
        better, equal, worse = ones.wins
        interval = ones.interval
        wins = interval.low is not None and interval.low > 0
        loses = interval.high is not None and interval.high < 0
        range_ = (
            "one pair, so no interval"
            if interval.low is None
            else f"95 % interval {interval.low:+.4g} to {interval.high:+.4g}"
        )
        verdict = "it wins" if wins else "it loses" if loses else "not settled"
        ties = f", {equal} equal" if equal else ""
        text = (
            f"{verdict}: mean advantage {interval.mean:+.4g} ({range_}); better in {better} and worse in {worse} of "
            f"{better + equal + worse} pairs{ties}, with {_many(len(ones.values), 'random architecture')} and "
            f"{_many(len(ones.seeds), 'seed')}, {_many(ones.epochs, 'epoch')} each"
        )
        return Criterion("trained alone", "passed" if wins else "warned", text)

    def _budget(self) -> Criterion:
        one = self.budget
        if one is None:
            return Criterion("equal compute", "skipped", self.why_not["equal compute"])
        what = f"{_many(one.count, 'random architecture')} (counted in {one.by}: {one.search:.6g} by {one.each:.6g})"
        if one.expected is None or one.advantage is None:
            text = f"the search costs as much as {what}, and {len(one.values)} were trained: too few to say"
            return Criterion("equal compute", "skipped", text)
        word = "better than" if one.advantage > 0 else "as good as" if one.advantage == 0 else "worse than"
        text = (
            f"{one.mean_found:.4g}, {word} {one.expected:.4g}, which the best of as many as the search costs has on "
            f"average: {what}"
        )
        return Criterion("equal compute", "passed" if one.advantage > 0 else "warned", text)

    def _collapse(self) -> Criterion:
        one = self.collapse
        if one is None:
            return Criterion("collapse", "skipped", self.why_not["collapse"])
        chance = "of random architectures have as many" if one.exact else "of the measured random ones have as many"
        text = (
            f"{one.chosen} of {one.choices:,} choices have a skip, zero or pool ({100 * one.share:.0f} %; the "
            f"space's mean is {100 * one.mean_share:.0f} %); {100 * one.probability:.3g} % {chance}, or more"
        )
        return Criterion("collapse", "warned" if one.collapsed else "passed", text)

    def to_json(self) -> dict[str, object]:
        """Returns the document of the schema ``assess-report``, without its tag."""
        return {
            "assessed": self.subject.to_json(),
            "random": self.random.to_json(),
            "trained_alone": None if self.alone is None else self.alone.to_json(),
            "equal_compute": None if self.budget is None else self.budget.to_json(),
            "collapse": None if self.collapse is None else self.collapse.to_json(),
            "fail_under": self.fail_under,
            "passed": self.passed,
            "criteria": [one.to_json() for one in self.criteria],
            "notes": list(self.notes),
            "seed": self.seed,
        }


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
