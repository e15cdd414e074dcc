"""Every registered mutator keeps to what ``nnas_core.testing`` asks of all."""

from __future__ import annotations

from typing import Any

from nnas_core import registry
from nnas_core.testing import MutatorConformance

# What differs from one algorithm to the next: arguments that small models need, and what cannot be served.
_SPECIAL: dict[str, dict[str, Any]] = {
    "darts": {"refuses": frozenset({"concat"})},
}

for _name in registry.entries("mutators"):
    _case = f"Test{_name.title().replace('-', '')}"
    globals()[_case] = type(
        _case, (MutatorConformance,), {"mutator": registry.find("mutators", _name), **_SPECIAL.get(_name, {})}
    )
