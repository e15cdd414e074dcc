"""Trials that failed are given another chance, once what made them fail is mended.

The tuner keeps what it was told, that they failed; what they reach now it learns as it learns of trials of elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert

from nnas_core.errors import InputError
from nnas_core.study.administration import read_trials
from nnas_core.study.storage.database import Database
from nnas_core.study.storage.leases import shut_out
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.rows import Damage, change, change_study, sealed
from nnas_core.study.storage.tables import retries, trials

__all__ = ["retry_trials"]

_AGAIN: dict[str, object] = {
    "state": "waiting",
    "error": None,
    "metrics": {},
    "seconds": None,
    "started": None,  # what the attempt before has left is not the result of this one
    "finished": None,
    "told_order": None,
    "lease_token": None,
    "losses": 0,
}


def retry_trials(database: Database, study: StudyRecord, numbers: Sequence[int] = ()) -> list[int]:
    """Lets trials wait for the next run, as if they had not been tried; the study counts as interrupted.

    Args:
        database: where the study is.
        study: which; nobody may be working on it.
        numbers: of trials that failed or were stopped early; none: all that failed.

    Returns:
        The numbers of the trials that wait now.

    Raises:
        InputError: the study has no such trial, or it has a value, or has not ended; all are listed.
        EnvironmentFailure: somebody works on the study.
    """
    with database.write() as connection:
        shut_out(database, connection, study)
        damage = Damage(database.where)
        found = {row.number: row for row in read_trials(connection, study, damage)}
        damage.refuse()
        chosen = sorted(set(numbers)) or sorted(number for number, row in found.items() if row.state == "failed")
        problems = [
            f"trial {number}: " + (f"it is {found[number].state}" if number in found else "there is none")
            for number in chosen
            if number not in found or found[number].state not in ("failed", "stopped")
        ]
        if problems:
            raise InputError(
                f"not trials of study {study.name!r} that failed or were stopped",
                where=database.where,
                problems=problems,
                hint=f"`nnas study trials {study.name}` lists them",
            )
        for number in chosen:
            told = {"study_id": study.id, "number": number, "told_order": found[number].told_order}
            connection.execute(insert(retries).values(sealed(retries, told)))
            change(connection, trials, found[number], {**_AGAIN, "attempt": found[number].attempt + 1})
        if chosen:  # what is left to do, a run must take up
            change_study(connection, database.where, study, state="interrupted")
    return chosen
