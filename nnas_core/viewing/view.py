"""What there is to look at of a space, an architecture, a run or a study, as plain data: what every picture is made of.

The texts are those of users, as they are: whoever draws them escapes them for where they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace

__all__ = ["Epoch", "Front", "Importance", "Trials", "View", "ViewedCost", "ViewedTrial", "Weights"]

Weights = Mapping[str, Sequence[float]]
"""key -> a number a candidate, 0 to 1 (more than one may have 1 where several are taken)."""


@dataclass(frozen=True)
class Epoch:
    """What a run says of one of its epochs.

    Attributes:
        number: from 1.
        train, valid: loss and metrics.
        weights: what the algorithm said of the candidates; None: nothing was recorded.
    """

    number: int
    train: Mapping[str, float]
    valid: Mapping[str, float]
    weights: Weights | None = None

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        weights = None if self.weights is None else {key: list(row) for key, row in self.weights.items()}
        return {"epoch": self.number, "train": dict(self.train), "valid": dict(self.valid), "weights": weights}


@dataclass(frozen=True)
class ViewedCost:
    """What a candidate costs by itself; None where nobody measured it.

    Attributes:
        parameters: how many it brings.
        macs: multiply-adds of one sample.
        latency_ms: of a batch, on the machine that measured it.
        output: the shape of what it gives for one sample.
    """

    parameters: int | None = None
    macs: int | None = None
    latency_ms: float | None = None
    output: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        output = None if self.output is None else list(self.output)
        return {"parameters": self.parameters, "macs": self.macs, "latency_ms": self.latency_ms, "output": output}


@dataclass(frozen=True)
class ViewedTrial:
    """A trial of a study in the fewest words.

    Attributes:
        number: in the study.
        state, feasible: as ``TrialRecord`` has them.
        value: *the* metric; None unless it succeeded.
        seconds: how long it took.
        measured: its metrics and costs by name.
        decisions: the chosen indices, in the order of the keys; None where it weighs candidates.
        error: why it failed, in one line.
    """

    number: int
    state: str
    feasible: bool
    value: float | None
    seconds: float | None
    measured: Mapping[str, float]
    decisions: Sequence[Decision] | None
    error: str | None

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {
            "number": self.number,
            "state": self.state,
            "feasible": self.feasible,
            "value": self.value,
            "seconds": self.seconds,
            "measured": dict(self.measured),
            "decisions": None if self.decisions is None else [list(one) for one in self.decisions],
            "error": self.error,
        }


@dataclass(frozen=True)
class Front:
    """The trials that no other one beats in both of two numbers.

    Attributes:
        of: the name of the number beside the value: of a cost or a metric.
        smaller: it is better the smaller it is.
        numbers: of the trials, the best value first.
    """

    of: str
    smaller: bool
    numbers: Sequence[int]

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {"of": self.of, "smaller_is_better": self.smaller, "trials": list(self.numbers)}


@dataclass(frozen=True)
class Importance:
    """How much of what makes trials differ the choice at a key alone explains.

    Attributes:
        key: of the choice.
        share: of the variance of the values, 0 to 1.
        groups: how many decisions at the key the trials have.
    """

    key: str
    share: float
    groups: int

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {"key": self.key, "share": self.share, "decisions": self.groups}


@dataclass(frozen=True)
class Trials:
    """The trials of a study.

    Attributes:
        mode: ``"maximize"`` or ``"minimize"``.
        count: of all trials; ``shown`` may be fewer.
        counts: how many are in each state, and ``infeasible``.
        shown: the best ones, the newest ones and those on fronts, by number; of a long front some.
        best: the number of the best one; None while none succeeded.
        curve: the best value so far after each trial that improved it, as (number, value).
        fronts: by each number that the trials have beside the value.
        importance: of the choices, the most important first; empty where there are too few trials to say.
        exact: every architecture of the space was measured, so the shares are no estimates.
        succeeded: how many trials the shares are of.
    """

    mode: str
    count: int
    counts: Mapping[str, int]
    shown: Sequence[ViewedTrial]
    best: int | None
    curve: Sequence[tuple[int, float]]
    fronts: Sequence[Front]
    importance: Sequence[Importance]
    exact: bool
    succeeded: int

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {
            "mode": self.mode,
            "count": self.count,
            "counts": dict(self.counts),
            "best": self.best,
            "curve": [[number, value] for number, value in self.curve],
            "fronts": [one.to_json() for one in self.fronts],
            "importance": {
                "exact": self.exact,
                "trials": self.succeeded,
                "choices": [one.to_json() for one in self.importance],
            },
            "shown": [one.to_json() for one in self.shown],
        }


@dataclass(frozen=True)
class View:
    """Everything that is shown.

    Attributes:
        kind: ``"space"``, ``"architecture"``, ``"search"``, ``"retrain"`` or ``"study"``.
        name: of the file, the folder or the study.
        space: None where a training has no choices.
        facts: names and what they are, in words.
        architecture: what is drawn as chosen: the given one, the final one so far, or that of the best trial.
        weights: what is drawn as the weights of the candidates; see ``meaning``.
        meaning: what these weights are, in words.
        epochs: of a run.
        trials: of a study.
        costs: of the candidates, by key.
        notes: what is left out, in a line each.
        running: somebody works on it, so there will be more.
    """

    kind: str
    name: str
    space: SearchSpace | None
    facts: Sequence[tuple[str, str]] = ()
    architecture: Architecture | None = None
    weights: Weights | None = None
    meaning: str | None = None
    epochs: Sequence[Epoch] = ()
    trials: Trials | None = None
    costs: Mapping[str, Sequence[ViewedCost]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    running: bool = False

    def to_json(self) -> dict[str, object]:
        """Returns the document of the schema ``view-report``, without its tag."""
        return {
            "kind": self.kind,
            "name": self.name,
            "facts": [{"name": name, "value": value} for name, value in self.facts],
            "choices": [
                {
                    "key": choice.key,
                    "kind": choice.kind,
                    "candidates": list(choice.candidates),
                    "n_chosen": choice.n_chosen,
                    "costs": [one.to_json() for one in self.costs.get(choice.key, ())],
                }
                for choice in self.space or ()
            ],
            "architecture": None if self.architecture is None else self.architecture.masks(),
            "weights": None if self.weights is None else {key: list(row) for key, row in self.weights.items()},
            "meaning": self.meaning,
            "epochs": [one.to_json() for one in self.epochs],
            "trials": None if self.trials is None else self.trials.to_json(),
            "notes": list(self.notes),
            "running": self.running,
        }
