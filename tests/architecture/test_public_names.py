"""Every public name is declared in ``__all__`` and says in a docstring what it is."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

import nnas_core
from nnas_core.plugins import registry
from nnas_core.plugins.folders import own_classes
from tests.architecture.sources import calls, loaded, modules, nodes, public_members, tree

IMPORTABLE = sorted(set(modules()) - {"nnas_cli.__main__"})

PACKAGES = [name for name in IMPORTABLE if name.startswith("nnas_core") and modules()[name].name == "__init__.py"]
"""Packages of the library: they hand on names of their modules and define none."""


def handed_on(package: str) -> dict[str, str]:
    """The names that a package imports from its modules, for itself or for type checkers, and from which."""
    homes = {alias.name: node.module for node in nodes(modules()[package], ast.ImportFrom) for alias in node.names}
    return {name: home for name, home in homes.items() if home and home.startswith(f"{package}.") and name != "hand_on"}


def table_of(package: str) -> dict[str, str] | None:
    """The names that a package loads when they are used, and from which module; None if it loads them at once."""
    tables = [call.args[1] for text, call in calls(modules()[package]) if text == "hand_on"]
    if not tables:
        return None
    table = tables[0]
    assert isinstance(table, ast.Dict)
    pairs = zip(table.keys, table.values, strict=True)
    written = {ast.literal_eval(key): ast.literal_eval(home) for key, home in pairs if key is not None}
    return {name: f"{package}.{home}" for name, home in written.items()}


def defined(name: str) -> set[str]:
    """The public names that a module's top level defines; type variables are none."""
    found: set[str] = set()
    for node in tree(modules()[name]).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign) and not ast.unparse(node.value).startswith("TypeVar("):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {one for one in found if not one.startswith("_")}


def undocumented(module: ModuleType) -> list[str]:
    """The public functions, classes and methods of a module that have no docstring, inherited ones counting."""
    missing = []
    for name, value in public_members(module):
        if not inspect.getdoc(value):
            missing.append(name)
        if inspect.isclass(value):
            missing += [f"{name}.{method}" for method in vars(value) if _is_silent(value, method)]
    return missing


def _is_silent(owner: type, name: str) -> bool:
    """Returns true if a public method of a class has no docstring, nor inherits one."""
    value = inspect.getattr_static(owner, name)
    if name.startswith("_") or not (
        inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)
    ):
        return False
    return not inspect.getdoc(getattr(owner, name))


def test_all_lists_exactly_the_public_names_of_a_module() -> None:
    wrong = {}
    for name in IMPORTABLE:
        declared = set(getattr(loaded(name), "__all__", []) if name not in PACKAGES else [])
        if declared != defined(name):
            wrong[name] = sorted(declared ^ defined(name))
    assert wrong == {}


def test_every_public_function_class_and_method_has_a_docstring() -> None:
    assert [f"{name}.{member}" for name in IMPORTABLE for member in undocumented(loaded(name))] == []


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    first = {name: (ast.get_docstring(tree(file)) or "").split("\n\n")[0].rstrip() for name, file in modules().items()}
    assert [name for name, sentence in first.items() if not sentence.endswith((".", "?", ":"))] == []


def test_a_name_of_a_package_is_that_of_the_module_it_comes_from() -> None:
    wrong = [
        f"{package}.{name}"
        for package in PACKAGES
        for name, home in handed_on(package).items()
        if getattr(loaded(package), name) is not getattr(loaded(home), name) or name not in loaded(home).__all__
    ]
    assert wrong == []


def test_type_checkers_see_the_names_that_a_package_loads_late() -> None:
    assert {package: handed_on(package) for package in PACKAGES if table_of(package) is not None} == {
        package: table for package in PACKAGES if (table := table_of(package)) is not None
    }


def test_all_of_a_package_lists_what_it_hands_on_and_every_algorithm_of_its_folder() -> None:
    wrong = {}
    for package in PACKAGES:
        group = package.removeprefix("nnas_core.")
        algorithms = own_classes(group) if group in ("mutators", "tuners", "assessors") else {}
        expected = {*handed_on(package), *algorithms, *(["__version__"] if package == "nnas_core" else [])}
        if expected != set(getattr(loaded(package), "__all__", [])):
            wrong[package] = sorted(expected ^ set(loaded(package).__all__))
    assert wrong == {}


@pytest.mark.parametrize("group", ["mutators", "tuners", "assessors"])
def test_an_algorithm_is_a_name_of_its_package(group: str) -> None:
    package = loaded(f"nnas_core.{group}")
    classes = {name: registry.find(group, name) for name in registry.entries(group)}
    assert [name for name, cls in classes.items() if getattr(package, cls.__name__) is not cls] == []


def test_nnas_core_has_no_other_names() -> None:
    assert dir(nnas_core) == sorted([*handed_on("nnas_core"), "__version__"])
    with pytest.raises(AttributeError, match="module 'nnas_core' has no attribute 'LayerChoise'"):
        getattr(nnas_core, "LayerChoise")  # noqa: B009  (a name that mypy would refuse)


def test_the_names_that_programs_import_are_there() -> None:
    # what the programs of the documentation and of NNI 1.x import from one place
    names = {
        "BaseMutator",
        "InputChoice",
        "LayerChoice",
        "Mutable",
        "MutableScope",
        "Mutator",
        "RandomMutator",
        "Trainer",
    }
    assert names <= set(nnas_core.__all__)


def test_nnas_core_testing_has_all_names_of_its_modules() -> None:
    parts = [loaded(name) for name in modules() if name.startswith("nnas_core.testing.") and "._" not in name]
    assert sorted(loaded("nnas_core.testing").__all__) == sorted(name for part in parts for name in part.__all__)
