"""The user's files: what they import stays theirs, and a model is found or its absence explained."""

from __future__ import annotations

import sys
import uuid

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice, SearchSpace
from nnas_core.errors import InputError, NnasError, UsageError, UserCodeError
from nnas_core.plugins.loading import as_user_error, load, load_class, split_reference
from nnas_core.training.model import build_model, build_on_meta
from tests.plugins.model_files import HEAD, NET, write

__all__ = ["write"]


class TestImports:
    def test_sys_path_and_sys_modules_are_left_as_they_were(self, write, tmp_path):
        write("VALUE = 5", f"beside_{uuid.uuid4().hex[:6]}.py")
        name = next(tmp_path.glob("beside_*")).stem
        path_before, modules_before = list(sys.path), set(sys.modules)
        user = load(write(f"from {name} import VALUE\nimport {name}"))
        assert (user.module.VALUE, sys.path) == (5, path_before)
        assert {one for one in set(sys.modules) - modules_before if not one.startswith("nnas_user_")} == set()

    @pytest.mark.parametrize(
        ("place", "statement"),
        [
            ("ops.py", "from ops import NAME"),
            ("ops/__init__.py", "from ops import NAME"),
            ("ops/conv.py", "from ops.conv import NAME"),
            ("ops/deep/conv.py", "import ops.deep.conv\nNAME = ops.deep.conv.NAME"),
        ],
        ids=["module", "package", "folder", "folder in a folder"],
    )
    def test_two_models_in_different_folders_each_have_their_own(self, write, place, statement):
        names = []
        for folder in ("first", "second"):
            write(f"NAME = {folder!r}", f"{folder}/{place}")
            names.append(load(write(statement, f"{folder}/model.py")).module.NAME)
        assert names == ["first", "second"]

    def test_what_is_imported_when_the_model_is_built_is_found_too(self, write):
        write("def width():\n    return 3", "sizes.py")
        model, _ = build_model(
            write(
                "class Net(nn.Module):\n"
                "    def __init__(self):\n"
                "        super().__init__()\n"
                "        import sizes\n"
                "        self.op = LayerChoice([nn.Linear(sizes.width(), 1)])\n"
            )
        )
        assert (model.op[0].in_features, "sizes" in sys.modules) == (3, False)

    def test_a_module_of_the_same_name_that_was_imported_before_is_untouched(self, write, tmp_path, monkeypatch):
        other = tmp_path / "elsewhere"
        other.mkdir()
        (other / "ops.py").write_text("NAME = 'theirs'")
        monkeypatch.syspath_prepend(str(other))
        import ops  # what another program has loaded

        write("NAME = 'ours'", "mine/ops.py")
        loaded = load(write("from ops import NAME", "mine/model.py")).module.NAME
        still = sys.modules.pop("ops")
        assert (loaded, still is ops, ops.NAME) == ("ours", True, "theirs")

    def test_a_file_is_run_once(self, write):
        path = write("import itertools\ncounter = itertools.count()\nnext(counter)")
        assert load(path) is load(path)

    def test_a_file_that_fails_leaves_nothing_behind_and_can_be_loaded_again(self, write):
        modules = set(sys.modules)
        path = write("raise ArithmeticError('as it is')")
        path_before = list(sys.path)
        with pytest.raises(ArithmeticError, match="as it is"):
            load(path)
        assert (set(sys.modules), sys.path) == (modules, path_before)
        write("VALUE = 1")
        assert load(path).module.VALUE == 1

    def test_classes_of_the_file_can_be_pickled(self, write):
        import pickle

        model, _ = build_model(write(NET.format(name="Net")))
        assert isinstance(pickle.loads(pickle.dumps(model)), type(model))

    def test_an_installed_module_is_loaded_by_its_name(self):
        assert load("torch.nn").module is nn


class TestFileErrors:
    def test_no_such_file(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.py: no such file"):
            load(str(tmp_path / "gone.py"))

    def test_no_such_module(self):
        with pytest.raises(InputError, match="no_such_module_at_all: no such file, and no module of that name"):
            load("no_such_module_at_all")

    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match="is a directory, a Python file is needed"):
            load(str(tmp_path))

    def test_a_file_that_is_no_python(self, tmp_path):
        (tmp_path / "model.json").write_text("{}")
        with pytest.raises(InputError, match="is no Python file"):
            load(str(tmp_path / "model.json"))

    def test_a_syntax_error_names_its_line(self, write):
        with pytest.raises(UserCodeError, match=r"model\.py:3: SyntaxError"):
            load(write("x = 1\n\nx = = 2", head=""))

    def test_sys_exit_while_importing(self, write):
        with pytest.raises(UserCodeError, match=r"called sys\.exit\(\) while it was imported"):
            load(write("import sys\nsys.exit(3)"))

    def test_an_import_that_fails_inside_is_the_users_error(self, write):
        with pytest.raises(ModuleNotFoundError, match="no_such_library") as caught:
            load(write("import no_such_library"))
        error = as_user_error(caught.value)
        assert error.message == "ModuleNotFoundError: No module named 'no_such_library'"

    def test_the_traceback_starts_at_the_users_own_frame(self, write):
        path = write("def inner():\n    raise KeyError('x')\n\ninner()", head="")
        with pytest.raises(KeyError) as caught:
            load(path)
        error = as_user_error(caught.value)
        assert error.where == f"{path}:4"
        assert error.user_traceback.splitlines()[1] == f'  File "{path}", line 4, in <module>'
        assert error.user_traceback.endswith("KeyError: 'x'\n")

    def test_an_error_that_never_passed_through_user_code_is_not_theirs(self):
        with pytest.raises(IndexError) as caught:
            list(range(0))[0]  # noqa: RUF015  (an error that is not the user's)
        assert as_user_error(caught.value) is None


class TestReferences:
    @pytest.mark.parametrize(
        ("reference", "parts"),
        [
            ("model.py", ("model.py", None)),
            ("model.py:Net", ("model.py", "Net")),
            ("package.module:Net", ("package.module", "Net")),
            ("C:/folder/model.py", ("C:/folder/model.py", None)),
            ("odd:name/model.py:Net", ("odd:name/model.py", "Net")),
        ],
    )
    def test_a_name_follows_the_last_colon(self, reference, parts):
        assert split_reference(reference) == parts

    def test_a_name_that_is_not_there_suggests_the_nearest(self, write):
        path = write(NET.format(name="Network"))
        with pytest.raises(UserCodeError, match="nothing is named 'Netwrok' in it") as caught:
            build_model(f"{path}:Netwrok")
        assert caught.value.hint == "did you mean 'Network'?"

    def test_load_class(self, write):
        path = write("class Mine:\n    pass\nthing = 5")
        assert load_class(f"{path}:Mine").__name__ == "Mine"
        with pytest.raises(UserCodeError, match="thing is no class"):
            load_class(f"{path}:thing")
        with pytest.raises(UsageError, match="names no class"):
            load_class(path)


class TestWhichModel:
    def name_of(self, reference, **options):
        return type(build_model(reference, **options)[0]).__name__

    def test_the_one_class_of_the_file(self, write):
        assert self.name_of(write(NET.format(name="Only"))) == "Only"

    def test_build_model_comes_first(self, write):
        text = NET.format(name="A") + NET.format(name="B") + "def build_model(width=2):\n    return B(width)"
        assert self.name_of(write(text)) == "B"

    def test_a_class_without_mutables_is_passed_over(self, write):
        text = NET.format(name="Net") + "class Plain(nn.Module):\n    pass"
        assert self.name_of(write(text)) == "Net"

    def test_a_part_of_another_model_is_passed_over(self, write):
        text = NET.format(name="Cell") + (
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.cells = nn.Sequential(Cell(), Cell())\n"
        )
        assert self.name_of(write(text)) == "Net"

    def test_a_class_that_was_imported_is_passed_over(self, write):
        write(NET.format(name="Imported"), "parts.py")
        assert self.name_of(write("from parts import Imported\n" + NET.format(name="Own"))) == "Own"

    def test_several_are_listed(self, write):
        path = write(NET.format(name="First") + NET.format(name="Second"))
        with pytest.raises(UserCodeError, match="several classes could be the model: First, Second") as caught:
            build_model(path)
        assert caught.value.hint == f"name one: {path}:Second"

    def test_one_of_several_can_be_named(self, write):
        path = write(NET.format(name="First") + NET.format(name="Second"))
        assert self.name_of(f"{path}:First") == "First"

    def test_a_file_without_a_model(self, write):
        with pytest.raises(UserCodeError, match=r"model\.py: no model in it"):
            build_model(write("x = 1"))

    def test_a_function_may_be_named(self, write):
        assert self.name_of(write(NET.format(name="Net") + "def make():\n    return Net(5)") + ":make") == "Net"

    def test_a_module_may_be_named(self, write):
        path = write(NET.format(name="Net") + "ready = Net(7)")
        assert build_model(f"{path}:ready")[0].ops[0][0].in_features == 7

    def test_choosing_a_class_leaves_the_global_random_state(self, write):
        path = write(NET.format(name="First") + NET.format(name="Second") + "class Plain(nn.Module):\n    pass")
        before = torch.get_rng_state()
        with pytest.raises(UserCodeError):
            build_model(path)
        assert torch.equal(torch.get_rng_state(), before)


class TestArguments:
    def test_they_go_to_the_constructor(self, write):
        model, _ = build_model(write(NET.format(name="Net")), {"width": 5, "layers": 3})
        assert (len(model.ops), model.ops[0][0].in_features) == (3, 5)

    def test_they_go_to_build_model(self, write):
        text = NET.format(name="Net") + "def build_model(*, wide):\n    return Net(wide)"
        assert build_model(write(text), {"wide": 4})[0].ops[0][0].in_features == 4

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"depth": 1}, "got an unexpected keyword argument 'depth'"),
            ({"wide": 1, "x": 2}, "unexpected keyword argument"),
        ],
    )
    def test_an_unknown_one_is_refused_with_what_is_taken(self, write, arguments, message):
        with pytest.raises(UsageError, match=f"wrong model arguments: .*{message}") as caught:
            build_model(write(NET.format(name="Net")), arguments)
        assert caught.value.hint == "it takes width, layers; give them with -a NAME=VALUE"

    def test_a_missing_one_is_named(self, write):
        text = NET.format(name="Net") + "def build_model(*, wide):\n    return Net(wide)"
        with pytest.raises(UsageError, match=r"wrong model arguments: missing a required.* 'wide'"):
            build_model(write(text))

    def test_a_ready_module_takes_none(self, write):
        path = write(NET.format(name="Net") + "ready = Net()")
        with pytest.raises(UsageError, match="is a module already, it takes no `model_arg`"):
            build_model(f"{path}:ready", {"width": 3})

    @pytest.mark.parametrize(
        ("text", "name", "message"),
        [
            ("def build_model():\n    return 5", "", "build_model returned a int, not an nn.Module"),
            ("value = 5", ":value", "value is a int, no model"),
        ],
    )
    def test_what_is_no_module_is_refused(self, write, text, name, message):
        with pytest.raises(UserCodeError, match=message):
            build_model(write(text) + name)

    def test_an_error_in_the_constructor_passes_through_as_the_users(self, write):
        path = write(
            "class Net(nn.Module):\n    def __init__(self):\n        raise RuntimeError('their mistake')", head=HEAD
        )
        with pytest.raises(RuntimeError, match="their mistake") as caught:
            build_model(path)
        assert as_user_error(caught.value).where == f"{path}:{HEAD.count(chr(10)) + 3}"


class TestMeta:
    def test_a_huge_model_takes_no_memory(self, write):
        text = (
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.op = LayerChoice([nn.Linear(100_000, 100_000, bias=False) for _ in range(2)])\n"
        )
        model, _ = build_on_meta(write(text))
        assert sum(one.numel() for one in model.parameters()) == 2 * 10**10
        assert {one.device.type for one in model.parameters()} == {"meta"}
        assert SearchSpace.from_model(model).size == 2

    @pytest.mark.parametrize(
        "statement",
        ["float(torch.ones(1)[0])", "int(torch.arange(3).sum())", "torch.ones(2).tolist()", "bool(torch.ones(1) > 0)"],
    )
    def test_a_constructor_that_needs_numbers_gets_them(self, write, statement):
        text = (
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            f"        self.value = {statement}\n"
            "        self.op = LayerChoice([nn.Linear(2, 2)])\n"
        )
        model, _ = build_on_meta(write(text))
        assert {one.device.type for one in model.parameters()} == {"cpu"}

    def test_tensors_that_the_file_makes_while_it_loads_have_numbers(self, write):
        text = (
            "RATIOS = torch.tensor([0.5, 0.25])\n"
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.op = LayerChoice([nn.Linear(int(8 * ratio), 2) for ratio in RATIOS])\n"
        )
        model, _ = build_on_meta(write(text))
        assert [one.in_features for one in model.op] == [4, 2]

    def test_if_both_ways_fail_the_second_error_counts(self, write):
        text = (
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        raise ValueError(str(torch.ones(1).device))\n"
        )
        with pytest.raises(ValueError, match=r"^cpu$"):
            build_on_meta(write(text))

    def test_an_error_of_ours_is_not_tried_again(self, write):
        with pytest.raises(NnasError, match="no model in it"):
            build_on_meta(write("x = 1"))

    def test_a_mutable_is_found_on_meta_as_on_the_cpu(self, write):
        path = write(NET.format(name="Net"))
        assert SearchSpace.from_model(build_on_meta(path)[0]) == SearchSpace.from_model(build_model(path)[0])
        assert issubclass(LayerChoice, nn.Module)
