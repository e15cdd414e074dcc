"""What a shell offers at <TAB>, and the script that asks for it; nothing here needs torch.

Values are offered by what a parameter is called (``--mutator`` everywhere takes names of mutators), files and folders
by what the help calls its value. What goes wrong offers nothing: a shell has no place for an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from nnas_core.errors import NnasError

__all__ = ["SHELLS", "offered", "script"]

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}

_FILES = frozenset({"FILE", "FILE...", "PATH", "MODEL", "CHECKPOINT"})
_FOLDERS = frozenset({"RUN", "DIR", "FOLDER"})

_NO_SPACE = """
    # after KEY= comes its value
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
"""

_ZSH_COMPADD = "        compadd -U -V unsorted -a completions\n"
_ZSH_NO_SPACE = """\
        # after KEY= comes its value
        local -a names=(${(M)completions:#*=})
        completions=(${completions:#*=})
        (( $#names )) && compadd -U -S '' -V unsorted -a names
"""


def script(shell: str, group: click.Command) -> str:
    """The text that a shell sources to complete ``nnas``, the group of all commands."""
    made = SHELLS[shell](group, {}, "nnas", "_NNAS_COMPLETE")
    text = ShellComplete.source(made)  # that of BashComplete looks for a bash first
    if shell == "bash":
        end = text.rindex("    return 0")
        text = text[:end].rstrip("\n") + "\n" + _NO_SPACE + "\n" + text[end:]
    if shell == "zsh":
        text = text.replace(_ZSH_COMPADD, _ZSH_NO_SPACE + _ZSH_COMPADD)
    return text.strip("\n") + "\n"


def offered(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may come at a parameter.

    Args:
        ctx: with the values of the options before.
        parameter: which.
        incomplete: its value so far.
    """
    try:
        find = _BY_NAME.get(parameter.name or "")
        if find is not None:
            found = [one for one in find(ctx) if one.startswith(incomplete)]
            if found or parameter.name not in _OR_FILES:
                return [CompletionItem(one) for one in found]
    except (NnasError, OSError, ValueError):
        return []
    metavar = str(parameter.metavar or "").strip("[]").split("|")[0]
    if metavar in _FILES or parameter.name in _OR_FILES:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(incomplete, type="dir")] if metavar in _FOLDERS else []


def _algorithms(group: str) -> Callable[[click.Context], Iterable[str]]:
    def find(ctx: click.Context) -> Iterable[str]:
        from nnas_core.plugins import registry

        return registry.entries(group)

    return find


def _arguments(kind: str) -> Callable[[click.Context], Iterable[str]]:
    """Names of the arguments of the algorithm that is chosen before on the line, or by default."""

    def find(ctx: click.Context) -> Iterable[str]:
        from nnas_core.plugins import registry

        name = ctx.params.get(kind) or _default(ctx, kind)
        entry = registry.entries(f"{kind}s").get(str(name))
        return [f"{option.name}=" for option in (entry.options() if entry is not None else None) or ()]

    return find


def _default(ctx: click.Context, name: str) -> object:
    parameter = next((one for one in ctx.command.params if one.name == name), None)
    return None if parameter is None else parameter.get_default(ctx)


def _kinds(ctx: click.Context) -> Iterable[str]:
    from nnas_core import schema

    return schema.kinds()


def _studies(ctx: click.Context) -> Iterable[str]:
    """Names of studies in a database that is a file; a server may take longer than anybody waits for a <TAB>."""
    from nnas_cli.studies import STORAGE

    url = str(ctx.params.get("storage") or STORAGE)
    file = url.removeprefix("sqlite:///")
    if file == url or not Path(file).is_file():
        return []
    from nnas_core.study.storage.rows import Damage
    from nnas_core.study.storage.store import StudyStore

    with StudyStore.open(url, create=False, busy_timeout_s=1.0, go_on=None) as store:
        return [study.name for study in store.studies(Damage(store.where))]


_BY_NAME: dict[str, Callable[[click.Context], Iterable[str]]] = {
    "mutator": _algorithms("mutators"),
    "trainer": _algorithms("mutators"),
    "tuner": _algorithms("tuners"),
    "assessor": _algorithms("assessors"),
    "mutator_arg": _arguments("mutator"),
    "tuner_arg": _arguments("tuner"),
    "assessor_arg": _arguments("assessor"),
    "kind": _kinds,
    "print_schema": _kinds,
    "study": _studies,
    "words": _studies,
    "names": _studies,
}

_OR_FILES = frozenset({"mutator", "trainer", "tuner", "assessor", "names"})
"""Parameters that also take a file, ``file.py:Class``, or a folder."""
