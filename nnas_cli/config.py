"""Options from a file: ``--config FILE`` (TOML or JSON), else ``[tool.nnas]`` of ``./pyproject.toml``.

A table named like a command holds that command's options, keys beside the tables are for every command that has
them. The command line and the environment win over both.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import click

from nnas_core.errors import InputError
from nnas_core.files import parse_json, read_bytes

__all__ = ["load"]


def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Callback of ``--config``: make the file's options the defaults of the command."""
    if value is not None:
        table, where = _read(value), value
    else:
        pyproject = Path("pyproject.toml")
        if not pyproject.is_file():
            return
        table, where = (
            _toml(read_bytes(pyproject), str(pyproject)).get("tool", {}).get("nnas", {}),
            str(pyproject),
        )
    ctx.default_map = {**(ctx.default_map or {}), **_for_command(table, ctx, where)}


def _read(path: str) -> dict[str, Any]:
    content = read_bytes(path)
    if path.endswith(".json"):
        document = parse_json(content, path)
        if not isinstance(document, dict):
            raise InputError("is no configuration (an object of commands is needed)", where=path)
        return document
    table = _toml(content, path)
    if path.endswith("pyproject.toml"):
        own: dict[str, Any] = table.get("tool", {}).get("nnas", {})
        return own
    return table


def _toml(content: bytes, where: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not TOML: {error}", where=where) from error


def _for_command(table: dict[str, Any], ctx: click.Context, where: str) -> dict[str, Any]:
    root = ctx.find_root().command
    commands = root.list_commands(ctx) if isinstance(root, click.Group) else []
    command = ctx.info_name or ""
    parameters = {p.name: p for p in ctx.command.params if p.name != "config"}
    shared = {_name(key): value for key, value in table.items() if key not in commands}
    own = table.get(command, {})
    if not isinstance(own, dict):
        raise InputError(f"{command} is no table of options", where=where)
    _refuse_unknown(shared, {*parameters, *_ANY_COMMAND}, commands, where)
    options = {_name(key): value for key, value in own.items()}
    _refuse_unknown(options, set(parameters), (), f"{where}: [{command}]")
    merged = {**{key: value for key, value in shared.items() if key in parameters}, **options}
    return {key: _value(parameters[key], value) for key, value in merged.items() if value is not None}


# What stands beside the tables may concern another command than the one that runs.
_ANY_COMMAND = {"seed", "device", "task", "model_arg", "storage", "color", "no_progress", "quiet", "verbose"}


def _name(key: str) -> str:
    name = key.replace("-", "_")
    return "json_output" if name == "json" else name


def _refuse_unknown(options: dict[str, Any], known: set[str], commands: Any, where: str) -> None:
    unknown = sorted(set(options) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*known, *commands], n=1)
        raise InputError(
            f"no option is named {unknown[0]!r}",
            where=where,
            hint=f"did you mean {near[0]!r}?" if near else "see the command's --help",
        )


def _value(parameter: click.Parameter, value: Any) -> Any:
    """A table for a repeatable KEY=VALUE option becomes its pairs."""
    return list(value.items()) if getattr(parameter, "multiple", False) and isinstance(value, dict) else value
