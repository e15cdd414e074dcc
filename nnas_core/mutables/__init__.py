"""Choices in a torch model, and what a decision makes of them.

    LayerChoice, InputChoice, MutableScope     the choices that a user writes into a module
        | read by the tree into a SearchSpace
    BaseMutator <- Mutator                     binds a model, and decides its keys once a reset
                <- FixedArchitecture           decides them once and for all
    extract, transfer_weights                  a plain module without choices, and its weights
    parameter_table, count_flops               what each candidate costs, as a CostTable of ``space``

Begin with ``choices`` for what a model contains and with ``mutator`` for how it is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.mutables.base import Mutable as Mutable
    from nnas_core.mutables.base import MutableScope as MutableScope
    from nnas_core.mutables.choices import InputChoice as InputChoice
    from nnas_core.mutables.choices import LayerChoice as LayerChoice
    from nnas_core.mutables.cost import count_flops as count_flops
    from nnas_core.mutables.cost import parameter_table as parameter_table
    from nnas_core.mutables.extraction import extract as extract
    from nnas_core.mutables.extraction import transfer_weights as transfer_weights
    from nnas_core.mutables.fixed import FixedArchitecture as FixedArchitecture
    from nnas_core.mutables.fixed import apply_fixed_architecture as apply_fixed_architecture
    from nnas_core.mutables.mutator import BaseMutator as BaseMutator
    from nnas_core.mutables.mutator import Mutator as Mutator
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "BaseMutator": "mutator",
            "FixedArchitecture": "fixed",
            "InputChoice": "choices",
            "LayerChoice": "choices",
            "Mutable": "base",
            "MutableScope": "base",
            "Mutator": "mutator",
            "apply_fixed_architecture": "fixed",
            "count_flops": "cost",
            "extract": "extraction",
            "parameter_table": "cost",
            "transfer_weights": "extraction",
        },
    )
