"""How a database of an older version becomes one of this version, a step a version.

The statements are SQL that every database understands, and each step is written once and never changed: files that were
made by every version are kept in tests/study/old_databases.
"""

from __future__ import annotations

from sqlalchemy import Connection

from nnas_core.study.storage.rows import seal_all
from nnas_core.study.storage.tables import VERSION

__all__ = ["STEPS", "migrate"]

STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE studies ADD COLUMN limits JSON DEFAULT '{}' NOT NULL",
        "ALTER TABLE studies ADD COLUMN stop_requested INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE trials ADD COLUMN worker TEXT",
        "ALTER TABLE trials ADD COLUMN lease_token VARCHAR(40)",
        "ALTER TABLE trials ADD COLUMN losses INTEGER DEFAULT 0 NOT NULL",
        """
        CREATE TABLE intermediates (
            study_id INTEGER NOT NULL,
            number INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            sequence INTEGER NOT NULL,
            value DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (study_id, number, attempt, sequence),
            FOREIGN KEY (study_id) REFERENCES studies (id)
        )
        """,
        """
        CREATE TABLE joiners (
            study_id INTEGER NOT NULL,
            claim VARCHAR(40) NOT NULL,
            host TEXT NOT NULL,
            boot TEXT NOT NULL,
            pid INTEGER NOT NULL,
            pid_start VARCHAR(40) NOT NULL,
            since VARCHAR(40) NOT NULL,
            expires VARCHAR(40) NOT NULL,
            PRIMARY KEY (study_id, claim),
            FOREIGN KEY (study_id) REFERENCES studies (id)
        )
        """,
    ),
    2: (
        "ALTER TABLE studies ADD COLUMN origin JSON DEFAULT '{}' NOT NULL",
        "ALTER TABLE trials ADD COLUMN log_folder TEXT",
        "ALTER TABLE trials ADD COLUMN kill_requested INTEGER DEFAULT 0 NOT NULL",
        """
        CREATE TABLE retries (
            study_id INTEGER NOT NULL,
            told_order INTEGER NOT NULL,
            number INTEGER NOT NULL,
            PRIMARY KEY (study_id, told_order),
            FOREIGN KEY (study_id) REFERENCES studies (id)
        )
        """,
    ),
    3: tuple(
        f"ALTER TABLE {table} ADD COLUMN checksum VARCHAR(16) DEFAULT '' NOT NULL"
        for table in ("studies", "trials", "repeats", "retries", "intermediates")
    ),
}
"""By the version that a step begins with."""

_CHECKSUMS = 4
"""The first version whose rows have checksums."""


def migrate(connection: Connection, version: int) -> None:
    """Makes a database of ``version``, 1 or more, one of ``VERSION``, in the transaction of ``connection``."""
    for step in range(version, VERSION):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement)
    if version < _CHECKSUMS:
        seal_all(connection)
