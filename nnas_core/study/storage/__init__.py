"""Studies in a database: one schema, in an SQLite file or in PostgreSQL, and who may write to it.

    store: all studies of a database --> session: the time that one process works on a study
                                             exclusive: alone      shared: beside others
                                             leases: the right to  trial_writer: what becomes of trials
    database: transactions, over sqlite or postgresql;  tables, and migrations of older ones;  backup
    records: studies and trials as values;  tuner_log: the calls of a tuner, to be repeated

Begin with ``StudyStore.open``. Every finished trial is stored before anybody hears of it, and each result counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.study.storage.backup import back_up as back_up
    from nnas_core.study.storage.exclusive import ExclusiveSession as ExclusiveSession
    from nnas_core.study.storage.records import StudyRecord as StudyRecord
    from nnas_core.study.storage.records import StudySettings as StudySettings
    from nnas_core.study.storage.records import TrialRecord as TrialRecord
    from nnas_core.study.storage.session import StudySession as StudySession
    from nnas_core.study.storage.shared import SharedSession as SharedSession
    from nnas_core.study.storage.store import StudyStore as StudyStore
    from nnas_core.study.storage.trial_writer import TrialWriter as TrialWriter
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "ExclusiveSession": "exclusive",
            "SharedSession": "shared",
            "StudyRecord": "records",
            "StudySession": "session",
            "StudySettings": "records",
            "StudyStore": "store",
            "TrialRecord": "records",
            "TrialWriter": "trial_writer",
            "back_up": "backup",
        },
    )
