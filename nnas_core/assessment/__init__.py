"""How far a result can be trusted: the community's checklist, filled from what is stored.

    Experiment (what is stored of a run or a study) --> checklist_of --> Checklist --> lines, markdown, JSON

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.assessment.checklist import Checklist as Checklist
    from nnas_core.assessment.experiment import Experiment as Experiment
    from nnas_core.assessment.experiment import checklist_of as checklist_of
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__, {"Checklist": "checklist", "Experiment": "experiment", "checklist_of": "experiment"}
    )
