"""Has a search collapsed? The candidates without weights that an architecture has, against those of random ones.

A differentiable search may end in architectures of skips, which cost nothing and train at once (Zela et al.,
"Understanding and Robustifying Differentiable Architecture Search", arXiv:1909.09656). Counted are layer choices that
have both kinds of candidates; input choices choose no operation.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace

__all__ = ["KINDS", "Collapse", "IdleCandidates", "collapse_of", "kind_by_name", "kinds_by_name", "tail"]

KINDS = ("skip", "zero", "pool")
"""Candidates that learn nothing: what hands its input on, what gives zeros, what pools."""

IdleCandidates = Mapping[str, Sequence[str | None]]
"""Key of a layer choice -> the kind of each candidate; None: it learns."""

_WORDS = {
    "skip": ("skip", "identity", "residual"),
    "zero": ("none", "zero", "zeroize", "null"),
    "pool": ("pool", "pooling", "avgpool", "maxpool", "averagepool"),
}
_KIND_OF = {word: kind for kind, words in _WORDS.items() for word in words}

_UNLIKELY = 0.05
"""What a smaller part of random architectures reaches is no chance."""


@dataclass(frozen=True)
class Collapse:
    """The idle candidates of an architecture, and of the space that it is from.

    Attributes:
        by: ``"modules"`` or ``"names"``: what said which candidates are idle.
        choices: layer choices that have idle candidates and others.
        chosen: how many of them have an idle one in the architecture.
        chosen_kinds: the same by kind.
        mean_share: of the space: what part of the choices has an idle one on average.
        mean_kinds: the same by kind.
        probability: that a random architecture has as many or more.
        exact: of uniform draws; else that probability, and the means, are of the random ones that were measured.
    """

    by: str
    choices: int
    chosen: int
    chosen_kinds: Mapping[str, int]
    mean_share: float
    mean_kinds: Mapping[str, float]
    probability: float
    exact: bool

    @property
    def share(self) -> float:
        """The part of the choices that has an idle one."""
        return self.chosen / self.choices

    @property
    def collapsed(self) -> bool:
        """True if fewer than one in twenty random architectures have as many."""
        return self.probability < _UNLIKELY

    def to_json(self) -> dict[str, object]:
        """Returns everything."""
        return {
            "recognised_by": self.by,
            "choices": self.choices,
            "idle": self.chosen,
            "share": self.share,
            "mean_share": self.mean_share,
            "probability": self.probability,
            "exact": self.exact,
            "collapsed": self.collapsed,
            "kinds": {
                kind: {"share": self.chosen_kinds[kind] / self.choices, "mean_share": self.mean_kinds[kind]}
                for kind in KINDS
            },
        }


def kind_by_name(name: str) -> str | None:
    """Returns the kind that a candidate's name, or that of its class, has a word of; None: it has none."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    pairs = [first + second for first, second in itertools.pairwise(parts)]
    return next((_KIND_OF[word.lower()] for word in (*parts, *pairs) if word.lower() in _KIND_OF), None)


def kinds_by_name(space: SearchSpace) -> IdleCandidates:
    """Returns the kinds of all candidates of a space by their names alone, where there is no model."""
    return {one.key: [kind_by_name(name) for name in one.candidates] for one in space if one.kind == "layer_choice"}


def tail(chances: Sequence[float], count: int) -> float:
    """Returns the probability that at least ``count`` of independent events happen: exact, by convolution.

    Args:
        chances: of the events.
        count: 0 or more.
    """
    distribution = [1.0]
    for chance in chances:
        hit = [0.0, *(one * chance for one in distribution)]
        miss = [*(one * (1 - chance) for one in distribution), 0.0]
        distribution = [one + other for one, other in zip(hit, miss, strict=True)]
    return min(1.0, math.fsum(distribution[count:]))


def collapse_of(
    space: SearchSpace,
    found: Architecture,
    idle: IdleCandidates,
    by: str,
    limited_to: Sequence[Architecture] | None = None,
) -> Collapse | None:
    """Counts idle candidates; None where no choice has both kinds.

    Args:
        space: of the architectures.
        found: the one that is judged.
        idle: the kinds of the candidates.
        by: what said so: ``"modules"`` or ``"names"``.
        limited_to: random ones out of a part of the space, within constraints; None: every decision is equally likely.
    """
    counted = {
        one.key: list(idle[one.key])
        for one in space
        if one.kind == "layer_choice" and len({kind is None for kind in idle.get(one.key, ())}) == 2
    }
    if not counted or limited_to == []:
        return None
    chosen = _count(found.indices(), counted)
    total = sum(chosen.values())
    size = len(counted)
    if limited_to is None:
        means = {kind: math.fsum(row.count(kind) / len(row) for row in counted.values()) / size for kind in KINDS}
        chances = [sum(kind is not None for kind in row) / len(row) for row in counted.values()]
        mean, probability = math.fsum(chances) / size, tail(chances, total)
    else:
        others = [_count(one.indices(), counted) for one in limited_to]
        means = {kind: math.fsum(one[kind] for one in others) / size / len(others) for kind in KINDS}
        mean = math.fsum(means.values())
        probability = sum(sum(one.values()) >= total for one in others) / len(others)
    return Collapse(by, size, total, chosen, mean, means, probability, limited_to is None)


def _count(decisions: Mapping[str, Decision], counted: IdleCandidates) -> dict[str, int]:
    found = Counter(counted[key][decisions[key][0]] for key in counted)
    return {kind: found[kind] for kind in KINDS}
