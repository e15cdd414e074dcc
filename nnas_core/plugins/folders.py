"""The folders of algorithms: each file is one, and the name of its class follows from the name of the file."""

from __future__ import annotations

from pathlib import Path

__all__ = ["own_classes"]

_SUFFIX = {"mutators": "Mutator", "tuners": "Tuner", "assessors": "Assessor"}

_LIBRARY = Path(__file__).parents[1]


def own_classes(group: str) -> dict[str, str]:
    """The classes of the algorithms in a folder of nnas_core, read from the names of its files.

    Args:
        group: ``"mutators"``, ``"tuners"`` or ``"assessors"``.

    Returns:
        Name of the class -> name of its module in the folder, sorted by the latter: ``{"BayesTuner": "bayes"}``.
    """
    modules = sorted(file.stem for file in (_LIBRARY / group).glob("[!_]*.py") if file.stem != "base")
    return {f"{''.join(map(str.capitalize, module.split('_')))}{_SUFFIX[group]}": module for module in modules}
