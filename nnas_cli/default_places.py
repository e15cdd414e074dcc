"""Default names and places: of a run folder ``runs/MODEL-MUTATOR``, of a study's files ``runs/studies/STUDY``.

The name of a run folder has a hyphen in it and ``studies`` has none, so that no study meets a run, whatever they are
called.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnas_core.plugins.loading import split_reference

__all__ = ["default_run", "default_study", "stem", "study_folder"]


def default_run(model: str, purpose: str) -> str:
    """The folder of a run; ``purpose`` is the mutator of a search, or another command."""
    return f"runs/{stem(model)}-{stem(purpose)}"


def default_study(model: str, tuner: str) -> str:
    """The name of a study."""
    return f"{stem(model)}-{stem(tuner)}"


def study_folder(study: str) -> Path:
    """The folder of what a study writes beside its storage: logs."""
    return Path("runs", "studies", study)


def stem(reference: str) -> str:
    """A short name: ``nets/small.py:Net`` -> ``small``, ``examples/digits/model.py`` -> ``digits``.

    Many a file is called model.py, or space.json; only in the current folder that says enough.
    """
    source = split_reference(reference)[0]
    path = Path(source)
    name = path.stem if path.suffix in (".py", ".json") else source.rpartition(".")[2]
    if path.name in ("model.py", "space.json", "search_space.json") and path.parent != Path():
        name = Path(os.path.abspath(path)).parent.name
    return re.sub(r"[^\w.-]", "_", name) or "model"
