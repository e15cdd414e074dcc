"""What no file may do: print or exit in the library, touch the global random state, or run code that a file brings."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterable
from pathlib import Path

from tests.architecture.sources import calls, found_at, module_names, modules, nodes, python_files

LIBRARY = [modules()[name] for name in module_names("nnas_core")]
EVERY_FILE = python_files("nnas_core", "nnas_cli", "schemas", "examples", "benchmarks")

# Tests for others to inherit: they assert, seed, and pickle what they made themselves.
TESTS = set(python_files("nnas_core/testing"))

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
    "np.random.MT19937",
    "np.random.default_rng",
    "np.random.get_state",
    "np.random.set_state",
    "random.Random",
    "random.getstate",
    "random.setstate",
    "torch.random.fork_rng",
}

MOST_DICTIONARIES = 6
"""Uses of ``__dict__`` in the library; lower it with every one that goes."""

RUNS_CODE = {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler"}
RUNS_CODE |= {"marshal.loads", "shelve.open", "joblib.load", "yaml.load"}


def called(files: Iterable[Path], names: Container[str] | tuple[str, ...]) -> list[str]:
    """Lists where files call one of ``names``."""
    return [found_at(file, call, text) for file in files for text, call in calls(file) if text in names]


def keyword(call: ast.Call, name: str) -> str | None:
    """The text of a keyword argument."""
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """True if a handler takes any exception at all, and does not raise it again."""
    everything = handler.type is None or ast.unparse(handler.type) == "BaseException"
    return everything and not any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))


def test_the_library_neither_speaks_nor_exits() -> None:
    assert called(LIBRARY, SPEAKS_OR_EXITS) == []


def test_the_library_never_raises_system_exit() -> None:
    raised = [(file, node, ast.unparse(node)) for file in LIBRARY for node in nodes(file, ast.Raise)]
    assert [found_at(*one) for one in raised if "SystemExit" in one[-1]] == []


def test_the_library_draws_from_generators_of_its_own() -> None:
    drawn = [
        found_at(file, call, text)
        for file in LIBRARY
        if file not in TESTS
        for text, call in calls(file)
        if text.startswith(GLOBAL_RANDOMNESS) and text not in ALLOWED_RANDOMNESS
    ]
    assert drawn == []


def test_no_user_data_is_checked_by_assert() -> None:
    product = set(modules().values()) - TESTS
    assert [found_at(file, node, "assert") for file in sorted(product) for node in nodes(file, ast.Assert)] == []


def test_nothing_runs_code_from_data() -> None:
    copies = modules()["nnas_core.testing.mutators"]  # pickles what it made itself, and reads that
    assert called(EVERY_FILE, RUNS_CODE - {"pickle.load"}) == []
    assert called([file for file in EVERY_FILE if file != copies], {"pickle.load"}) == []


def test_no_command_goes_through_a_shell() -> None:
    shells = [
        found_at(file, call, text)
        for file in EVERY_FILE
        for text, call in calls(file)
        if keyword(call, "shell") not in (None, "False")
    ]
    assert shells == []


def test_torch_load_reads_weights_only() -> None:
    unsafe = [
        found_at(file, call, text)
        for file in EVERY_FILE
        for text, call in calls(file)
        if text == "torch.load" and keyword(call, "weights_only") != "True"
    ]
    assert unsafe == []


def test_only_the_boundary_ends_the_process_or_catches_everything() -> None:
    others = [file for name, file in modules().items() if name != "nnas_cli.boundary"]
    caught = [
        found_at(file, handler, "except")
        for file in others
        for handler in nodes(file, ast.ExceptHandler)
        if swallows_everything(handler)
    ]
    assert caught == []


def test_state_under_names_that_are_texts_becomes_rarer() -> None:
    hidden = [
        found_at(file, node, ast.unparse(node))
        for file in LIBRARY
        for node in nodes(file, ast.Attribute)
        if node.attr == "__dict__"
    ]
    assert len(hidden) <= MOST_DICTIONARIES, hidden


def test_the_library_names_no_option_of_the_command_line() -> None:
    named = [
        found_at(file, node, option)
        for file in LIBRARY
        for node in nodes(file, ast.Constant)
        if isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*(?!-*>)", node.value)
    ]
    assert named == []
