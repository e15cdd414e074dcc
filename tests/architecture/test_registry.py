"""One algorithm, one file: its name is the file's, it has a summary and a source, and no list is kept by hand."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from nnas_core import Assessor, Mutator, Tuner
from nnas_core.plugins import registry
from tests.architecture.sources import ROOT, found_at, nodes, python_files

ENTRIES = [(group, name) for group in ("mutators", "tuners", "assessors") for name in registry.entries(group)]
BASE = {"mutators": Mutator, "tuners": Tuner, "assessors": Assessor}


def file_of(group: str, name: str) -> Path:
    """The one file of an algorithm."""
    return ROOT / "nnas_core" / group / f"{name.replace('-', '_')}.py"


def algorithm_of(group: str, name: str) -> str:
    """The class of an algorithm and its file, as its name says."""
    camel = "".join(part.capitalize() for part in name.split("-"))
    return f"{file_of(group, name)}:{camel}{BASE[group].__name__}"


@pytest.mark.parametrize("group", ["mutators", "tuners", "assessors"])
def test_every_file_of_the_folder_is_an_algorithm(group: str) -> None:
    files = {file.stem.replace("_", "-") for file in (ROOT / "nnas_core" / group).glob("[!_]*.py")}
    files.discard("base")
    assert set(registry.entries(group)) == files


def test_an_algorithm_has_a_summary_and_a_source() -> None:
    said = [registry.entries(group)[name] for group, name in ENTRIES]
    assert [one.name for one in said if not one.summary.endswith(".") or len(one.summary) > 120] == []
    assert [one.name for one in said if not one.source.endswith(".")] == []


def test_an_algorithm_is_the_class_of_its_file_that_its_name_says() -> None:
    classes = {(group, name): registry.find(group, name) for group, name in ENTRIES}
    wrong = [
        f"{inspect.getfile(cls)}:{cls.__name__}"
        for (group, name), cls in classes.items()
        if f"{inspect.getfile(cls)}:{cls.__name__}" != algorithm_of(group, name) or not issubclass(cls, BASE[group])
    ]
    assert wrong == []


def test_no_file_but_another_algorithm_imports_an_algorithm() -> None:
    homes = {f"nnas_core.{group}.{name.replace('-', '_')}": file_of(group, name).parent for group, name in ENTRIES}
    importing = [
        found_at(file, node, node.module)
        for file in python_files("nnas_core", "nnas_cli")
        for node in nodes(file, ast.ImportFrom)
        if node.module in homes
        and file.parent != homes[node.module]
        and file != ROOT / "nnas_core" / "__init__.py"  # for type checkers; it is loaded by name
    ]
    assert importing == []
