"""What a shell offers at <TAB>: asked as a shell asks, and by a bash that sources the script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from nnas_cli.completion import SHELLS
from nnas_cli.main import cli
from nnas_core import schema
from nnas_core.plugins import registry
from nnas_core.study.storage.store import StudyStore
from tests.cli_support import Cli
from tests.study.known_studies import make


def offered(*words: str) -> list[tuple[str, str]]:
    """Kinds and values of what may be the last of the words."""
    asked = BashComplete(cli, {"auto_envvar_prefix": "NNAS"}, "nnas", "_NNAS_COMPLETE")
    return [(item.type, item.value) for item in asked.get_completions(list(words[:-1]), words[-1])]


def values(*words: str) -> list[str]:
    """Values alone, which must be no files."""
    assert {kind for kind, _ in offered(*words)} <= {"plain"}
    return [value for _, value in offered(*words)]


@pytest.mark.parametrize(
    ("words", "group"),
    [
        (("search", "--mutator"), "mutators"),
        (("search", "--trainer"), "mutators"),
        (("tune", "--tuner"), "tuners"),
        (("tune", "--assessor"), "assessors"),
    ],
)
def test_algorithms_are_offered(words: tuple[str, ...], group: str) -> None:
    assert values(*words, "") == list(registry.entries(group))
    first = next(iter(registry.entries(group)))
    assert first in values(*words, first[:2])


def test_a_file_may_stand_for_an_algorithm() -> None:
    assert offered("search", "--mutator", "my/mine") == [("file", "my/mine")]


@pytest.mark.parametrize(
    ("words", "group", "name"),
    [
        (("search", "model.py", "--mutator", "darts", "--mutator-arg"), "mutators", "darts"),
        (("search", "--mutator", "spos", "--mutator-arg", "x=1", "--mutator-arg"), "mutators", "spos"),
        (("tune", "--tuner-arg"), "tuners", "bayes"),
        (("tune", "--tuner", "evolution", "--tuner-arg"), "tuners", "evolution"),
        (("tune", "--assessor", "hyperband", "--assessor-arg"), "assessors", "hyperband"),
    ],
)
def test_arguments_of_the_chosen_algorithm_are_offered(words: tuple[str, ...], group: str, name: str) -> None:
    options = registry.entries(group)[name].options()
    assert options
    assert values(*words, "") == [f"{option.name}=" for option in options]


@pytest.mark.parametrize("words", [("--mutator-arg",), ("--mutator", "none", "--mutator-arg"), ("--seed",)])
def test_nothing_is_offered_where_nothing_is_known(words: tuple[str, ...]) -> None:
    assert offered("search", *words, "") == []


@pytest.mark.parametrize("option", ["--kind", "--print-schema"])
def test_kinds_are_offered(option: str) -> None:
    assert values("validate", option, "") == list(schema.kinds())


@pytest.mark.parametrize(
    "words", [("study", "show"), ("study", "log"), ("study", "retry"), ("compare",), ("tune", "--study")], ids=" ".join
)
def test_studies_are_offered(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with StudyStore.open("sqlite:///nnas.db") as store:
        make(store)
        make(store, "second")
    assert values(*words, "") == ["first", "second"]
    assert values(*words, "s") == ["second"]


def test_studies_of_another_database_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with StudyStore.open("sqlite:///other.db") as store:
        make(store, "third")
    assert values("study", "show", "--storage", "sqlite:///other.db", "") == ["third"]
    assert values("study", "show", "") == []
    assert values("study", "show", "--storage", "postgresql+psycopg://nobody@nowhere/x", "") == []
    (tmp_path / "nnas.db").write_text("no database")
    assert values("study", "show", "") == []


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("search",), "file"),
        (("validate",), "file"),
        (("export",), "file"),
        (("tune", "--checkpoint"), "file"),
        (("retrain", "--architecture"), "file"),
        (("search", "-o"), "file"),
        (("search", "--resume"), "dir"),
        (("tune", "--trial-log-dir"), "dir"),
        (("runs",), "dir"),
    ],
)
def test_files_and_folders_are_offered_where_they_are_meant(words: tuple[str, ...], kind: str) -> None:
    assert offered(*words, "a/b") == [(kind, "a/b")]


def test_the_script_is_that_of_the_shell(nnas: Cli) -> None:
    for shell in SHELLS:
        printed = nnas.ok("completion", shell)
        assert f"_NNAS_COMPLETE={shell}_complete" in printed.out
        document = nnas.ok("completion", shell, "--json").json
        assert schema.problems("completion-report", document) == []
        assert document["script"] == printed.out
    nnas.ok("completion", "bash", "-o", "nnas.bash")
    assert Path("nnas.bash").read_text() == nnas.ok("completion", "bash").out


def test_the_script_for_zsh_puts_no_space_between_a_key_and_its_value(nnas: Cli) -> None:
    lines = nnas.ok("completion", "zsh").out.splitlines()
    place = lines.index("        local -a names=(${(M)completions:#*=})")  # zsh is not here to run it
    assert lines[place + 1 : place + 4] == [
        "        completions=(${completions:#*=})",
        "        (( $#names )) && compadd -U -S '' -V unsorted -a names",
        "        compadd -U -V unsorted -a completions",
    ]


def test_the_shells_are_listed_where_none_is_named(nnas: Cli) -> None:
    result = nnas("completion")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("nnas: error: missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish\n")


def test_a_shell_that_there_is_not_is_refused(nnas: Cli) -> None:
    result = nnas("completion", "tcsh")
    assert (result.code, result.out) == (2, "")
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.err


BASH = """
source nnas.bash
complete -p nnas
compopt() { options+=("$1 $2"); }
try() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); options=()
    _nnas_completion nnas
    echo "${COMPREPLY[*]};${options[*]}"
}
try nnas completi
try nnas tune --tuner-arg num_i
try nnas search mod
"""


def test_a_bash_completes_by_the_script(nnas: Cli, tmp_path: Path) -> None:
    nnas.ok("completion", "bash", "-o", "nnas.bash")
    (tmp_path / "nnas").write_text(
        f"#!{sys.executable}\nimport sys\nfrom nnas_cli.main import entry\ncode = entry()\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)\n"
    )
    (tmp_path / "nnas").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", BASH], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "complete -o nosort -F _nnas_completion nnas",
        "completion;",
        "num_init=;-o nospace",
        ";-o default",
    ]


def test_every_text_and_file_of_every_command_can_be_asked_for() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):  # type: ignore[attr-defined]
        command = cli.get_command(context, name)  # type: ignore[attr-defined]
        for parameter in getattr(command, "params", []):
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                offered(name, parameter.opts[-1], "")
