"""Options from a file: ``--config FILE`` (TOML or JSON), else ``[tool.nnas]`` of ``./pyproject.toml``.

A table named like a command holds that command's options, keys beside the tables are for every command that has
them. Likewise ``[study]`` is for the commands of that group, and ``[study.list]`` for one of them. The command line and
the environment win over both.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from nnas_cli.environment import refuse_unknown_variables
from nnas_core._json_text import nested_too_deeply
from nnas_core._listing import shortened
from nnas_core.errors import InputError
from nnas_core.files import parse_json, read_bytes

__all__ = ["check_values", "load", "names_given", "refuse_unknown"]

_GIVEN = f"{__name__}.given"

_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){30}""")
"""A dotted key of TOML with more parts than any of ours."""


def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Callback of ``--config``: make the file's options the defaults of the command."""
    refuse_unknown_variables(ctx)
    if value is not None:
        table, where = _read(value), value
    else:
        pyproject = Path("pyproject.toml")
        if not pyproject.is_file():
            return
        where = str(pyproject)
        table = _tool_nnas(_toml(read_bytes(pyproject), where), where)
    defaults = _for_command(table, ctx, where)
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    if ctx.get_parameter_source("config") == ParameterSource.COMMANDLINE:
        ctx.meta[_GIVEN] = frozenset(defaults)


def names_given(ctx: click.Context) -> frozenset[str]:
    """The parameters that a ``--config`` of the command line has values for, not one that is just around."""
    names: frozenset[str] = ctx.meta.get(_GIVEN, frozenset())
    return names


def _read(path: str) -> dict[str, object]:
    content = read_bytes(path)
    if path.endswith(".json"):
        document = parse_json(content, path)
        if not isinstance(document, dict):
            raise InputError("is no configuration (an object of commands is needed)", where=path)
        return document
    table = _toml(content, path)
    return _tool_nnas(table, path) if path.endswith("pyproject.toml") else table


def _toml(content: bytes, where: str) -> dict[str, object]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = content.decode()
        # a key of many parts takes the parser the square of their number
        table = None if _LONG_KEY.search(text) else tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where=where) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not TOML: {error}", where=where) from error
    except RecursionError as error:
        raise InputError("no configuration: nested too deeply", where=where) from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError("no configuration: a number is too long", where=where) from error
    if table is None or nested_too_deeply(table):
        raise InputError("no configuration: nested too deeply", where=where)
    return table


def _tool_nnas(document: dict[str, object], where: str) -> dict[str, object]:
    table = document
    for name in ("tool", "nnas"):
        inner = table.get(name, {})
        if not isinstance(inner, dict):
            raise InputError(f"{name} is no table", where=where, hint="options stand in [tool.nnas]")
        table = inner
    return table


def _for_command(table: dict[str, object], ctx: click.Context, where: str) -> dict[str, object]:
    root = ctx.find_root().command
    commands = root.list_commands(ctx) if isinstance(root, click.Group) else []
    parameters = _parameters(ctx.command)
    shared = {_name(key): value for key, value in table.items() if key not in commands}
    if isinstance(root, click.Group) and not shared.keys() <= parameters.keys():  # those of another command?
        refuse_unknown(shared, {*parameters, *_options_below(root, ctx)}, commands, where)
    own = _own(table, ctx, where)
    found = {}
    for options, place in [(shared, where), *own]:
        for name, value in options.items():
            if name in parameters and value is not None:
                found[parameters[name].name or name] = _value(parameters[name], value, ctx, name, place)
    return found


def _own(table: dict[str, object], ctx: click.Context, where: str) -> list[tuple[dict[str, object], str]]:
    """The options in the table of the command, and before them those of the group that it is in, with their places."""
    path = ctx.command_path.split()[1:] or [ctx.info_name or ""]
    group = ctx.parent.command if len(path) > 1 and ctx.parent is not None else None
    found = []
    for depth, word in enumerate(path):
        place = f"{where}: [{'.'.join(path[: depth + 1])}]"
        inner = table.get(word, {})
        if not isinstance(inner, dict):
            raise InputError(f"{word} is no table of options", where=where)
        table = inner
        if isinstance(group, click.Group) and depth < len(path) - 1:
            verbs = group.list_commands(ctx)
            options = {_name(key): value for key, value in table.items() if key not in verbs}
            refuse_unknown(options, _options_below(group, ctx), verbs, place)
        else:
            options = {_name(key): value for key, value in table.items()}
            refuse_unknown(options, set(_parameters(ctx.command)), (), place)
        found.append((options, place))
    return found


def _options_below(group: click.Group, ctx: click.Context) -> set[str]:
    """The options of all commands of a group, and of the groups in it."""
    found: set[str] = set()
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            found |= _options_below(command, ctx)
        elif command is not None:
            found |= set(_parameters(command))
    return found


def check_values(options: Mapping[str, object], ctx: click.Context, where: str) -> None:
    """Refuse values that the command's parameters do not take.

    Args:
        options: by name; those of no parameter are left alone.
        ctx: of the command.
        where: the file, for the error.

    Raises:
        InputError: naming the first.
    """
    parameters = _parameters(ctx.command)
    for name, value in options.items():
        if name in parameters and value is not None:
            _value(parameters[name], value, ctx, name, where)


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters by what they are called on the command line: ``train_epochs`` is ``--train-epochs``."""
    found = {}
    for parameter in command.params:
        long = [_name(option[2:]) for option in parameter.opts if option.startswith("--")]
        found[long[0] if long else parameter.name or ""] = parameter
    found.pop("config", None)
    return found


def _name(key: str) -> str:
    return key.replace("-", "_")


def refuse_unknown(options: Mapping[str, object], known: set[str], commands: Iterable[str], where: str) -> None:
    """Refuse options that there are not.

    Args:
        options: by name.
        known: names that there are.
        commands: of which tables might have been meant.
        where: the file and the table, for the error.

    Raises:
        InputError: naming the first, with the nearest name that there is.
    """
    unknown = sorted(set(options) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*sorted(known), *commands], n=1)
        raise InputError(
            f"no option is named {unknown[0]!r}",
            where=where,
            hint=f"did you mean {near[0]!r}?" if near else "see the command's --help",
        )


def _value(parameter: click.Parameter, value: object, ctx: click.Context, name: str, where: str) -> object:
    """The value, if the parameter takes it; a table for a repeatable KEY=VALUE option becomes its pairs."""
    if getattr(parameter, "multiple", False) and isinstance(value, dict):
        value = list(value.items())
    try:
        parameter.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise InputError(f"{name}: {error.message.rstrip('.')}", where=where) from error
    except (
        AttributeError,
        TypeError,
        ValueError,
        OverflowError,
    ) as error:  # a list or a table where a text or a number is expected
        raise InputError(f"{name}: {_shown(value)} is no value for it", where=where) from error
    return value


def _shown(value: object) -> str:
    try:
        return shortened(repr(value), 80)
    except ValueError:  # a number in it that is too long for a text
        return f"a {type(value).__name__}"
