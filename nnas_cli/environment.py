"""Options from the environment: ``NNAS_SEARCH_EPOCHS=3`` is ``--epochs 3`` of ``nnas search``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

import click
from click.core import ParameterSource

from nnas_core.errors import UsageError

__all__ = ["refuse_unknown_variables", "variable_of", "variables"]

_OTHERS = frozenset(
    {
        "NNAS_ATTEMPT",
        "NNAS_INTERMEDIATE",
        "NNAS_PARAMETERS",
        "NNAS_RESULT",
        "NNAS_SEED",
        "NNAS_TRIAL",
        "NNAS_TRIAL_DIR",
        "NNAS_VENV",
    }
)
"""What the program of a trial is told, where the scripts of a checkout keep theirs, and an option of most commands."""


def variable_of(ctx: click.Context, name: str) -> str | None:
    """The variable that a parameter's value comes from; None if it comes from somewhere else."""
    if ctx.get_parameter_source(name) is not ParameterSource.ENVIRONMENT:
        return None
    parameter = next(one for one in ctx.command.params if one.name == name)
    return next(variable for variable in _variables(ctx, parameter) if os.environ.get(variable))


def variables(ctx: click.Context) -> dict[str, str]:
    """The variables that options of a parsed command come from, and their values."""
    names = {variable_of(ctx, name) for name in ctx.params} - {None}
    return {name: os.environ[name] for name in names if name is not None}


def refuse_unknown_variables(ctx: click.Context) -> None:
    """Refuse variables that look like options of the command at hand and are none.

    Those of other commands are theirs to check. A variable that begins with ``NNAS_`` and resembles none of ours may be
    the user's own.

    Raises:
        UsageError: with the nearest name.
    """
    given = sorted(name for name, value in os.environ.items() if name.startswith("NNAS_") and value)
    known = {*_OTHERS, *(name for parameter in ctx.command.params for name in _variables(ctx, parameter))}
    for name in given:
        if name in known:
            continue
        command = _command_of(name, ctx)
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
        if command == ctx.command_path or (command is None and near):
            raise UsageError(
                f"{name}: no option of `{ctx.command_path}` is named so",
                hint=f"did you mean {near[0]}?" if near else f"see `{ctx.command_path} --help`, or unset it",
            )


def _variables(ctx: click.Context, parameter: click.Parameter) -> Iterable[str]:
    """The variables of an option, the one that counts first."""
    if not isinstance(parameter, click.Option):
        return
    if parameter.envvar:
        yield from [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar
    if ctx.auto_envvar_prefix and parameter.allow_from_autoenv and parameter.name:
        yield f"{ctx.auto_envvar_prefix}_{parameter.name.upper()}"


def _command_of(variable: str, ctx: click.Context) -> str | None:
    """The command that a variable is named after, as in ``nnas study list``; None if there is none."""
    root = ctx.find_root()
    return _below(root.command, root.command_path, variable, ctx)


def _below(command: click.Command | None, path: str, variable: str, ctx: click.Context) -> str | None:
    if not isinstance(command, click.Group):
        return path
    for name in command.list_commands(ctx):
        inner = f"{path} {name}"
        if variable.startswith(inner.upper().replace(" ", "_").replace("-", "_") + "_"):
            return _below(command.get_command(ctx, name), inner, variable, ctx)
    return None
