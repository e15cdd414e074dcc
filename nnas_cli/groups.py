"""A group of commands that are imported only when they are used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click

from nnas_cli.parameter_types import with_checked_texts

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """The command ``some-name`` is ``command`` in the module ``some_name`` of a package.

    Args:
        package: its dotted name.
        summaries: name -> the first line of its help, so that the group's help imports no command.
    """

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self.package = package
        self.summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name, imported now; None if there is none."""
        if cmd_name not in self.summaries:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"{self.package}.{name}")
        command: click.Command = module.command
        return with_checked_texts(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is asked for.

        Raises:
            UsageError: there is none of that name; the nearest is told.
        """
        name = args[0]
        if name not in self.summaries and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.summaries, n=1)
            raise click.UsageError(
                f"no command is named {name!r}" + (f", did you mean {near[0]!r}?" if near else ""), ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section of commands from the summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))
