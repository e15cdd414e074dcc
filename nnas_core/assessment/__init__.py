"""How far a result can be trusted: statistics of a found architecture against random ones, and the reports of it.

    values of trials --> RandomOnes, TrainedAlone, Budget  --> Assessment --> markdown, junit
    an architecture  --> collapse_of                       -->
    facts that a run or a study has stored --> checklist_of --> Checklist

Begin with ``Assessment``; ``workflows.assess`` measures what it is made of. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.assessment.checklist import Checklist as Checklist
    from nnas_core.assessment.collapse import Collapse as Collapse
    from nnas_core.assessment.collapse import collapse_of as collapse_of
    from nnas_core.assessment.documents import junit as junit
    from nnas_core.assessment.documents import markdown as markdown
    from nnas_core.assessment.experiment import Experiment as Experiment
    from nnas_core.assessment.experiment import checklist_of as checklist_of
    from nnas_core.assessment.report import Assessment as Assessment
    from nnas_core.assessment.report import Budget as Budget
    from nnas_core.assessment.report import RandomOnes as RandomOnes
    from nnas_core.assessment.report import Subject as Subject
    from nnas_core.assessment.report import TrainedAlone as TrainedAlone
    from nnas_core.assessment.statistics import expected_best as expected_best
    from nnas_core.assessment.statistics import paired_interval as paired_interval
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Assessment": "report",
            "Budget": "report",
            "Checklist": "checklist",
            "Collapse": "collapse",
            "Experiment": "experiment",
            "RandomOnes": "report",
            "Subject": "report",
            "TrainedAlone": "report",
            "checklist_of": "experiment",
            "collapse_of": "collapse",
            "expected_best": "statistics",
            "junit": "documents",
            "markdown": "documents",
            "paired_interval": "statistics",
        },
    )
