"""Imports go one way: along the levels that CONTRIBUTING.md lists, without cycles, never from library to commands."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.sources import ROOT, calls, imports, module_names, modules

# Imports by name: where they are, and what they may import. Each is there so that torch or a command is loaded late.
BY_NAME = {
    "nnas_cli.groups": "f'{self.package}.{name}'",
    "nnas_core": "f'nnas_core.{_HOME[name]}'",
    "nnas_core.plugins.loading": "source",
    "nnas_core.plugins.registry": "module",
    "nnas_core.space.search_space": "'nnas_core.mutables.tree'",
    "nnas_core.workflows.validate": "'nnas_core.runs.checkpoint'",
}


def levels() -> list[tuple[bool, list[str]]]:
    """The rows of CONTRIBUTING.md from the top: whether they need torch, and the modules (a folder: all in it)."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found: list[tuple[bool, list[str]]] = []
    for half in ("without torch", "with torch"):
        table = text.split(f"| {half} |")[1].split("\n\n")[0]
        for row in table.splitlines()[2:]:
            names: list[str] = []
            for name in re.findall(r"`([a-z_]+)(/?)`", row.split("|")[1]):
                names += module_names(f"nnas_core.{name[0]}") if name[1] else [f"nnas_core.{name[0]}"]
            found.append((half == "with torch", names))
    return found


LEVEL = {name: number for number, (_, names) in enumerate(levels(), start=1) for name in names}
TORCH_FREE = [name for torch, names in levels() if not torch for name in names if name != "nnas_core.tuners.ppo"]
LIBRARY = [name for name in module_names("nnas_core") if name != "nnas_core"]


def reachable(name: str) -> set[str]:
    """Every module of ours that a module imports, directly or not."""
    found: set[str] = set()
    queue = [name]
    while queue:
        for target in imports(queue.pop()) & modules().keys():
            if target not in found:
                found.add(target)
                queue.append(target)
    return found


def test_contributing_lists_every_module_of_the_library_once() -> None:
    assert sorted(name for _, names in levels() for name in names) == sorted(LIBRARY)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_module_imports_from_its_own_level_or_from_one_above_it_in_the_table(name: str) -> None:
    upward = [target for target in imports(name) if LEVEL.get(target, 0) > LEVEL[name]]
    assert upward == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_imports_itself_in_a_circle(name: str) -> None:
    assert name not in reachable(name)


@pytest.mark.parametrize("name", module_names("nnas_core"))
def test_the_library_does_not_import_the_command_line(name: str) -> None:
    assert [target for target in imports(name, for_types=True) if target.startswith("nnas_cli")] == []


@pytest.mark.parametrize("name", ["nnas_core", *TORCH_FREE])
def test_the_torch_free_half_imports_no_torch_not_even_in_a_function(name: str) -> None:
    assert "torch" not in imports(name)


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_by_name_are_the_listed_ones(name: str) -> None:
    found = {
        ast.unparse(call.args[0])
        for called, call in calls(modules()[name])
        if called in ("importlib.import_module", "import_module", "__import__")
    }
    assert found == ({BY_NAME[name]} if name in BY_NAME else set())


@pytest.mark.parametrize("name", module_names("nnas_core"))
def test_no_module_imports_a_private_name_of_another(name: str) -> None:
    private = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnas")
        for alias in node.names
        if alias.name.startswith("_") and alias.name != "__version__"
    ]
    assert private == []
