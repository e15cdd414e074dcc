"""Every trial is a fresh process of a command of the user's, with files in a folder of its own."""

from __future__ import annotations

import os
import selectors
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report, TrialFailed
from nnas_core.execution.process import GRACE_S, End, Supervised, environment, last_line
from nnas_core.execution.results import Reported, read_result
from nnas_core.files import environment_failure, prepare_folder, write_json

__all__ = ["MOST_SLOTS", "CommandEngine", "LocalSettings", "split_command", "threads_for", "timed_out"]

MOST_SLOTS = 1000

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
    """

    folder: Path
    threads: int = 1
    gpus: Sequence[str] = ()
    log_bytes: int = 10 * 2**20
    grace_s: float = GRACE_S

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

    def report(self, message: str, lost: bool = False) -> Failed:
        return Failed(self.job.number, self.job.attempt, message, time.monotonic() - self.begin, lost)


class CommandEngine(Engine):
    """Runs a command for each trial.

    The command's current folder is ours. It finds its parameters in the file ``NNAS_PARAMETERS`` and writes its result
    to ``NNAS_RESULT`` (see ``nnas_core.trial``). ``NNAS_TRIAL`` and ``NNAS_ATTEMPT`` are numbers, ``NNAS_TRIAL_DIR`` is
    a folder of its own, where also ``log.txt`` is: ``FOLDER/TRIAL-ATTEMPT``.

    Args:
        command: program and arguments.
        settings: where and how.
    """

    def __init__(self, command: Sequence[str], settings: LocalSettings) -> None:
        super().__init__()
        self._command = list(command)
        self._settings = settings
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
        folder = prepare_folder(self._settings.folder / f"{job.number}-{job.attempt}").resolve()
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
                self._command, log=log, log_bytes=self._settings.log_bytes, env=env, grace_s=self._settings.grace_s
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
            trial: _Trial = key.data
            trial.process.look()
            if trial.process.end is not None:
                self._selector.unregister(key.fd)
        for number, trial in list(self._trials.items()):
            reports += self._intermediates(trial)
            if trial.process.end is not None:
                del self._trials[number]
                if trial.gpu is not None:
                    self._free_gpus.append(trial.gpu)
                reports.append(self._ended(trial, trial.process.end))
            elif trial.ended_as is None and _is_late(trial.job, trial.begin):
                trial.ended_as = timed_out(trial.job)
                trial.process.stop()
        return reports

    def _intermediates(self, trial: _Trial) -> list[Report]:
        found: list[Report] = []
        for value in trial.reported.new(trial.process.end is not None):
            found.append(Intermediate(trial.job.number, trial.job.attempt, trial.sequence, value))
            trial.sequence += 1
        return found

    def _ended(self, trial: _Trial, end: End) -> Report:
        job = trial.job
        if trial.ended_as is not None:
            return trial.report(trial.ended_as)
        if end.error is not None:
            raise EnvironmentFailure(f"the trial command {end}", hint="give a program that this machine has")
        try:
            # the file decides: an exit status says nothing of `cmd; true`, or of a crash after the result
            result = read_result(trial.folder / "result.json", job.number, job.attempt)
        except TrialFailed as failure:
            return trial.report(failure.message)
        if result is not None:
            return Finished(job.number, job.attempt, result, time.monotonic() - trial.begin)
        if end.exit is None:
            return trial.report(str(end), lost=True)
        said = last_line(trial.folder / "log.txt") if end.exit else ""
        return trial.report(f"no result (exit {end.exit})" + (f": {said}" if said else ""))

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Ends the processes of a trial."""
        trial = self._trials.get(number)
        if trial is not None and trial.job.attempt == attempt and trial.ended_as is None:
            trial.ended_as = reason
            trial.process.stop()

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


def threads_for(concurrency: int) -> int:
    """Returns the share of the cores that each of so many trials has; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // concurrency)
