"""nnas: neural architecture search for ordinary PyTorch modules.

    space        what can be decided                 plugins      the user's code, and names of algorithms
    mutables     choices in a torch model            tuners       what proposes architectures between trials
    training     the loop                            assessors    what ends trials early
    mutators     the one-shot algorithms             execution    where trials run
    runs         a run folder                        study        trials stored, proposed, resumed
    workflows    what commands and programs call     testing      conformance suites to inherit

Begin with ``mutables`` if you have a model, with ``study`` if you have trials; ``errors`` lists what may fail. What
programs need most is here: ``from nnas_core import LayerChoice``. Names are imported when they are first used, so that
programs which need no torch never load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nnas_core.assessors.base import Assessor as Assessor
    from nnas_core.assessors.base import AssessResult as AssessResult
    from nnas_core.errors import NnasError as NnasError
    from nnas_core.mutables.base import Mutable as Mutable
    from nnas_core.mutables.base import MutableScope as MutableScope
    from nnas_core.mutables.choices import InputChoice as InputChoice
    from nnas_core.mutables.choices import LayerChoice as LayerChoice
    from nnas_core.mutables.extraction import extract as extract
    from nnas_core.mutables.extraction import transfer_weights as transfer_weights
    from nnas_core.mutables.fixed import FixedArchitecture as FixedArchitecture
    from nnas_core.mutables.fixed import apply_fixed_architecture as apply_fixed_architecture
    from nnas_core.mutables.mutator import BaseMutator as BaseMutator
    from nnas_core.mutables.mutator import Mutator as Mutator
    from nnas_core.mutators.random import RandomMutator as RandomMutator
    from nnas_core.space.architecture import Architecture as Architecture
    from nnas_core.space.choice import Choice as Choice
    from nnas_core.space.search_space import SearchSpace as SearchSpace
    from nnas_core.training.trainer import Trainer as Trainer
    from nnas_core.tuners.base import NoMoreTrials as NoMoreTrials
    from nnas_core.tuners.base import Tuner as Tuner
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
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
        },
    )
    __all__.append("__version__")
