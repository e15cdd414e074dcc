"""Studies: trials of architectures, proposed by a tuner, kept in a database, resumed after any end.

    opening --> coordinator, alone --------+                  +--> execution: an engine runs the trials
            --> cooperation, with others --+--> trial_loop ---+--> proposals: a tuner is asked and told
                                                              +--> storage: a session writes what becomes of trials

Begin with ``run_study``: a study in a ``StudyStore``, a tuner, and an engine or a function that measures an
architecture; ``RunSettings`` says for how long. ``run_described`` does all of it from a ``StudySettings``. Studies are
looked at and stopped by ``administration``, filled by ``importing``, and written for other programs by ``exporting``.

Names are loaded when they are first used: the store needs SQLAlchemy, which ``import nnas_core.study`` does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.study.administration import StudyStatus as StudyStatus
    from nnas_core.study.cooperation import SharedResult as SharedResult
    from nnas_core.study.cooperation import run_shared as run_shared
    from nnas_core.study.coordinator import StudyResult as StudyResult
    from nnas_core.study.coordinator import run_study as run_study
    from nnas_core.study.csv_results import results_csv as results_csv
    from nnas_core.study.exporting import results_json as results_json
    from nnas_core.study.exporting import write_optuna_study as write_optuna_study
    from nnas_core.study.importing import GivenResult as GivenResult
    from nnas_core.study.importing import ImportResult as ImportResult
    from nnas_core.study.importing import read_results as read_results
    from nnas_core.study.limits import REASONS as REASONS
    from nnas_core.study.limits import Limits as Limits
    from nnas_core.study.limits import RunSettings as RunSettings
    from nnas_core.study.limits import TrialRules as TrialRules
    from nnas_core.study.opening import create_assessor as create_assessor
    from nnas_core.study.opening import create_study as create_study
    from nnas_core.study.opening import create_tuner as create_tuner
    from nnas_core.study.opening import join_study as join_study
    from nnas_core.study.opening import open_study as open_study
    from nnas_core.study.opening import resume_study as resume_study
    from nnas_core.study.opening import run_described as run_described
    from nnas_core.study.pareto import Front as Front
    from nnas_core.study.pareto import front_of as front_of
    from nnas_core.study.storage.records import StudyRecord as StudyRecord
    from nnas_core.study.storage.records import StudySettings as StudySettings
    from nnas_core.study.storage.records import TrialRecord as TrialRecord
    from nnas_core.study.storage.store import StudyStore as StudyStore
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Front": "pareto",
            "GivenResult": "importing",
            "ImportResult": "importing",
            "Limits": "limits",
            "REASONS": "limits",
            "RunSettings": "limits",
            "SharedResult": "cooperation",
            "StudyRecord": "storage.records",
            "StudyResult": "coordinator",
            "StudySettings": "storage.records",
            "StudyStatus": "administration",
            "StudyStore": "storage.store",
            "TrialRecord": "storage.records",
            "TrialRules": "limits",
            "create_assessor": "opening",
            "create_study": "opening",
            "create_tuner": "opening",
            "front_of": "pareto",
            "join_study": "opening",
            "open_study": "opening",
            "read_results": "importing",
            "results_csv": "csv_results",
            "results_json": "exporting",
            "resume_study": "opening",
            "run_described": "opening",
            "run_shared": "cooperation",
            "run_study": "coordinator",
            "write_optuna_study": "exporting",
        },
    )
