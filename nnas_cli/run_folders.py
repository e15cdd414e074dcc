"""Commands that work in a run folder: their options, the default place of a run, and how one is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from nnas_cli import config, options
from nnas_cli.parameter_types import CADENCE
from nnas_core import schema
from nnas_core.errors import Interrupted, UsageError
from nnas_core.training.settings import from_options, option_names
from nnas_core.workflows.settings import CheckpointedSettings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from nnas_core.runs.folder import RunFolder

__all__ = ["RunPlace", "command_of_run", "resumed", "trains_in_a_run_folder"]

F = TypeVar("F", bound=Callable[..., object])
_D = TypeVar("_D", bound="DataclassInstance")


@dataclass(frozen=True)
class RunPlace:
    """The folder that a command works in: a new one, or ``resume`` that of an older run."""

    output: str | None
    resume: str | None
    force: bool

    def started(self, default: str) -> RunFolder:
        """Lock the folder of a new run.

        Raises:
            UsageError: standard output is no folder, or the folder is not empty.
        """
        from nnas_core.runs.folder import RunFolder

        if self.output == "-":
            raise UsageError("-o is a folder here, not standard output")
        return RunFolder.create(self.output or default, force=self.force)


def trains_in_a_run_folder(output_help: str) -> Callable[[F], F]:
    """Options of commands that train in a run folder, and those of every command.

    The function gets ``training: CheckpointedSettings | None``, ``place: RunPlace`` and ``out: Output``.

    Args:
        output_help: what the folder is.
    """

    def decorate(function: F) -> F:
        return options.decorated(
            function,
            options.training,
            click.option(
                "--checkpoint-every",
                type=CADENCE,
                metavar="N",
                help="Save also after N steps, or N seconds (30s) or minutes (5m).  [default: each epoch]",
            ),
            click.option("--resume", metavar="RUN", help="Go on in this run folder; MODEL and options are its own."),
            click.option("--force", is_flag=True, help="Start over in a run folder that is not empty."),
            options.with_output(output_help, default=None),
            options.loads_model,
            options.part("training", CheckpointedSettings),
            options.part("place", RunPlace),
            options.common,
        )

    return decorate


def resumed(command: str, kind: type[_D], folder: str, **read: object) -> tuple[RunFolder, _D]:
    """Open a run to go on with.

    Args:
        command: its name.
        kind: of its settings.
        folder: of the run.
        read: parameters that name files, and the content of those, as ``config.json`` has it.

    Returns:
        The locked folder, and the settings that it was started with. Where it runs may change, what it derives, and it
        may have more epochs.

    Raises:
        UsageError: another folder, or ``--force``.
        InputError: no run, or options that differ from before.
    """
    from nnas_core.runs.folder import RunFolder

    elsewhere = ("device", "workers", "checkpoint_every", "derive")
    asked = {**options.explicit(), **read}
    if asked.pop("force", False) or Path(str(asked.pop("output", None) or folder)) != Path(folder):
        raise UsageError("--resume goes on in the run's own folder, it takes no -o and no --force")
    moved = {name: asked.pop(name) for name in elsewhere if name in asked}
    if _is_more(asked.get("epochs"), RunFolder.epochs_of(folder, command)):
        moved["epochs"] = asked.pop("epochs")
    run = RunFolder.resume(folder, command, asked)
    with run.closed_on_error():
        where = str(run.path / "config.json")
        before = run.configuration(command)
        config.refuse_unknown(before, set(option_names(kind)), (), f"{where}: [{command}]")
        schema.check("config", {command: before}, where)
        config.check_values(before, click.get_current_context(), where)
        return run, from_options(kind, {**before, **moved}, where)


def _is_more(epochs: object, before: object) -> bool:
    return isinstance(epochs, int) and isinstance(before, int) and epochs > before


@contextmanager
def command_of_run(command: str, run: RunFolder) -> Iterator[None]:
    """Write in the hint of an interruption which command goes on with the run."""
    try:
        yield
    except Interrupted as error:
        if run.has_begun:
            error.hint = f"nnas {command} --resume {run.path}"
        raise
