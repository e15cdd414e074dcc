"""The one place where errors become lines on standard error and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from nnas_cli.environment import variable_of
from nnas_cli.escapes import printable, shown
from nnas_cli.signals import at_once
from nnas_cli.spelling import spell
from nnas_core._listing import shortened
from nnas_core.errors import EnvironmentFailure, ExitCode, Interrupted, NnasError, UserCodeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["run"]


def run(group: click.Group, arguments: Sequence[str]) -> int:
    """Call ``group`` and report whatever comes out of it."""
    _open_closed_streams()
    # what the command line says counts also where it cannot be parsed; a command adds what its configuration says
    style = {"json": "--json" in arguments, "debug": "--debug" in arguments}
    try:
        with _stopped_at_once():
            code = _invoke(group, list(arguments), style)
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  (the boundary: nothing may pass it)
        return int(_report(error, style["json"], style["debug"]))
    return code


@contextlib.contextmanager
def _stopped_at_once() -> Iterator[None]:
    """A signal ends the block; a ``KeyboardInterrupt`` without one is an error of the code that raised it."""
    with at_once() as signal_number:
        try:
            yield
        except KeyboardInterrupt as error:
            number = signal_number()
            if number is not None:
                raise Interrupted(number, "interrupted") from error
            raise


def _open_closed_streams() -> None:
    """Let nobody read what goes to a stream that the shell closed (``>&-``): a file of ours could get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _invoke(group: click.Group, arguments: list[str], style: dict[str, bool]) -> int:
    if "_NNAS_COMPLETE" in os.environ:  # the shell asks for completions
        group.main(args=arguments, prog_name="nnas")
    try:
        # not group.main: it makes exit code 1 of a closed pipe, before we could see it
        with group.make_context("nnas", arguments, obj=style) as context:
            try:
                result = group.invoke(context)
            except NnasError as error:
                spell(error, group.get_command(context, context.invoked_subcommand or ""))
                raise
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return int(result) if isinstance(result, int) else int(ExitCode.DONE)


def _report(error: BaseException, as_json: bool, debug: bool) -> int:
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return ExitCode.CLOSED_PIPE
    if isinstance(error, SystemExit) and "_NNAS_COMPLETE" in os.environ:  # how click ends a shell completion
        return error.code if isinstance(error.code, int) else ExitCode.DONE
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(f"{error.format_message()}\n")
        return ExitCode.USAGE
    with contextlib.suppress(BrokenPipeError):
        failure, code = _classify(error)
        show_traceback = debug or code == ExitCode.BUG
        _write(failure, code, as_json, "".join(traceback.format_exception(error)) if show_traceback else "")
        return code
    return ExitCode.CLOSED_PIPE


def _forget_stdout() -> None:
    """Keep the interpreter from flushing what nobody reads any more, and from complaining about it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _classify(error: BaseException) -> tuple[NnasError, int]:
    if isinstance(error, Interrupted):
        return error, error.code
    if isinstance(error, NnasError):
        return error, error.exit_code
    if isinstance(error, click.ClickException):
        return _usage(error), ExitCode.USAGE
    if isinstance(error, click.Abort):
        return NnasError("interrupted"), ExitCode.INTERRUPTED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            NnasError("out of memory", hint="lower --batch-size, or use a smaller model or search space"),
            ExitCode.ENVIRONMENT,
        )
    if _loader_died(error):
        failure = EnvironmentFailure(
            f"a loader process died: {str(error).splitlines()[0]}",
            hint="it may have run out of memory; use fewer --workers",
        )
        return failure, failure.exit_code
    from nnas_core.plugins import loading  # late: most runs never fail

    user = loading.as_user_error(error)
    if user is not None:
        return user, user.exit_code
    if isinstance(error, KeyboardInterrupt):
        return NnasError("interrupted"), ExitCode.INTERRUPTED
    if isinstance(error, OSError):
        from nnas_core.files import environment_failure

        if error.filename is not None:
            failure = environment_failure(error, error.filename, "go on")
        elif _writes_output(error):
            _forget_stdout()
            failure = environment_failure(error, "standard output")
        else:
            failure = EnvironmentFailure(f"the system refused: {error.strerror or error}")
        return failure, failure.exit_code
    return (
        NnasError(
            f"a bug in nnas: {type(error).__name__}: {error}",
            hint="please report it with the lines above and the output of `nnas info`",
        ),
        ExitCode.BUG,
    )


def _loader_died(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    from nnas_core.training.loader_processes import loader_died  # late: it needs torch

    return loader_died(error)


def _writes_output(error: BaseException) -> bool:
    """Returns true if the error came out of a write to a stream, and not out of loader processes or a library."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").partition(".")[0] in ("click", "nnas_cli", "rich")


def _usage(error: click.ClickException) -> NnasError:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, click.MissingParameter):  # click lists the choices on lines of their own
        message = " ".join(message.split())
    context = getattr(error, "ctx", None)
    if isinstance(error, click.BadParameter) and error.param is not None and context is not None:
        variable = variable_of(context, error.param.name or "")
        message = message if variable is None else f"{variable}: {error.message.rstrip('.')}"
    command = context.command_path if context is not None else "nnas"
    return NnasError(message, hint=f"see `{command} --help`")


def _write(failure: NnasError, code: int, as_json: bool, trace: str) -> None:
    user_trace = failure.user_traceback if isinstance(failure, UserCodeError) else ""
    if as_json:
        from nnas_core.files import dump_json
        from nnas_core.schema import tagged

        document: dict[str, object] = {
            "code": int(code),
            "kind": ExitCode(code).name.lower().replace("_", "-"),
            "message": failure.message,
            "where": failure.where,
            "hint": failure.hint,
            "problems": list(failure.problems),
        }
        if trace or user_trace:
            document["traceback"] = trace or user_trace
        sys.stderr.write(dump_json(tagged("error", {"error": document})))
        return
    where = f"{shortened(failure.where)}: " if failure.where else ""
    lines = [f"nnas: error: {where}{failure.message}", *(f"  {problem}" for problem in failure.problems)]
    if failure.hint:
        lines.append(f"hint: {shortened(failure.hint)}")
    sys.stderr.write(shown(trace or user_trace) + "".join(f"{printable(line)}\n" for line in lines))
