"""Search spaces that tests of tuners share, as JSON."""

from __future__ import annotations

from typing import Any


def layers(count: int) -> dict[str, Any]:
    """A layer choice."""
    return {"_type": "layer_choice", "_value": [f"op{index}" for index in range(count)]}


def inputs(count: int, n_chosen: int | None) -> dict[str, Any]:
    """An input choice."""
    names = [f"in{index}" for index in range(count)]
    return {"_type": "input_choice", "_value": {"candidates": names, "n_chosen": n_chosen}}


ALL_KINDS = {
    "layer": layers(3),
    "only": layers(1),
    "any": inputs(2, None),
    "none": inputs(2, 0),
    "one": inputs(2, 1),
    "two": inputs(3, 2),
}
"""Every kind of choice; 3 * 1 * 4 * 1 * 2 * 3 = 72 architectures."""

ALL_KINDS_SIZE = 72
