"""Imports go one way: along the levels that CONTRIBUTING.md lists, without cycles, never from library to commands."""

from __future__ import annotations

import ast
from typing import NamedTuple

from tests.architecture.sources import ROOT, calls, found_at, imports, module_names, modules, nodes

# Imports by name: where they are, and what they may import. Each is there so that torch or a command is loaded late.
BY_NAME = {
    "nnas_cli.groups": "f'{self.package}.{name}'",
    "nnas_core._handing_on": "f'{package}.{names[name]}'",
    "nnas_core.plugins.loading": "source",
    "nnas_core.plugins.registry": "module",
    "nnas_core.space.search_space": "'nnas_core.mutables.tree'",
    "nnas_core.workflows.validate": "'nnas_core.runs.weights'",
}


class Room(NamedTuple):
    """A row of the table in CONTRIBUTING.md."""

    needs_no_torch: bool
    may_import: frozenset[str]


def rooms() -> dict[str, Room]:
    """The rooms of the library by name, in the order of the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| package | answers | may import |")[1].split("\n\n")[0]
    found: dict[str, Room] = {}
    for row in table.splitlines()[2:]:
        name, _, allowed = (cell.strip() for cell in row.strip("|").split(" | "))
        above = set(found)
        if allowed.startswith("all above"):
            names = above - set(allowed.removeprefix("all above").removeprefix(" but ").split(", "))
        else:
            names = set(allowed.split(", ")) - {"-"}
        assert names <= above, f"{name} may import {names - above}, which stand below it"
        found[name.strip("`* ")] = Room(name.endswith("*"), frozenset(names))
    return found


def room_of(module: str) -> str:
    """The room of a module of the library."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or (ROOT / "nnas_core" / parts[-1]).is_dir() else "root"


ROOMS = rooms()
LIBRARY = module_names("nnas_core")
WITH_TORCH = {"nnas_core.plain_optimizers", "nnas_core.random_state", "nnas_core.tuners.ppo"}


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


def test_contributing_lists_every_room_of_the_library() -> None:
    assert set(ROOMS) == {room_of(name) for name in LIBRARY if name != "nnas_core"}


def test_a_room_imports_only_from_the_rooms_that_its_row_names() -> None:
    wrong = [
        f"{name} imports {target}"
        for name in LIBRARY
        for target in imports(name)
        if target.startswith("nnas_core.")
        and room_of(target) not in {room_of(name), *ROOMS[room_of(name)].may_import}
        and name != "nnas_core"
    ]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert [name for name in modules() if name in reachable(name)] == []


def test_the_library_does_not_import_the_command_line() -> None:
    wrong = [name for name in LIBRARY if any(one.startswith("nnas_cli") for one in imports(name, for_types=True))]
    assert wrong == []


def test_rooms_without_torch_import_none_not_even_in_a_function() -> None:
    free = [name for name in LIBRARY if ROOMS[room_of(name)].needs_no_torch and name not in WITH_TORCH]
    assert [name for name in free if "torch" in imports(name)] == []


def test_imports_by_name_are_the_listed_ones() -> None:
    found = {
        (name, ast.unparse(call.args[0]))
        for name, file in modules().items()
        for called, call in calls(file)
        if called in ("importlib.import_module", "import_module", "__import__")
    }
    assert found == set(BY_NAME.items())


def test_no_module_imports_a_private_name_of_another() -> None:
    private = [
        found_at(modules()[name], node, f"{node.module}.{alias.name}")
        for name in LIBRARY
        for node in nodes(modules()[name], ast.ImportFrom)
        if (node.module or "").startswith("nnas")
        for alias in node.names
        if alias.name.startswith("_") and alias.name != "__version__"
    ]
    assert private == []
