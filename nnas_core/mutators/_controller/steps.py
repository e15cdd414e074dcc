"""The steps of a policy over architectures: which key each decides, and what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnas_core.errors import BindingError
from nnas_core.mutables.base import MutableScope
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.tree import MutableTree
from nnas_core.mutators._serving import mutators_that
from nnas_core.space.choice import Choice
from nnas_core.space.sizes import size_in_words

__all__ = ["MOST_SUBSETS", "Place", "Script"]

MOST_SUBSETS = 10_000
"""Subsets that an InputChoice with a number ``n_chosen`` may have: their probabilities are computed one by one."""


@dataclass(frozen=True)
class Place:
    """Where one key is decided.

    Attributes:
        choice: what can be decided.
        step: of the LSTM.
        start: of its columns in a mask ``[N]`` of all candidates of the model.
        row: of a LayerChoice: the first of its rows in head and embedding; LayerChoices whose candidates have the same
            names share them.
        anchors: of an InputChoice: for each input, the step whose hidden state stands for it.
    """

    choice: Choice
    step: int
    start: int
    row: int
    anchors: tuple[int, ...]

    @property
    def columns(self) -> slice:
        """In a mask of all candidates."""
        return slice(self.start, self.start + len(self.choice.candidates))

    @property
    def is_layer(self) -> bool:
        """True for a LayerChoice."""
        return self.choice.kind == "layer_choice"

    @property
    def is_any(self) -> bool:
        """True if any number of inputs can be taken."""
        return self.choice.n_chosen is None

    def divisor(self, chosen: Any) -> Any:
        """By what the sum of chosen anchors is divided before it is read.

        Args:
            chosen: how many there are, a number or an array or tensor of them.
        """
        return 1 + chosen if self.is_any else max(1, self.choice.n_chosen or 0)


class Script:
    """The steps of the LSTM that a tree of mutables leads to; they are the same for every architecture.

    Each key takes one step, which reads the decision before it; the first reads a vector that is learnt. The anchor of
    a key or a scope is the first state that has read all of its decisions. Inputs without a tag, or with that of a
    scope they are in, have anchors of their own, by their position among such inputs: the states of as many steps at
    the beginning.

    Args:
        tree: of the model.
        exit_step: let one more step read the last decision in a scope, so that its state serves the anchor alone; the
            next step reads the start vector then.

    Attributes:
        places: a place a key, in the order of their steps.
        reads: for each step the index of the place whose decision it reads; None: it reads the start vector.
        rows: of the head.
        width: N, the number of candidates of all keys.
        numbers: uniform random numbers that one architecture takes.
        subsets: for each InputChoice with a number ``n_chosen``, by key: all its decisions, as masks ``[subsets, n]``.

    Raises:
        BindingError: there is nothing to decide, or a choice has more than ``MOST_SUBSETS`` subsets.
    """

    def __init__(self, tree: MutableTree, *, exit_step: bool) -> None:
        self.places: list[Place] = []
        self.rows = 0
        self.width = 0
        self._exit_step = exit_step
        self._heads: dict[tuple[str, ...], int] = {}
        self._anchors: dict[str, int] = {}  # steps, counted from the first after those of the untagged inputs
        untagged = max((sum(step < 0 for step in place.anchors) for place in self._read(tree)), default=0)
        if not self.places:
            raise BindingError(
                "there is nothing to learn: the model has no LayerChoice and no InputChoice",
                hint="put a LayerChoice into the model, or train it without a mutator",
            )
        self.places = [self._shifted(place, untagged) for place in self.places]
        self.reads: list[int | None] = [*[None] * untagged, *self._reads]
        self.numbers = sum(len(place.choice.candidates) if place.is_any else 1 for place in self.places)
        fixed = [place.choice for place in self.places if not (place.is_layer or place.is_any)]
        self.subsets = {choice.key: _subsets(choice) for choice in fixed}

    def _read(self, tree: MutableTree) -> list[Place]:
        self._reads: list[int | None] = []
        self._pending: int | None = None
        self._walk(tree, set())
        return self.places

    def _walk(self, node: MutableTree, seen: set[str]) -> None:
        for child in node.children:
            mutable = child.mutable
            if isinstance(mutable, MutableScope):
                self._walk(child, seen)
                if self._exit_step:
                    self._anchors[mutable.key] = self._step()
                elif self._reads:
                    self._anchors[mutable.key] = len(self._reads)  # the step to come has read everything
            elif isinstance(mutable, LayerChoice | InputChoice) and mutable.key not in seen:
                seen.add(mutable.key)
                self._add(mutable)

    def _step(self) -> int:
        """Append a step that reads what was decided last, unless another one has."""
        self._reads.append(self._pending)
        self._pending = None
        return len(self._reads) - 1

    def _add(self, mutable: LayerChoice | InputChoice) -> None:
        choice = mutable.choice
        row = 0
        anchors: tuple[int, ...] = ()
        step = self._step()
        if isinstance(mutable, LayerChoice):
            row = self._heads.setdefault(choice.candidates, self.rows)
            self.rows = max(self.rows, row + len(choice.candidates))
        else:
            if choice.n_chosen is not None and choice.size > MOST_SUBSETS:
                raise BindingError(
                    f"{choice.key!r} can be decided in {size_in_words(choice.size, ',')} ways, at most"
                    f" {MOST_SUBSETS:,} subsets of a fixed size can be learnt",
                    where=mutable.name,
                    hint="leave n_chosen None, or use a mutator that draws uniformly: "
                    + mutators_that(lambda mutator: mutator.draws_uniformly),
                )
            anchors = tuple(self._anchors_of(mutable))
        self._pending = len(self.places)
        self.places.append(Place(choice, step, self.width, row, anchors))
        self.width += len(choice.candidates)
        self._anchors[choice.key] = step + 1

    def _anchors_of(self, mutable: InputChoice) -> Iterator[int]:
        untagged = 0
        for tag in mutable.choose_from:
            if tag != InputChoice.NO_KEY and tag in self._anchors:
                yield self._anchors[tag]
            else:
                untagged += 1
                yield -untagged

    @staticmethod
    def _shifted(place: Place, by: int) -> Place:
        anchors = tuple(step + by if step >= 0 else -step - 1 for step in place.anchors)
        return replace(place, step=place.step + by, anchors=anchors)

    @property
    def segments(self) -> Iterator[tuple[int, int, Place | None]]:
        """Steps whose inputs are known before the first of them: from, to, and the InputChoice that the first reads."""
        first = 0
        before: Place | None = None
        for step, read in enumerate(self.reads):
            if read is not None and not self.places[read].is_layer:
                yield first, step, before
                first, before = step, self.places[read]
        yield first, len(self.reads), before


def _subsets(choice: Choice) -> NDArray[np.bool_]:
    """Every decision of an InputChoice as a row of ``[subsets, n]``."""
    masks = np.zeros((choice.size, len(choice.candidates)), dtype=np.bool_)
    for mask, decision in zip(masks, choice.decisions(), strict=True):
        mask[list(decision)] = True
    return masks
