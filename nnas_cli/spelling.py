"""Messages of the library name parameters in backquotes; the command line writes its options there."""

from __future__ import annotations

import re

import click

__all__ = ["options_of", "with_options"]

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


def with_options(text: str, command: click.Command | None) -> str:
    """``text`` with the options of ``command`` where it names its parameters; other words in backquotes stay."""
    if command is None or "`" not in text:
        return text
    options = options_of(command)
    return _PARAMETER.sub(lambda match: options.get(match[1], match[0]), text)
