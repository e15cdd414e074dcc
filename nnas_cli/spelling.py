"""Messages of the library name parameters in backquotes; the command line writes its options there."""

from __future__ import annotations

import re

import click

from nnas_cli.environment import variable_of, variables
from nnas_core.errors import NnasError

__all__ = ["options_of", "spell", "with_options"]

_KNOWN_AS = {"--output": "-o"}
"""Options that everybody, and every page, calls by their short name."""

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)`")


def options_of(command: click.Command) -> dict[str, str]:
    """Name of a parameter -> its option, of a command or of all commands of a group: ``batch_size: --batch-size``."""
    found: dict[str, str] = {}
    if isinstance(command, click.Group):
        context = click.Context(command, resilient_parsing=True)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            found.update(options_of(inner) if inner is not None else {})
    for parameter in command.params:
        long = [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")]
        found.update({option[2:].replace("-", "_"): _KNOWN_AS.get(option, option) for option in long})
        if long:
            found.setdefault(parameter.name or "", long[0])
    return found


def spell(error: NnasError, command: click.Command | None, ctx: click.Context | None = None) -> None:
    """Write options of ``command`` where the library named parameters; where one came from a variable, that."""
    error.message = with_options(error.message, command, ctx)
    error.hint = None if error.hint is None else with_options(error.hint, command, ctx)
    error.problems = tuple(with_options(problem, command, ctx) for problem in error.problems)
    if ctx is not None and error.where is None:  # it is about a value, and says no name: the variable's is of use
        error.where = next((name for name, value in variables(ctx).items() if repr(value) in error.message), None)


def with_options(text: str, command: click.Command | None, ctx: click.Context | None = None) -> str:
    """``text`` with the options of ``command`` where it names its parameters; other words in backquotes stay.

    Args:
        text: of the library.
        command: whose options.
        ctx: of the same command, if it has been parsed: an option that the environment gives is its variable.
    """
    if command is None or "`" not in text:
        return text
    options = options_of(command)
    if ctx is not None:
        given = {name: variable_of(ctx, name) for name in ctx.params}
        options.update({name: variable for name, variable in given.items() if variable is not None})
    return _PARAMETER.sub(lambda match: options.get(match[1], match[0]), text)
