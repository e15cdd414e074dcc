"""The tables of a study database, version 4, in terms that every SQL database understands."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from nnas_core.study.storage.stored_json import StoredJson

__all__ = [
    "VERSION",
    "exclusive_leases",
    "intermediates",
    "metadata",
    "repeats",
    "retries",
    "shared_leases",
    "studies",
    "trials",
]

VERSION = 4
"""Grows with every change below, each a step of ``migrations.STEPS``; a database says which it has."""

metadata = MetaData()


def _process_columns() -> list[Column[str] | Column[int]]:
    """Makes what a lease says of its process, and for how long it holds."""
    return [
        Column("host", Text, nullable=False),
        Column("boot", Text, nullable=False),
        Column("pid", Integer, nullable=False),
        Column("pid_start", String(40), nullable=False),
        Column("since", String(40), nullable=False),
        Column("expires", String(40), nullable=False),
    ]


def _keys_of_study(*names: str) -> list[Column[int]]:
    """Makes the primary key of a table with rows for each study."""
    return [
        Column("study_id", Integer, ForeignKey("studies.id"), primary_key=True),
        *(Column(name, Integer, primary_key=True) for name in names),
    ]


def _checksum_column() -> Column[str]:
    """Makes what proves that a row is as it was written: see ``rows.sealed``. Leases have none, a minute ends them."""
    return Column("checksum", String(16), nullable=False, server_default="")


studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("search_space", StoredJson, nullable=False),
    Column("fingerprint", String(80), nullable=False),
    Column("tuner", Text, nullable=False),
    Column("tuner_args", StoredJson, nullable=False),
    Column("seed", Text, nullable=False),  # of any size, so not an SQL integer
    Column("optimize_mode", String(8), nullable=False),
    Column("config", StoredJson, nullable=False),
    Column("created", String(40), nullable=False),
    Column("nnas_version", String(40), nullable=False),
    # what others ask of those who work on it: other limits, and to end
    Column("limits", StoredJson, nullable=False, server_default="{}"),
    Column("stop_requested", Integer, nullable=False, server_default="0"),
    # where it was begun, and what the files were that its command names: see ``Origin``
    Column("origin", StoredJson, nullable=False, server_default="{}"),
    _checksum_column(),
)

# exclusive leases. ``token`` is the fence: it grows with every lease, and every write under one must find its own
exclusive_leases = Table(
    "owners",
    metadata,
    Column("study_id", Integer, ForeignKey("studies.id"), primary_key=True),
    Column("token", Integer, nullable=False),
    Column("claim", String(40), nullable=True),  # null: the study was given back
    *_process_columns(),
)

# shared leases; nobody else writes to a study while the process of one of them lives
shared_leases = Table(
    "joiners",
    metadata,
    Column("study_id", Integer, ForeignKey("studies.id"), primary_key=True),
    Column("claim", String(40), primary_key=True),
    *_process_columns(),
)

# ``proposed_order`` and ``told_order`` number all calls of the tuner, so that they can be repeated in order
trials = Table(
    "trials",
    metadata,
    *_keys_of_study("number"),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("architecture", Text, nullable=False),
    Column("value", Float(53), nullable=True),
    Column("metrics", StoredJson, nullable=False),
    Column("cost", StoredJson, nullable=False),
    Column("error", Text, nullable=True),
    Column("seconds", Float(53), nullable=True),
    Column("started", String(40), nullable=True),
    Column("finished", String(40), nullable=True),
    Column("proposed_order", Integer, nullable=False),
    Column("told_order", Integer, nullable=True),
    Column("worker", Text, nullable=True),  # who evaluates it, for people
    # the shared lease of the process that evaluates it; null: that has the study alone
    Column("lease_token", String(40), nullable=True),
    Column("losses", Integer, nullable=False, server_default="0"),  # attempts that ended because a process died
    Column("log_folder", Text, nullable=True),  # where the engine that evaluates it keeps logs
    Column("kill_requested", Integer, nullable=False, server_default="0"),  # the attempt that somebody wants ended
    _checksum_column(),
    UniqueConstraint("study_id", "digest"),
    Index("trials_by_value", "study_id", "state", "value"),
)

# proposals of an architecture that had a result: the tuner was told that result again
repeats = Table(
    "repeats",
    metadata,
    *_keys_of_study("proposed_order"),
    Column("number", Integer, nullable=False),
    Column("told_order", Integer, nullable=False),
    _checksum_column(),
)

# trials that failed and were told to the tuner as failed, before they were given another chance
retries = Table(
    "retries",
    metadata,
    *_keys_of_study("told_order"),
    Column("number", Integer, nullable=False),
    _checksum_column(),
)

# what a trial reported before its end, each attempt from sequence 0; infinity, on the bad side, for what was not finite
intermediates = Table(
    "intermediates",
    metadata,
    *_keys_of_study("number", "attempt", "sequence"),
    Column("value", Float(53), nullable=False),
    _checksum_column(),
)
