"""Assessors end trials early: one algorithm a file, found by the name of the file.

    a trial reports a value  -->  Assessor.assess_trial(trial, history)  -->  go on, or end

Begin with ``base``: ``Assessor`` is all that one of one's own needs. Every class is here by its name,
``nnas_core.assessors.AshaAssessor``, and loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnas_core._handing_on import hand_on
from nnas_core.plugins.folders import own_classes

if TYPE_CHECKING:
    from nnas_core.assessors.base import Assessor as Assessor
    from nnas_core.assessors.base import AssessResult as AssessResult

    def __getattr__(name: str) -> type[Any]: ...  # an algorithm, by the name of its class

else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "AssessResult": "base",
            "Assessor": "base",
            **own_classes("assessors"),
        },
    )
