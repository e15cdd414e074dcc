"""Options that several commands share, and the types that they are read with."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from nnas_cli import config
from nnas_cli.output import Output
from nnas_core.errors import UsageError

if TYPE_CHECKING:
    from nnas_core.runs.folder import RunFolder

__all__ = [
    "ASSIGNMENT",
    "DURATION",
    "arguments_of",
    "as_dictionary",
    "batches",
    "common",
    "given",
    "loads_model",
    "model_arg",
    "model_argument",
    "recalibrate",
    "refuse_idle",
    "require",
    "resumed",
    "run_folder",
    "started",
    "training",
    "with_output",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Assignment(click.ParamType[tuple[str, Any]]):
    """``KEY=VALUE``; the value is a JSON literal, or a text where it is none."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, (tuple, list)):
            return (value[0], value[1])
        key, equals, text = str(value).partition("=")
        if not equals or not key.isidentifier():
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


ASSIGNMENT = _Assignment()


class _Duration(click.ParamType[float]):
    """Seconds, or with a unit: ``90s``, ``30m``, ``2h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is no duration; give 90s, 30m, 2h or 1d", param, ctx)
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


DURATION = _Duration()


def as_dictionary(ctx: click.Context, param: click.Parameter, value: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Callback of repeated ``KEY=VALUE`` options; the last of a key counts."""
    return dict(value)


def _decorated(function: F, *decorators: Callable[[Any], Any]) -> F:
    """Apply decorators as if they stood above the function, in this order."""
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def model_argument(function: F) -> F:
    """The MODEL argument."""
    return click.argument("model", metavar="MODEL")(function)


def loads_model(function: F) -> F:
    """Options of commands that run the user's model."""
    return _decorated(
        function,
        model_arg,
        click.option("--task", metavar="FILE", help="Python file with datasets, loss and metrics, if not MODEL's."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    )


def model_arg(function: F) -> F:
    """Arguments of the user's model."""
    return click.option(
        "-a",
        "--model-arg",
        type=ASSIGNMENT,
        multiple=True,
        callback=as_dictionary,
        metavar="KEY=VALUE",
        help="Argument of the model; VALUE is a JSON literal. Repeatable.",
    )(function)


def arguments_of(kind: str) -> Callable[[F], F]:
    """The repeatable ``KEY=VALUE`` option of a mutator, tuner or assessor."""
    return click.option(
        f"--{kind}-arg",
        type=ASSIGNMENT,
        multiple=True,
        callback=as_dictionary,
        metavar="KEY=VALUE",
        help=f"Argument of the {kind}. Repeatable.",
    )


def recalibrate(function: F) -> F:
    """The option of evaluations with inherited weights."""
    return click.option(
        "--recalibrate",
        type=click.IntRange(0),
        default=10,
        show_default=True,
        metavar="N",
        help="With --checkpoint: training batches for the BatchNorm statistics; 0: those of the supernet.",
    )(function)


def run_folder(function: F) -> F:
    """Options of commands that work in a run folder."""
    return _decorated(
        function,
        click.option(
            "--checkpoint-every",
            metavar="N",
            help="Also after N steps, or N seconds (30s) or minutes (5m).  [default: each epoch]",
        ),
        click.option("--resume", metavar="RUN", help="Go on in this run folder; MODEL and options are its own."),
        click.option("--force", is_flag=True, help="Start over in a run folder that is not empty."),
    )


def batches(function: F) -> F:
    """Options of loading data."""
    return _decorated(
        function,
        click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Samples a batch."),
        click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Loader processes."),
    )


def training(function: F) -> F:
    """Options of the training loop."""
    from click import option

    return _decorated(
        function,
        batches,
        option(
            "--valid-fraction",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.2,
            show_default=True,
            help="Of the training set, where there is no valid_dataset.",
        ),
        option(
            "--drop-last/--no-drop-last",
            default=False,
            help="Leave out an unfull last batch.  [default: no]",
        ),
        option(
            "--clip-grad",
            type=click.FloatRange(0),
            default=5.0,
            show_default=True,
            help="Largest gradient norm; 0 for no limit.",
        ),
        option(
            "--learning-rate",
            type=click.FloatRange(0, min_open=True),
            default=0.025,
            show_default=True,
            help="Of the default optimizer (SGD).",
        ),
        option("--momentum", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="Likewise."),
        option("--weight-decay", type=click.FloatRange(0), default=3e-4, show_default=True, help="Likewise."),
        option(
            "--schedule",
            type=click.Choice(["cosine", "none"]),
            default="cosine",
            show_default=True,
            help="Of the default optimizer's learning rate, step by step.",
        ),
        option(
            "--min-learning-rate",
            type=click.FloatRange(0),
            default=1e-3,
            show_default=True,
            help="Where the cosine ends.",
        ),
    )


def require(**values: Any) -> None:
    """Refuse arguments that neither the command line nor a configuration gave.

    Raises:
        UsageError: naming the first that is missing.
    """
    for name, value in values.items():
        if value is None:
            shown = name.upper() if name == "model" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{shown} is missing", hint="give it, or a --config that has it")


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that stand on the command line, or in the ``--config`` that it names.

    What the environment or ``./pyproject.toml`` says is around for every command, and not meant for this one.
    """
    ctx = click.get_current_context()
    in_file = config.names_given(ctx)

    def is_given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source == ParameterSource.COMMANDLINE or (source == ParameterSource.DEFAULT_MAP and name in in_file)

    return {name: value for name, value in values.items() if is_given(name)}


def started(output: str | None, default: str, force: bool) -> RunFolder:
    """Lock the folder of a new run.

    Raises:
        UsageError: standard output is no folder, or the folder is not empty.
    """
    from nnas_core.runs.folder import RunFolder

    if output == "-":
        raise UsageError("-o is a folder here, not standard output")
    return RunFolder.create(output or default, force=force)


def resumed(command: str, folder: str, values: Mapping[str, Any]) -> tuple[RunFolder, dict[str, Any]]:
    """Open a run to go on with.

    Args:
        command: its name.
        folder: of the run.
        values: all options of the command.

    Returns:
        The locked folder, and the options that it was started with. Where it runs may change, and what it derives.

    Raises:
        UsageError: another folder, or ``--force``.
        InputError: no run, or options that differ from before.
    """
    from nnas_core.runs.folder import RunFolder

    elsewhere = ("device", "workers", "checkpoint_every", "derive")
    asked = given(values)
    if asked.pop("force", False) or Path(asked.pop("output", None) or folder) != Path(folder):
        raise UsageError("--resume goes on in the run's own folder, it takes no -o and no --force")
    moved = {name: asked.pop(name) for name in elsewhere if name in asked}
    run = RunFolder.resume(folder, command, asked)
    return run, {**run.configuration(command), **moved}


def refuse_idle(names: Iterable[str], beside: str) -> None:
    """Refuse options of the command line that would do nothing.

    Args:
        names: of the options' parameters.
        beside: the option that makes them idle.

    Raises:
        UsageError: naming the first that was given.
    """
    ctx = click.get_current_context()
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} does nothing with {beside}", hint="leave it out")


def with_output(help_text: str, default: str | None = "-") -> Callable[[F], F]:
    """The -o option with the meaning it has for one command."""
    return click.option("-o", "--output", metavar="PATH", default=default, help=help_text)


def common(function: F) -> F:
    """Options of every command; the function gets an ``Output`` as ``out`` and the ``seed``."""

    @functools.wraps(function)
    def wrapped(
        json_output: bool,
        quiet: int,
        verbose: int,
        color: str,
        no_progress: bool,
        debug: bool,
        **options: Any,
    ) -> Any:
        style = click.get_current_context().find_object(dict)
        if style is not None:
            style.update(json=json_output, debug=debug)
        with Output(
            as_json=json_output,
            verbosity=1 + verbose - quiet,
            color=color,
            progress=not no_progress,
            debug=debug,
        ) as out:
            return function(out=out, **options)

    return _decorated(
        wrapped,
        click.option(
            "--json",
            "json_output",
            is_flag=True,
            envvar="NNAS_JSON",
            help="One JSON document on standard output.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            envvar="NNAS_SEED",
            help="Of all randomness.",
        ),
        click.option(
            "--config",
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=config.load,
            envvar="NNAS_CONFIG",
            help="Options as TOML or JSON (default: [tool.nnas] of ./pyproject.toml).",
        ),
        click.option("-q", "--quiet", count=True, help="Say less; -q leaves errors only."),
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            help="Colours; auto heeds NO_COLOR and FORCE_COLOR.",
        ),
        click.option("--no-progress", is_flag=True, help="Plain lines instead of progress bars."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )  # type: ignore[return-value]  # the same command with more options
