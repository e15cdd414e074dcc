"""nnas: neural architecture search for ordinary PyTorch modules.

Public names are imported when they are first used, so that programs which need no torch never load it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Architecture": "space.architecture",
    "AssessResult": "assessors.base",
    "Assessor": "assessors.base",
    "BaseMutator": "mutables.mutator",
    "Choice": "space.choice",
    "FixedArchitecture": "mutables.fixed",
    "InputChoice": "mutables.choices",
    "LayerChoice": "mutables.choices",
    "Mutable": "mutables.base",
    "MutableScope": "mutables.base",
    "Mutator": "mutables.mutator",
    "NnasError": "errors",
    "NoMoreTrials": "tuners.base",
    "RandomMutator": "mutators.random",
    "SearchSpace": "space.search_space",
    "Trainer": "training.trainer",
    "Tuner": "tuners.base",
    "apply_fixed_architecture": "mutables.fixed",
    "extract": "mutables.extraction",
    "transfer_weights": "mutables.extraction",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nnas_core' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"nnas_core.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
