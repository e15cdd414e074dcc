"""Every public name is declared in ``__all__`` and says in a docstring what it is."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

import pytest

import nnas_core
from tests.architecture.sources import loaded, modules, public_members, tree

IMPORTABLE = sorted(set(modules()) - {"nnas_cli.__main__"})

# Packages of the library only give names of their modules, at once or when they are used.
HANDS_ON = {name for name, path in modules().items() if name.startswith("nnas_core") and path.name == "__init__.py"}


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
    """Whether a public method of a class has no docstring, nor inherits one."""
    value = inspect.getattr_static(owner, name)
    if name.startswith("_") or not (
        inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)
    ):
        return False
    return not inspect.getdoc(getattr(owner, name))


@pytest.mark.parametrize("name", IMPORTABLE)
def test_all_lists_exactly_the_public_names_of_a_module(name: str) -> None:
    declared = getattr(loaded(name), "__all__", []) if name not in HANDS_ON else []
    assert sorted(declared) == sorted(defined(name))


@pytest.mark.parametrize("name", IMPORTABLE)
def test_every_public_function_class_and_method_has_a_docstring(name: str) -> None:
    assert undocumented(loaded(name)) == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_module_says_in_one_sentence_what_it_is(name: str) -> None:
    docstring = ast.get_docstring(tree(modules()[name]))
    assert docstring is not None
    assert docstring.split("\n\n")[0].rstrip().endswith((".", "?", ":"))


@pytest.mark.parametrize("name", [name for name in nnas_core.__all__ if name != "__version__"])
def test_a_name_of_nnas_core_is_that_of_the_module_it_comes_from(name: str) -> None:
    home = loaded(f"nnas_core.{nnas_core._HOME[name]}")
    assert getattr(nnas_core, name) is getattr(home, name)
    assert name in home.__all__


def test_nnas_core_has_no_other_names() -> None:
    assert dir(nnas_core) == sorted([*nnas_core._HOME, "__version__"])
    with pytest.raises(AttributeError, match="module 'nnas_core' has no attribute 'LayerChoise'"):
        getattr(nnas_core, "LayerChoise")  # noqa: B009  (a name that mypy would refuse)


@pytest.mark.parametrize(
    "name",
    # what the programs of the documentation and of NNI 1.x import from one place
    ["BaseMutator", "InputChoice", "LayerChoice", "Mutable", "MutableScope", "Mutator", "RandomMutator", "Trainer"],
)
def test_the_names_that_programs_import_are_there(name: str) -> None:
    assert name in nnas_core.__all__


def test_nnas_core_testing_has_all_names_of_its_modules() -> None:
    package = loaded("nnas_core.testing")
    parts = [loaded(name) for name in modules() if name.startswith("nnas_core.testing.")]
    assert sorted(package.__all__) == sorted(name for part in parts for name in part.__all__)
    assert all(getattr(package, name) is getattr(part, name) for part in parts for name in part.__all__)
