"""Files in a project: their imports work as with ``python -m``, and leave everything else alone."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from torch import nn

from nnas_core.errors import UserCodeError
from nnas_core.plugins.loading import load
from nnas_core.training.model import build_model
from nnas_core.training.task import Task
from tests.plugins.model_files import NET, write

__all__ = ["write"]

CONV = """
from torch import nn

def conv():
    return nn.Linear(2, 3)
"""


class TestProjects:
    """``models/net.py`` and ``models/ops.py`` below the project's root."""

    @pytest.fixture
    def project(self, write, tmp_path, monkeypatch):
        """Write the project, and go to its root."""

        def make(imports, package=True):
            root = tmp_path / uuid.uuid4().hex[:6]
            for name, text in (("ops", CONV), ("net", imports + NET.format(name="Net") + "WIDE = conv().out_features")):
                write(text, f"{root.name}/models/{name}.py")
            if package:
                write("", f"{root.name}/models/__init__.py")
            monkeypatch.chdir(root)
            return root

        return make

    IMPORTS = (
        "from .ops import conv",
        "from models.ops import conv",
        "from ops import conv",
        "from . import ops\nconv = ops.conv",
    )

    @pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
    @pytest.mark.parametrize("reference", ["models/net.py", "models.net"])
    @pytest.mark.parametrize("imports", IMPORTS)
    def test_all_imports_of_python_m_work(self, project, imports, reference, package):
        project(imports + "\n", package)
        path_before, modules_before = list(sys.path), set(sys.modules)
        assert load(reference).module.WIDE == 3
        left = {one for one in set(sys.modules) - modules_before if not one.startswith(("nnas_user_", "nnas_core."))}
        assert (left, sys.path) == (set(), path_before)

    @pytest.mark.parametrize("imports", IMPORTS)
    def test_a_package_is_found_from_anywhere(self, project, imports, tmp_path, monkeypatch):
        root = project(imports + "\n")
        monkeypatch.chdir(tmp_path)
        assert load(str(root / "models" / "net.py")).module.WIDE == 3
        monkeypatch.chdir(root / "models")
        assert load("net.py").module.WIDE == 3

    def test_imports_within_functions_of_a_task_and_a_model_work(self, project):
        root = project("from .ops import conv\n")
        functions = "\n".join(
            f"def {name}({arguments}):\n    {statement}\n    return {result}\n"
            for name, arguments, statement, result in (
                ("forward_batch", "model, batch", "from .ops import conv", "conv()(batch), 0"),
                ("loss", "output, target", "from models.ops import conv", "conv()(output[:, :2]).sum()"),
                ("metrics", "output, target", "import ops", "{'width': ops.conv().out_features}"),
            )
        )
        (root / "models" / "net.py").write_text(functions)
        path_before, modules_before = list(sys.path), set(sys.modules)
        task = Task(load("models/net.py"))
        for _ in range(2):
            output, target = task.forward_batch(nn.Identity(), torch.ones(5, 2))
            assert output.shape == (5, 3)
            assert task.loss(output, target).dim() == 0
            assert task.metrics(output, target) == {"width": 3}
        left = {one for one in set(sys.modules) - modules_before if one.partition(".")[0] in ("models", "ops")}
        assert (left, sys.path) == (set(), path_before)

    def test_an_import_within_a_function_that_fails_is_the_users_error(self, project):
        root = project("from .ops import conv\n")
        (root / "models" / "net.py").write_text("def loss(output, target):\n    import no_such_module_of_anybody\n")
        with pytest.raises(ImportError, match="no_such_module_of_anybody"):
            Task(load("models/net.py")).loss(1, 2)

    def test_two_projects_each_have_their_own(self, project, write):
        for number in (4, 5):
            root = project("from models.ops import NUMBER, conv\n")
            write(f"NUMBER = {number}{CONV}", f"{root.name}/models/ops.py")
            assert number == load("models.net").module.NUMBER

    def test_a_module_of_the_project_comes_before_an_installed_one(self, tmp_path, monkeypatch):
        (tmp_path / "yaml.py").write_text("MINE = 1")
        monkeypatch.chdir(tmp_path)
        assert load("yaml").module.MINE == 1

    def test_what_lies_above_the_model_replaces_neither_nnas_nor_the_standard_library(self, project, write):
        import json

        import nnas_core

        root = project("import json, nnas_core\nfrom .ops import conv\n")
        for name in ("json", "nnas_core"):
            write("raise RuntimeError", f"{root.name}/{name}.py", head="")
        module = load("models/net.py").module
        assert (module.json, module.nnas_core) == (json, nnas_core)

    def test_what_others_have_loaded_of_the_same_folder_stays(self, project, monkeypatch):
        root = project("from models.ops import conv\n")
        monkeypatch.syspath_prepend(str(root))
        import models.ops as theirs

        load("models.net")
        still = sys.modules.pop("models.ops"), sys.modules.pop("models")
        assert (still[0], still[1].ops) == (theirs, theirs)

    def test_classes_of_a_package_can_be_pickled(self, project):
        import pickle

        project("from .ops import conv\n")
        model, _ = build_model("models.net")
        assert isinstance(pickle.loads(pickle.dumps(model)), type(model))

    def test_an_imported_model_is_named_in_the_hint(self, project, tmp_path):
        root = project("from .ops import conv\n")
        (root / "main.py").write_text(
            "from torch import nn\nfrom nnas_core import LayerChoice\nfrom models.net import Net\n"
        )
        with pytest.raises(UserCodeError, match=r"main\.py: no model in it") as caught:
            build_model("main.py")
        assert caught.value.hint == "it imports Net; name one: main.py:Net, or define build_model()"
        assert type(build_model("main.py:Net")[0]).__name__ == "Net"


def test_a_model_in_a_checkout_uses_the_library_that_loads_it() -> None:
    program = (
        "from nnas_core.training.model import build_model\n"
        "model, _ = build_model('examples/digits/model.py')\n"  # the first to import LayerChoice in this process
        "from nnas_core.space.search_space import SearchSpace\n"
        "print(SearchSpace.from_model(model).size)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (done.returncode, int(done.stdout or 0) > 1) == (0, True), done.stderr
