"""Every registered mutator keeps to what ``nnas_core.testing`` asks of all."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnas_core import Mutator
from nnas_core.mutators.fbnet import FbnetMutator
from nnas_core.plugins import registry
from nnas_core.space.search_space import SearchSpace
from nnas_core.testing import MutatorConformance


def _with_latencies(self: MutatorConformance, model: nn.Module, generator: torch.Generator) -> Mutator:
    """fbnet needs a latency for each candidate of the model at hand."""
    choices = SearchSpace.from_model(model).choices.values()
    table = {choice.key: dict.fromkeys(choice.candidates, 2.0) for choice in choices}
    return FbnetMutator(model, generator, latency_table=table)


# What differs from one algorithm to the next: arguments that small models need, and what cannot be served.
_SPECIAL: dict[str, dict[str, Any]] = {
    "cdarts": {"refuses": frozenset({"concat"})},
    "darts": {"refuses": frozenset({"concat"})},
    "drnas": {"refuses": frozenset({"concat"})},
    "enas": {"arguments": {"mutator_steps": 3, "aggregate": 2}},  # the defaults are meant for larger data
    "fbnet": {"refuses": frozenset({"concat"}), "make": _with_latencies},
    "pcdarts": {"refuses": frozenset({"concat"}), "arguments": {"k": 1}},  # candidates are as wide as the model
    "pdarts": {"refuses": frozenset({"concat"})},
    "snas": {"refuses": frozenset({"concat"})},
}

for _name in registry.entries("mutators"):
    _case = f"Test{_name.title().replace('-', '')}"
    globals()[_case] = type(
        _case, (MutatorConformance,), {"mutator": registry.find("mutators", _name), **_SPECIAL.get(_name, {})}
    )
