"""One algorithm, one file: its name is the file's, it has a summary and a source, and no list is kept by hand."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from nnas_core import Assessor, Mutator, Tuner
from nnas_core.plugins import registry
from tests.architecture.sources import ROOT

ENTRIES = [(group, name) for group in ("mutators", "tuners", "assessors") for name in registry.entries(group)]
BASE = {"mutators": Mutator, "tuners": Tuner, "assessors": Assessor}


def file_of(group: str, name: str) -> Path:
    """The one file of an algorithm."""
    return ROOT / "nnas_core" / group / f"{name.replace('-', '_')}.py"


@pytest.mark.parametrize("group", ["mutators", "tuners", "assessors"])
def test_every_file_of_the_folder_is_an_algorithm(group: str) -> None:
    files = {file.stem.replace("_", "-") for file in (ROOT / "nnas_core" / group).glob("[!_]*.py")}
    files.discard("base")
    assert set(registry.entries(group)) == files


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_an_algorithm_has_a_summary_and_a_source(group: str, name: str) -> None:
    entry = registry.entries(group)[name]
    assert entry.summary.endswith(".")
    assert len(entry.summary) <= 120
    assert entry.source.endswith(".")


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_an_algorithm_is_the_class_of_its_file_that_its_name_says(group: str, name: str) -> None:
    cls = registry.find(group, name)
    assert issubclass(cls, BASE[group])
    assert cls.__name__ == "".join(part.capitalize() for part in name.split("-")) + BASE[group].__name__
    assert Path(inspect.getfile(cls)) == file_of(group, name)


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_no_file_but_another_algorithm_imports_an_algorithm(group: str, name: str) -> None:
    module = f"nnas_core.{group}.{name.replace('-', '_')}"
    importing = [
        str(file.relative_to(ROOT))
        for folder in ("nnas_core", "nnas_cli")
        for file in (ROOT / folder).rglob("*.py")
        if file.parent != file_of(group, name).parent and f"from {module} " in file.read_text(encoding="utf-8")
    ]
    assert importing == []
