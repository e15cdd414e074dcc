"""Every trial is a fresh process of a command of the user's, with files in a folder of its own."""

from __future__ import annotations

import errno
import os
import re
import selectors
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nnas_core.errors import EnvironmentFailure, InputError, UsageError
from nnas_core.execution.engine import (
    Engine,
    Failed,
    Finished,
    Intermediate,
    Job,
    Report,
    TrialFailed,
    TrialResult,
)
from nnas_core.execution.process import GRACE_S, End, Supervised, environment, last_line
from nnas_core.execution.results import Reported, read_result
from nnas_core.files import environment_failure, prepare_folder, read_json, write_json

__all__ = [
    "LINGER_S",
    "MOST_SLOTS",
    "CommandEngine",
    "LocalSettings",
    "find_program",
    "log_file",
    "shell_word",
    "split_command",
    "threads_for",
    "timed_out",
]

MOST_SLOTS = 1000

LINGER_S = 60.0
"""How long a program may take to end after its result."""

_SHELL = re.compile(r"^(\||\|\||&&|&|;|[12]?>>?|<|2>&1)$|[$`*]|;$")
"""Words that mean something to a shell, and nothing where there is none."""

_BUILTINS = ("cd", "export", "source", ".", "set", "ulimit", "alias", "exec", "eval", "if", "for", "while")

_FILES = ("parameters.json", "result.json", "intermediate.jsonl", "log.txt")


def split_command(text: str) -> list[str]:
    """Splits a command line into words, as a shell does; nothing is expanded and no shell runs.

    Raises:
        UsageError: a quote is open, or there is no word.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"`trial_command` {text!r}: {str(error).lower()}", hint="close the quotes") from error
    if not words:
        raise UsageError("`trial_command` is empty", hint="give a program and its arguments")
    return words


@dataclass(frozen=True)
class LocalSettings:
    """Describes how trials run on this machine.

    Attributes:
        folder: for logs and files of trials; made when it is needed.
        threads: for each trial.
        gpus: each trial gets one of them; empty: what there is, for all.
        log_bytes: how much output of a trial is kept.
        grace_s: how long a process has between SIGTERM and SIGKILL.
        linger_s: how long a program may go on that has written its result, if no time-out comes first; then it is
            ended, and the result counts.
        work_in: the current folder of trial commands; None: that of this process.
    """

    folder: Path
    threads: int = 1
    gpus: Sequence[str] = ()
    log_bytes: int = 10 * 2**20
    grace_s: float = GRACE_S
    linger_s: float = LINGER_S
    work_in: Path | None = None

    @property
    def slots(self) -> int:
        """Holds the most trials at once."""
        return len(self.gpus) or MOST_SLOTS


@dataclass
class _Trial:
    job: Job
    process: Supervised
    folder: Path
    gpu: str | None
    begin: float
    reported: Reported
    sequence: int = 0
    ended_as: str | None = None  # why it is being ended, if it is
    result: TrialResult | None = None  # that was there when it had to be ended
    result_since: float | None = None  # when it was first seen

    def report(self, message: str, lost: bool = False) -> Failed:
        return Failed(self.job.number, self.job.attempt, message, time.monotonic() - self.begin, lost)


class CommandEngine(Engine):
    """Runs a command for each trial.

    The command's current folder is ours, or that of the settings. It finds its parameters in the file
    ``NNAS_PARAMETERS`` and writes its result to ``NNAS_RESULT`` (see ``nnas_core.trial``). ``NNAS_TRIAL`` and
    ``NNAS_ATTEMPT`` are numbers, ``NNAS_TRIAL_DIR`` is a folder of its own, where also ``log.txt`` is:
    ``FOLDER/TRIAL-ATTEMPT``. A program that does not end after its result is ended, and the result counts.

    Args:
        command: program and arguments.
        settings: where and how.
    """

    def __init__(self, command: Sequence[str], settings: LocalSettings) -> None:
        super().__init__()
        self._command = list(command)
        self._settings = settings
        self.log_folder = str(settings.folder.absolute())
        self._trials: dict[int, _Trial] = {}
        self._free_gpus = list(settings.gpus)[::-1]
        self._selector = selectors.DefaultSelector()

    @property
    def slots(self) -> int:
        """Holds one for each GPU, else as many as anybody may want."""
        return self._settings.slots

    def submit(self, job: Job) -> None:
        """Starts the command.

        Raises:
            EnvironmentFailure: the files of the trial cannot be written, or no process can be started.
        """
        folder = prepare_folder(log_file(self._settings.folder, job.number, job.attempt).parent).resolve()
        parameters, result, intermediate, log = (folder / name for name in _FILES)
        for path in (result, intermediate):  # of another study, of the same name
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise environment_failure(error, path) from error
        write_json(parameters, job.architecture.parameters())
        gpu = self._free_gpus.pop() if self._free_gpus else None
        env = environment(
            self._settings.threads,
            gpu,
            NNAS_TRIAL=job.number,
            NNAS_ATTEMPT=job.attempt,
            NNAS_TRIAL_DIR=folder,
            NNAS_PARAMETERS=parameters,
            NNAS_RESULT=result,
            NNAS_INTERMEDIATE=intermediate,
        )
        begin = time.monotonic()
        try:
            process = Supervised(
                self._command,
                log=log,
                log_bytes=self._settings.log_bytes,
                env=env,
                grace_s=self._settings.grace_s,
                cwd=self._settings.work_in,
            )
        except OSError as error:
            raise environment_failure(error, self._command[0], "start") from error
        trial = _Trial(job, process, folder, gpu, begin, Reported(intermediate))
        self._trials[job.number] = trial
        self._selector.register(process, selectors.EVENT_READ, trial)

    def poll(self, timeout_s: float) -> list[Report]:
        """Looks for ends, time-outs and new intermediate results."""
        reports: list[Report] = []
        now = time.monotonic()
        until = [
            trial.begin + trial.job.timeout_s - now
            for trial in self._trials.values()
            if trial.job.timeout_s is not None and trial.ended_as is None
        ]
        for key, _ in self._selector.select(max(0.0, min([timeout_s, *until]))):
            key.data.process.look()
        for number, trial in list(self._trials.items()):
            reports += self._intermediates(trial)
            if trial.ended_as is not None and trial.process.end is None:
                trial.process.look()  # which ends by force what does not heed its supervisor
            if trial.process.end is not None:
                del self._trials[number]
                self._selector.unregister(trial.process)
                if trial.gpu is not None:
                    self._free_gpus.append(trial.gpu)
                reports.append(self._ended(trial, trial.process.end))
            elif trial.ended_as is None and _is_late(trial.job, trial.begin):
                self._stop(trial, timed_out(trial.job))
            elif trial.ended_as is None and self._lingers(trial):
                self._stop(trial, "it did not end after its result")
        return reports

    def _stop(self, trial: _Trial, why: str) -> None:
        """Ends a trial; a result that it has written by now counts, whatever it does in the end."""
        trial.result = self._result_of(trial)
        trial.ended_as = why
        trial.process.stop()

    def _result_of(self, trial: _Trial) -> TrialResult | None:
        """Returns the result that a running trial has written, whole and valid, if it has."""
        try:
            return read_result(trial.folder / _FILES[1], trial.job.number, trial.job.attempt)
        except TrialFailed:
            return None

    def _lingers(self, trial: _Trial) -> bool:
        if trial.job.timeout_s is not None:  # its author has said how long to wait
            return False
        if trial.result_since is None:
            if self._result_of(trial) is not None:
                trial.result_since = time.monotonic()
            return False
        return time.monotonic() - trial.result_since >= self._settings.linger_s and self._result_of(trial) is not None

    def _intermediates(self, trial: _Trial) -> list[Report]:
        found: list[Report] = []
        for value in trial.reported.new(trial.process.end is not None):
            found.append(Intermediate(trial.job.number, trial.job.attempt, trial.sequence, value))
            trial.sequence += 1
        return found

    def _ended(self, trial: _Trial, end: End) -> Report:
        job = trial.job
        if trial.result is not None:
            return Finished(job.number, job.attempt, trial.result, time.monotonic() - trial.begin)
        if trial.ended_as is not None:
            return trial.report(trial.ended_as)
        if end.errno == errno.ENOEXEC:
            raise UsageError(
                "the system cannot run this file: it is neither a program nor a script that begins with #!",
                where=self._command[0],
                hint="begin `trial_command` with its interpreter, as in python train.py",
            )
        if end.error is not None:
            raise EnvironmentFailure(f"the trial command {end}", hint="give a program that this machine has")
        log = trial.folder / _FILES[3]
        try:
            # the file decides: an exit status says nothing of `cmd; true`, or of a crash after the result
            result = read_result(trial.folder / _FILES[1], job.number, job.attempt)
        except TrialFailed as failure:
            return trial.report(failure.message)
        if result is not None:
            return Finished(job.number, job.attempt, result, time.monotonic() - trial.begin)
        if end.exit is None:
            return trial.report(str(end), lost=True)
        if not end.exit:
            return trial.report(f"no result (exit 0): {self._silence}; its log is {_shown(log)}")
        said = last_line(log)
        return trial.report(f"no result (exit {end.exit})" + (f": {said}" if said else ""))

    @property
    def _silence(self) -> str:
        """Says of a program that ended well why it has no result."""
        said = "the program wrote no file NNAS_RESULT and did not call report_final"
        word = shell_word(self._command)
        return said if word is None else f"{said}; no shell ran it, which {word!r} needs: sh -c '...'"

    def left(self, job: Job, begun: datetime) -> list[Report]:
        """Returns the reports in the files of an attempt, if its result is whole, and was written after it began."""
        folder = log_file(self._settings.folder, job.number, job.attempt).parent
        parameters, result_file, intermediate, _ = (folder / name for name in _FILES)
        try:
            seconds = result_file.stat().st_mtime - begun.timestamp()
            if seconds < 0 or read_json(parameters) != job.architecture.parameters():
                return []  # of another study, of the same name
            result = read_result(result_file, job.number, job.attempt)
        except (OSError, InputError, EnvironmentFailure, TrialFailed):
            return []
        if result is None:
            return []
        values = enumerate(Reported(intermediate).new(True))
        reports: list[Report] = [Intermediate(job.number, job.attempt, place, value) for place, value in values]
        return [*reports, Finished(job.number, job.attempt, result, seconds)]

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Ends the processes of a trial."""
        trial = self._trials.get(number)
        if trial is not None and trial.job.attempt == attempt and trial.ended_as is None:
            self._stop(trial, reason)

    def close(self) -> None:
        """Ends all processes; returns when they are gone."""
        for trial in self._trials.values():
            trial.process.stop()
        for trial in self._trials.values():
            trial.process.wait(self._settings.grace_s + GRACE_S)
        self._trials.clear()
        self._selector.close()


def _is_late(job: Job, begin: float) -> bool:
    return job.timeout_s is not None and time.monotonic() - begin >= job.timeout_s


def timed_out(job: Job) -> str:
    """Says of a trial that it took too long."""
    return f"timed out after {job.timeout_s:g} s"


def log_file(folder: Path, number: int, attempt: int) -> Path:
    """Returns where the output of an attempt of a trial is kept, in the folder of all trials."""
    return folder / f"{number}-{attempt}" / _FILES[3]


def _shown(path: Path) -> str:
    """Returns a path as short as people read it: from the current folder, if it is below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def shell_word(command: Sequence[str]) -> str | None:
    """Returns the first word of a command that only a shell understands; None if there is none, or a shell is called.

    Args:
        command: its words, as ``split_command`` returns them.
    """
    if Path(command[0]).name in ("sh", "bash", "dash", "zsh", "ksh", "fish"):
        return None
    if command[0] in _BUILTINS or re.match(r"[A-Za-z_]\w*=", command[0]):
        return command[0]
    return next((word for word in command if _SHELL.search(word)), None)


def find_program(command: Sequence[str], folder: Path) -> None:
    """Makes sure that the program of a command can be started.

    Args:
        command: its words.
        folder: in which it will run.

    Raises:
        UsageError: there is no such program, or it cannot be executed.
    """
    program = command[0]
    place = str(folder / program) if os.sep in program else program
    if shutil.which(place) is not None:
        return
    word = shell_word(command)
    if word is not None:
        hint = f"no shell runs the command, which {word!r} needs; `trial_command` takes one as well: sh -c '...'"
    else:
        hint = "`trial_command` takes a program and its arguments: python train.py"
    raise UsageError("no such program, or one that cannot be executed", where=program, hint=hint)


def threads_for(concurrency: int) -> int:
    """Returns the share of the cores that each of so many trials has; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // concurrency)
