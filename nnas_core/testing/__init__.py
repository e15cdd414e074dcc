"""Tests to inherit, for mutators, tuners and assessors: each keeps to the rules of its kind.

    class TestMine(TunerConformance):
        tuner = MyTuner

Begin with the docstring of the class that fits: ``MutatorConformance``, ``TunerConformance`` or
``AssessorConformance``. It says what else may be set, and ``MODELS`` and ``SPACES`` are what the tests run on. Every
algorithm of nnas passes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.testing.assessors import AssessorConformance as AssessorConformance
    from nnas_core.testing.mutators import MODELS as MODELS
    from nnas_core.testing.mutators import MutatorConformance as MutatorConformance
    from nnas_core.testing.tuners import SPACES as SPACES
    from nnas_core.testing.tuners import TunerConformance as TunerConformance
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "AssessorConformance": "assessors",
            "MODELS": "mutators",
            "MutatorConformance": "mutators",
            "SPACES": "tuners",
            "TunerConformance": "tuners",
        },
    )
