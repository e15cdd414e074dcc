"""A search space says what can be decided, an architecture decides it; both are plain data, without torch.

    SearchSpace  -- has -->  Choice, one a key      latency_table: what each candidate of a choice costs
        |                       |
    Architecture -- has -->  Decision, one a key    encoding: the same as a Code, a tuple of whole numbers

Begin with ``SearchSpace``: it is read from a model or a file, draws and checks architectures, and has a fingerprint.
``Architecture`` is the only place that converts the forms of an architecture: masks, names, indices, parameters and the
document. Whoever makes many of them, as a tuner does, works on ``Codes``, and remembers them in ``Unseen``.

    Constraint, Objective (goals)     what is asked of architectures
    CostTable (costs)                 what they cost, where costs add up
    Region                            those that meet constraints: counted, drawn, listed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.space.architecture import FORMS as FORMS
    from nnas_core.space.architecture import Architecture as Architecture
    from nnas_core.space.architecture import Mask as Mask
    from nnas_core.space.architecture import Weights as Weights
    from nnas_core.space.architecture import document_of as document_of
    from nnas_core.space.choice import Choice as Choice
    from nnas_core.space.choice import ChoiceDocument as ChoiceDocument
    from nnas_core.space.choice import Decision as Decision
    from nnas_core.space.choice import InputsDocument as InputsDocument
    from nnas_core.space.choice import Parameter as Parameter
    from nnas_core.space.costs import CostTable as CostTable
    from nnas_core.space.encoding import Code as Code
    from nnas_core.space.encoding import Codes as Codes
    from nnas_core.space.goals import Constraint as Constraint
    from nnas_core.space.goals import Objective as Objective
    from nnas_core.space.latency_table import Latencies as Latencies
    from nnas_core.space.latency_table import read_latencies as read_latencies
    from nnas_core.space.region import KnownCosts as KnownCosts
    from nnas_core.space.region import Region as Region
    from nnas_core.space.region import TableCosts as TableCosts
    from nnas_core.space.search_space import SearchSpace as SearchSpace
    from nnas_core.space.search_space import SearchSpaceDocument as SearchSpaceDocument
    from nnas_core.space.sizes import size_as_json as size_as_json
    from nnas_core.space.sizes import size_in_words as size_in_words
    from nnas_core.space.unseen import Unseen as Unseen
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Architecture": "architecture",
            "Choice": "choice",
            "ChoiceDocument": "choice",
            "Code": "encoding",
            "Codes": "encoding",
            "Constraint": "goals",
            "CostTable": "costs",
            "Decision": "choice",
            "FORMS": "architecture",
            "InputsDocument": "choice",
            "KnownCosts": "region",
            "Latencies": "latency_table",
            "Mask": "architecture",
            "Objective": "goals",
            "Parameter": "choice",
            "Region": "region",
            "SearchSpace": "search_space",
            "SearchSpaceDocument": "search_space",
            "TableCosts": "region",
            "Unseen": "unseen",
            "Weights": "architecture",
            "document_of": "architecture",
            "read_latencies": "latency_table",
            "size_as_json": "sizes",
            "size_in_words": "sizes",
        },
    )
