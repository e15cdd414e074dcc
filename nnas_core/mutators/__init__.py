"""The one-shot algorithms: one a file, its trainer included, found by the name of the file.

    Mutator <- random, spos, fairnas, enas           sample an architecture, and decide it hard
            <- RelaxedMutator (_relaxation)          logits that blend candidates: darts, pcdarts, pdarts, cdarts, drnas
                <- GumbelMutator (_gumbel)           relaxed samples of them: gdas, snas, fbnet
            <- proxyless                             binary gates (_gates)

Begin with ``random``, the shortest, then ``darts``: the hypergradient is in its trainer. Files that begin with ``_``
hold what several share. Every class is here by its name, ``nnas_core.mutators.DartsMutator``, loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnas_core._handing_on import hand_on
from nnas_core.plugins.folders import own_classes

if TYPE_CHECKING:
    from nnas_core.mutators._gumbel import GumbelMutator as GumbelMutator
    from nnas_core.mutators._relaxation import RelaxedMutator as RelaxedMutator

    def __getattr__(name: str) -> type[Any]: ...  # an algorithm, by the name of its class

else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "GumbelMutator": "_gumbel",
            "RelaxedMutator": "_relaxation",
            **own_classes("mutators"),
        },
    )
