"""A study that is resumed runs where it was begun: its command may name files by paths that begin there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from nnas_core.errors import InputError, NnasWarning
from nnas_core.study.storage.origin import Origin
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore

__all__ = ["folder_of"]


def folder_of(store: StudyStore, name: str, texts: Sequence[str | None]) -> Path:
    """Returns the folder in which the trials of a study run.

    That is the current one for a new study, and for one whose folder is not on this machine if the files are here that
    it names; else the one in which it was begun.

    Args:
        store: where the study is, or will be.
        name: of the study.
        texts: that name files, see ``Origin.of``.

    Raises:
        InputError: the folder is not on this machine, and the files here are not those of the study.
    """
    here = Path.cwd()
    sound = store.studies(Damage(store.where))  # what is wrong with this one is told when it is resumed
    origin = next((study.settings.origin for study in sound if study.name == name), Origin())
    if origin.folder is None or Path(origin.folder) == here:
        return here
    if Path(origin.folder).is_dir():
        warnings.warn(f"trials run in {origin.folder}, where study {name!r} was begun", NnasWarning, stacklevel=2)
        return Path(origin.folder)
    if not origin.is_as(Origin.of(texts, here)):
        raise InputError(
            f"study {name!r} was begun in {origin.folder}, which is not on this machine, and its program is not here",
            where=store.where,
            problems=[f"{word}: not here, or with other contents" for word in sorted(origin.files)],
            hint="go to a folder with the program that the study was begun with, or start another `study`",
        )
    return here
