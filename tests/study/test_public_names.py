"""The packages of studies and of execution hand on their public names, and load no more than is asked for."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

PACKAGES = ["nnas_core.study", "nnas_core.study.storage", "nnas_core.execution", "nnas_core.execution.ray"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("package", PACKAGES[:2])
def test_what_type_checkers_see_is_what_is_handed_on(package: str) -> None:
    module = importlib.import_module(package)
    seen = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}.")
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == set(module.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    module = importlib.import_module("nnas_core.study")
    with pytest.raises(AttributeError, match=r"^module 'nnas_core.study' has no attribute 'Nothing'$"):
        _ = module.Nothing


def test_neither_package_loads_sqlalchemy_torch_or_ray() -> None:
    code = (
        "import sys, nnas_core.study, nnas_core.study.storage, nnas_core.execution\n"
        "from nnas_core.study import Limits, RunSettings, StudySettings\n"
        "print(sorted({'sqlalchemy', 'torch', 'ray'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
