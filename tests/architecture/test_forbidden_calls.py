"""What no file may do: print or exit in the library, touch the global random state, or run code that a file brings."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, calls, module_names, modules, python_files, tree

LIBRARY = module_names("nnas_core")
PRODUCT = sorted(modules())
EVERY_FILE = [
    str(file.relative_to(ROOT)) for file in python_files("nnas_core", "nnas_cli", "schemas", "examples", "benchmarks")
]

# Tests for others to inherit: they assert, seed, and pickle what they made themselves.
TESTS = {"nnas_core.testing.assessors", "nnas_core.testing.mutators", "nnas_core.testing.tuners"}

SPEAKS_OR_EXITS = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "os.abort", "sys.stdout.write"}
SPEAKS_OR_EXITS |= {"sys.stderr.write", "click.echo", "logging.basicConfig", "warnings.simplefilter"}

# Reading and putting back the global states is what a checkpoint needs; drawing from them or seeding them is not.
GLOBAL_RANDOMNESS = (
    "random.",
    "np.random.",
    "numpy.random.",
    "torch.manual_seed",
    "torch.seed",
    "torch.cuda.manual_seed",
)
ALLOWED_RANDOMNESS = {
    "np.random.default_rng",
    "np.random.get_state",
    "np.random.set_state",
    "random.getstate",
    "random.setstate",
    "torch.random.fork_rng",
}

RUNS_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler"}
RUNS_CODE |= {"marshal.loads", "shelve.open", "joblib.load", "yaml.load"}


def called(file: Path) -> set[str]:
    """The text of everything that a file calls."""
    return {text for text, _ in calls(file)}


def keyword(call: ast.Call, name: str) -> str | None:
    """The text of a keyword argument."""
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_neither_speaks_nor_exits(name: str) -> None:
    assert called(modules()[name]) & SPEAKS_OR_EXITS == set()


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_never_raises_system_exit(name: str) -> None:
    raised = [ast.unparse(node) for node in ast.walk(tree(modules()[name])) if isinstance(node, ast.Raise)]
    assert [text for text in raised if "SystemExit" in text] == []


@pytest.mark.parametrize("name", sorted(set(LIBRARY) - TESTS))
def test_the_library_draws_from_generators_of_its_own(name: str) -> None:
    found = {text for text in called(modules()[name]) if text.startswith(GLOBAL_RANDOMNESS)}
    assert found - ALLOWED_RANDOMNESS == set()


@pytest.mark.parametrize("name", sorted(set(PRODUCT) - TESTS))
def test_no_user_data_is_checked_by_assert(name: str) -> None:
    assert [node.lineno for node in ast.walk(tree(modules()[name])) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("file", EVERY_FILE)
def test_nothing_runs_code_from_data(file: str) -> None:
    allowed = {"pickle.load"} if file == "nnas_core/testing/mutators.py" else set()
    assert called(ROOT / file) & RUNS_CODE - allowed == set()


@pytest.mark.parametrize("file", EVERY_FILE)
def test_no_command_goes_through_a_shell(file: str) -> None:
    assert [call.lineno for _, call in calls(ROOT / file) if keyword(call, "shell") not in (None, "False")] == []


@pytest.mark.parametrize("file", EVERY_FILE)
def test_torch_load_reads_weights_only(file: str) -> None:
    unsafe = [
        call.lineno
        for text, call in calls(ROOT / file)
        if text == "torch.load" and keyword(call, "weights_only") != "True"
    ]
    assert unsafe == []


@pytest.mark.parametrize("name", sorted(set(PRODUCT) - {"nnas_cli.boundary"}))
def test_only_the_boundary_ends_the_process_or_catches_everything(name: str) -> None:
    caught = [
        handler.lineno
        for handler in ast.walk(tree(modules()[name]))
        if isinstance(handler, ast.ExceptHandler)
        and (handler.type is None or ast.unparse(handler.type) == "BaseException")
        and not any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
    ]
    assert caught == []
