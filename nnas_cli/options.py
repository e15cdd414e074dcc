"""Options that several commands share; those that belong together become one typed object."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from nnas_cli import config
from nnas_cli.output import Output
from nnas_cli.parameter_types import (
    ASSIGNMENT,
    CONSTRAINT,
    DEVICE,
    MOST_PROCESSES,
    MOST_SEED,
    OBJECTIVE,
    Count,
    Number,
)
from nnas_cli.spelling import options_of, spell
from nnas_core.errors import NnasError, UsageError
from nnas_core.training.settings import (
    DataSettings,
    OptimizerSettings,
    SetupSettings,
    TrainingSettings,
    from_options,
    option_names,
)
from nnas_core.workflows.settings import EvaluateSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "arguments_of",
    "batches",
    "common",
    "common_without_seed",
    "constraint",
    "decorated",
    "epochs",
    "explicit",
    "goals",
    "latency_table",
    "loads_model",
    "model_arg",
    "of_field",
    "part",
    "recalibrate",
    "refuse_idle",
    "required",
    "training",
    "with_output",
]

F = TypeVar("F", bound=Callable[..., object])
_T = TypeVar("_T")


def _as_dictionary(
    ctx: click.Context, param: click.Parameter, value: Iterable[tuple[str, object]]
) -> dict[str, object]:
    """Callback of repeated ``KEY=VALUE`` options; the last of a key counts."""
    return dict(value)


# ---- options of several commands; those of a part become one object


def decorated(function: F, *decorators: Callable[[F], F]) -> F:
    """Apply decorators as if they stood above the function, in this order."""
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def part(name: str, kind: type[DataclassInstance]) -> Callable[[F], F]:
    """Options that belong together: the function gets them as one object, or None if they are of a MODEL not given.

    Args:
        name: of the function's parameter.
        kind: the dataclass; its fields and those of its parts are named as the options. The command may lack some.
    """
    names = option_names(kind)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(**values: object) -> object:
            taken = {option: values.pop(option) for option in names if option in values}
            nothing = "model" in taken and taken["model"] is None
            return function(**values, **{name: None if nothing else from_options(kind, taken)})

        return wrapped  # type: ignore[return-value]  # the same command

    return decorate


def of_field(
    option: str, owner: type[object], kind: click.ParamType[object] | None, help_text: str, metavar: str | None = None
) -> Callable[[F], F]:
    """An option whose default is that of a field.

    Args:
        option: named as the field.
        owner: the dataclass that has it.
        kind: of the values; None: texts.
        help_text, metavar: for the help.
    """
    default = getattr(owner, option[2:].replace("-", "_"))
    return click.option(option, type=kind, default=default, show_default=True, help=help_text, metavar=metavar)


def loads_model(function: F) -> F:
    """Options of commands that run the user's model.

    What can be seen to be wrong in names and files is refused before torch is imported, which takes seconds.
    """

    @functools.wraps(function)
    def checked(**values: object) -> object:
        _check_ahead(click.get_current_context().params)
        return function(**values)

    return decorated(
        checked,
        model_arg,
        click.option("--task", metavar="FILE", help="Take datasets, loss and metrics from this Python file."),
        of_field("--device", SetupSettings, DEVICE, "Run on auto, cpu, cuda or cuda:N."),
    )  # type: ignore[return-value]  # the same command with more options


def _check_ahead(given: Mapping[str, Any]) -> None:
    from nnas_core.plugins import loading, registry

    for group in ("mutator", "tuner", "assessor"):
        if given.get(group) is not None:
            registry.check_ahead(f"{group}s", given[group], given[f"{group}_arg"])
    if given.get("trial_command") is None:
        for reference in (given.get("model"), given.get("task")):
            if reference is not None and not reference.endswith(".json"):  # `nnas tune` says more of a search space
                loading.check_source(loading.split_reference(reference)[0])


def arguments_of(kind: str, help_text: str = "", *short: str) -> Callable[[F], F]:
    """The repeatable ``KEY=VALUE`` option of a model, mutator, tuner or assessor."""
    return click.option(
        *short,
        f"--{kind}-arg",
        type=ASSIGNMENT,
        multiple=True,
        callback=_as_dictionary,
        metavar="KEY=VALUE",
        help=help_text or f"Give the {kind} an argument. Repeatable.",
    )


model_arg = arguments_of("model", "Give the model an argument; VALUE is a JSON literal. Repeatable.", "-a")

recalibrate = of_field(
    "--recalibrate",
    EvaluateSettings,
    Count(0),
    "Take the BatchNorm statistics from N training batches; 0 takes those of the supernet of --checkpoint.",
    metavar="N",
)

constraint = click.option(
    "--constraint",
    type=CONSTRAINT,
    multiple=True,
    metavar="NAME<=VALUE",
    help="Try and hand out only architectures within this limit, of parameters, macs, latency_ms, memory_mib or what "
    "costs(model) or a metric says; also NAME>=VALUE. Repeatable, all hold.",
)

latency_table = click.option(
    "--latency-table", metavar="FILE", help="Take latency_ms from this table, as `nnas profile` writes it."
)


def goals(function: F) -> F:
    """Options of what trials are asked for: a ``GoalSettings``."""
    return decorated(
        function,
        constraint,
        click.option(
            "--objective",
            type=OBJECTIVE,
            multiple=True,
            metavar="NAME[:min|max]",
            help="Search for architectures where this metric or cost is large, or small. Repeatable: several have a "
            "Pareto set.  [default: the metric]",
        ),
        latency_table,
    )


epochs = of_field("--epochs", TrainingSettings, Count(1), "Train so many epochs in all.")


def batches(function: F) -> F:
    """Options of loading data."""
    return decorated(
        function,
        of_field("--batch-size", DataSettings, Count(1), "Put so many samples into a batch."),
        of_field(
            "--workers",
            DataSettings,
            Count(0, MOST_PROCESSES),
            "Load data in so many other processes.",
        ),
    )


def training(function: F) -> F:
    """Options of the training loop."""
    fraction = Number(0, 1, min_open=True, max_open=True)
    positive, not_negative = Number(0, min_open=True), Number(0)
    schedules = click.Choice(["cosine", "none"])
    return decorated(
        function,
        batches,
        of_field(
            "--valid-fraction",
            DataSettings,
            fraction,
            "Hold out this part, where there is no valid_dataset.",
        ),
        click.option(
            "--drop-last/--no-drop-last",
            default=DataSettings.drop_last,
            help="Leave out an unfull last batch.  [default: no]",
        ),
        of_field("--clip-grad", TrainingSettings, not_negative, "Shorten gradients to this norm; 0 never does."),
        of_field("--learning-rate", OptimizerSettings, positive, "Let the default optimizer (SGD) begin with it."),
        of_field("--momentum", OptimizerSettings, Number(0, 1), "Give the default optimizer this momentum."),
        of_field("--weight-decay", OptimizerSettings, not_negative, "Give the default optimizer this weight decay."),
        of_field(
            "--schedule",
            OptimizerSettings,
            schedules,
            "Lower the default optimizer's learning rate so.",
        ),
        of_field("--min-learning-rate", OptimizerSettings, not_negative, "Let the cosine end at this learning rate."),
    )


def with_output(help_text: str, default: str | None = "-") -> Callable[[F], F]:
    """The -o option with the meaning it has for one command."""
    return click.option("-o", "--output", metavar="PATH", default=default, help=help_text)


# ---- what was given


def required(value: _T | None, shown: str) -> _T:
    """The value, which the command line or a configuration must have given.

    Args:
        value: None if neither did.
        shown: the argument or the option.

    Raises:
        UsageError: it is missing.
    """
    if value is None:
        raise UsageError(f"{shown} is missing", hint="give it, or a --config that has it")
    return value


def explicit() -> dict[str, object]:
    """Parameters and their values that stand on the command line, or in the ``--config`` that it names.

    What the environment or ``./pyproject.toml`` says is around for every command, and not meant for this one.
    """
    ctx = click.get_current_context()
    in_file = config.names_given(ctx)

    def is_given(name: str) -> bool:
        source = ctx.get_parameter_source(name)
        return source == ParameterSource.COMMANDLINE or (source == ParameterSource.DEFAULT_MAP and name in in_file)

    return {name: value for name, value in ctx.params.items() if is_given(name)}


def refuse_idle(names: Iterable[str], beside: str) -> None:
    """Refuse options of the command line that would do nothing.

    Args:
        names: of the options' parameters.
        beside: the option that makes them idle.

    Raises:
        UsageError: naming the first that was given.
    """
    ctx = click.get_current_context()
    spelled = options_of(ctx.command)
    for name in names:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{spelled[name]} does nothing with {beside}", hint="leave it out")


# ---- options of every command


def common(function: F) -> F:
    """Options of every command; the function gets an ``Output`` as ``out`` and the ``seed``."""
    seed = click.option(
        "--seed",
        type=Count(0, MOST_SEED),
        default=DataSettings.seed,
        show_default=True,
        envvar="NNAS_SEED",
        help="Begin all randomness with this number.",
    )
    return _common(function, seed)


def common_without_seed(function: F) -> F:
    """Options of every command that only reads: there is no randomness in it."""
    return _common(function)


def _common(function: F, *more: Callable[[F], F]) -> F:
    @functools.wraps(function)
    def wrapped(
        json: bool, quiet: int, verbose: int, color: str, no_progress: bool, debug: bool, **options: object
    ) -> object:
        style = click.get_current_context().find_object(dict)
        if style is not None:
            style.update(json=json, debug=debug)
        with Output(
            as_json=json,
            verbosity=1 + verbose - quiet,
            color=color,
            progress=not no_progress,
            debug=debug,
        ) as out:
            try:
                return function(out=out, **options)
            except NnasError as error:
                ctx = click.get_current_context()
                spell(error, ctx.command, ctx)
                raise

    return decorated(
        wrapped,
        click.option(
            "--json",
            is_flag=True,
            envvar="NNAS_JSON",
            help="Print one JSON document on standard output.",
        ),
        *more,  # type: ignore[arg-type]
        click.option(
            "--config",
            metavar="FILE",
            is_eager=True,
            expose_value=False,
            callback=config.load,
            envvar="NNAS_CONFIG",
            help="Read options as TOML or JSON (default: [tool.nnas] of ./pyproject.toml).",
        ),
        click.option("-q", "--quiet", count=True, help="Say less; -q leaves errors only."),
        click.option("-v", "--verbose", count=True, help="Say more."),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            help="Use colours; auto heeds NO_COLOR and FORCE_COLOR.",
        ),
        click.option("--no-progress", is_flag=True, help="Print plain lines instead of progress bars."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )  # type: ignore[return-value]  # the same command with more options
