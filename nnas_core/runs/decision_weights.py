"""What an algorithm says of each candidate after an epoch, in as few numbers as a file of events should have."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nnas_core.errors import UserCodeError
from nnas_core.mutables.mutator import Mutator
from nnas_core.space.search_space import SearchSpace

__all__ = ["recorded_weights"]

_MOST_NUMBERS = 1_000_000
"""In the events of a run, about 8 MB; so 1,000 keys of 8 candidates after each of 100 epochs."""

_DECIMALS = 4

_HINT = "return key -> one number a candidate, or None"


def recorded_weights(mutator: Mutator, space: SearchSpace, epoch: int, epochs: int) -> Mapping[str, list[float]] | None:
    """The weights to record after an epoch, rounded to four decimals.

    Where all epochs together would have more than a million numbers, only every second, third, ... and the last one
    are recorded.

    Args:
        mutator: of the search.
        space: of its model.
        epoch: the one that ended, from 1.
        epochs: how many the search has.

    Returns:
        None: the algorithm weighs nothing, or this epoch is left out.

    Raises:
        UserCodeError: the class does not return a finite number for each candidate of its keys.
    """
    numbers = epochs * sum(len(choice.candidates) for choice in space)
    if epoch < epochs and epoch % math.ceil(numbers / _MOST_NUMBERS):
        return None
    weights = mutator.decision_weights()
    if weights is None:
        return None
    name = type(mutator).__name__
    try:
        recorded = {key: [round(float(number), _DECIMALS) for number in row] for key, row in weights.items()}
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise UserCodeError(f"{name}.decision_weights gives {weights!r}: {error}", hint=_HINT) from error
    for key, row in recorded.items():
        if key not in space or len(row) != len(space[key].candidates) or not all(map(math.isfinite, row)):
            expected = f"{len(space[key].candidates)} finite numbers" if key in space else "no such key"
            raise UserCodeError(f"{name}.decision_weights gives {row} at {key!r}, expected {expected}", hint=_HINT)
    return recorded
