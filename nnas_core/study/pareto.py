"""The trials of a study with several objectives that no other trial beats, and how much they beat.

Source: Zitzler and Thiele, "Multiobjective Evolutionary Algorithms: A Comparative Case Study and the Strength Pareto
Approach", IEEE Transactions on Evolutionary Computation 3 (1999) (hypervolume); While, Bradstreet, Barone, "A Fast Way
of Calculating Exact Hypervolumes", IEEE Transactions on Evolutionary Computation 16 (2012) (how it is computed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnas_core.space.goals import Objective
from nnas_core.study.storage.records import StudySettings, TrialRecord

__all__ = ["Front", "front_of", "hypervolume", "undominated"]

_Points = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """What a study with several objectives has found.

    Attributes:
        objectives: with their directions.
        trials: those that no other beats in one objective without losing in another, the best in the first one first.
        reference: by objective, the worst value of all trials that meet the constraints.
        hypervolume: of what is between the trials and ``reference``, in the product of the objectives' units.
    """

    objectives: Sequence[Objective]
    trials: Sequence[TrialRecord]
    reference: Mapping[str, float]
    hypervolume: float

    def to_json(self) -> dict[str, object]:
        """Returns the front as part of a report; of trials their numbers."""
        return {
            "objectives": [
                {"name": one.name, "mode": "min" if one.is_min else "max", "reference": self.reference[one.name]}
                for one in self.objectives
            ],
            "pareto": [
                {"number": trial.number, "values": [trial.numbers[one.name] for one in self.objectives]}
                for trial in self.trials
            ],
            "hypervolume": self.hypervolume,
        }


def front_of(made: StudySettings, trials: Sequence[TrialRecord]) -> Front | None:
    """Returns the front of some trials of a study; None without several objectives, or without any such trial.

    Args:
        made: what the study was made with.
        trials: of it, in any state.
    """
    objectives = made.objectives
    found = [trial for trial in trials if trial.state == "succeeded" and trial.feasible]
    found = [trial for trial in found if all(one.name in trial.numbers for one in objectives)]
    if len(objectives) < 2 or not found:
        return None
    points = np.array([[one.sign * trial.numbers[one.name] for one in objectives] for trial in found])
    reference = points.min(axis=0)
    best = undominated(points)
    kept = sorted(np.flatnonzero(best).tolist(), key=lambda place: (*(-points[place]).tolist(), found[place].number))
    return Front(
        objectives,
        [found[place] for place in kept],
        {one.name: one.sign * float(worst) for one, worst in zip(objectives, reference, strict=True)},
        hypervolume(points[best], reference),
    )


def undominated(points: _Points) -> NDArray[np.bool_]:
    """Returns which points no other beats: no other is as large in all coordinates, and larger in one.

    Args:
        points: ``[N, M]``, large is good. Of equal ones all are kept.
    """
    kept = np.zeros(len(points), dtype=bool)
    order = np.lexsort(-points.T[::-1])  # whoever beats a point comes before it
    if points.shape[1] == 2 and len(points):
        first, second = points[order].T
        begins = np.concatenate([[True], first[1:] != first[:-1]])
        group = np.cumsum(begins) - 1  # of those with the same first coordinate
        best = second[begins]
        before = np.concatenate([[-np.inf], np.maximum.accumulate(best)[:-1]])
        kept[order] = (second == best[group]) & ((group == 0) | (second > before[group]))
        return kept
    front = np.zeros((0, points.shape[1]))
    for place in order.tolist():
        point = points[place]
        kept[place] = not ((front >= point).all(axis=1) & (front > point).any(axis=1)).any()
        if kept[place]:
            front = np.concatenate([front, point[None]])
    return kept


def hypervolume(points: _Points, reference: _Points) -> float:
    """Returns the volume of all that some point beats and that beats ``reference``.

    Args:
        points: ``[N, M]``, large is good.
        reference: ``[M]``.
    """
    return _volume(np.maximum(points, reference) - reference)


def _volume(points: _Points) -> float:
    """Returns the volume between zero and points ``[N, M]``, of which none is below zero."""
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(points[:, 0], kind="stable")]
    if points.shape[1] == 2:
        heights = np.maximum.accumulate(points[::-1, 1])[::-1]
        return float((np.diff(points[:, 0], prepend=0.0) * heights).sum())
    # what a point has alone: its own volume, without what the points with a larger first coordinate take of it
    return math.fsum(
        first * (float(np.prod(rest)) - _volume(_largest(np.minimum(points[place + 1 :, 1:], rest))))
        for place, (first, rest) in enumerate(zip(points[:, 0].tolist(), points[:, 1:], strict=True))
    )


def _largest(points: _Points) -> _Points:
    """Returns points that no other beats, each once; so few in most cases that a volume has little work."""
    if points.shape[1] < 3:
        return points  # their volume needs no help
    points = np.unique(points, axis=0)
    return points[undominated(points)]
