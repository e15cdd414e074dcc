"""nnas: neural architecture search for ordinary PyTorch modules.

Public names are imported when they are first used, so that programs which need no torch never load it.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Architecture": "architecture",
    "AssessResult": "assessor",
    "Assessor": "assessor",
    "BaseMutator": "mutator",
    "Choice": "choice",
    "FixedArchitecture": "fixed",
    "InputChoice": "mutables",
    "LayerChoice": "mutables",
    "Mutable": "mutables",
    "MutableScope": "mutables",
    "Mutator": "mutator",
    "NnasError": "errors",
    "NoMoreTrials": "tuner",
    "RandomMutator": "mutators.random",
    "SearchSpace": "space",
    "Trainer": "training",
    "Tuner": "tuner",
    "apply_fixed_architecture": "fixed",
    "extract": "extraction",
    "transfer_weights": "extraction",
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
