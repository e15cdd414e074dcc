"""Workers that load once and evaluate many architectures, one after the other, each worker in a process of its own."""

from __future__ import annotations

import contextlib
import selectors
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnas_core.errors import EnvironmentFailure, UserCodeError
from nnas_core.execution.commands import LocalSettings, timed_out
from nnas_core.execution.engine import Engine, Failed, Finished, Intermediate, Job, Report
from nnas_core.execution.process import GRACE_S, Supervised, environment, last_line, served_by
from nnas_core.execution.protocol import Cancel, Channel, Message, Prepare, Ready, SentJob, Unable, open_channel
from nnas_core.files import environment_failure, prepare_folder

__all__ = ["WorkerPool"]

_CANCEL_S = 10.0
"""How long a cancelled evaluation may take to its next step, before its worker is ended."""


@dataclass
class _WorkerProcess:
    process: Supervised
    channel: Channel
    gpu: str | None
    log: Path
    job: Job | None = None
    able: bool = True  # to take another job: it is not being ended
    ready: bool = False
    begin: float = 0.0
    ended_as: str | None = None  # why its job is being ended, if it is
    deadline: float | None = None  # when the worker is ended too
    found: list[Report] = field(default_factory=list)

    def failed(self, message: str, lost: bool = False) -> None:
        """Reports the job as failed."""
        if self.job is not None:
            seconds = max(0.0, time.monotonic() - self.begin) if self.begin else 0.0
            self.end(Failed(self.job.number, self.job.attempt, message, seconds, lost))

    def stop(self) -> None:
        """Ends the worker."""
        self.able = False
        self.process.stop()

    def reported(self, report: Report) -> None:
        """Hands on a report, unless it is of a job that was given up.

        Raises:
            EnvironmentFailure: it is of an error that is not the user's.
        """
        job = self.job
        if job is None or (report.number, report.attempt) != (job.number, job.attempt):
            return
        if isinstance(report, Intermediate):
            self.found.append(report)
        elif isinstance(report, Failed) and self.ended_as is not None:
            self.failed(self.ended_as)
        elif isinstance(report, Failed) and report.error is not None and not isinstance(report.error, UserCodeError):
            raise report.error
        else:
            self.end(report)

    def end(self, report: Report) -> None:
        """Reports the end of the job; the worker is free."""
        self.found.append(report)
        self.job, self.ended_as, self.deadline, self.begin = None, None, None, 0.0


class WorkerPool(Engine):
    """Evaluates in worker processes, which are started when they are needed and used again and again.

    Args:
        module: its ``main(jobs, reports)`` calls ``nnas_core.execution.worker.serve`` in the worker.
        setting: what the worker is prepared with; plain JSON.
        settings: where and how.
    """

    def __init__(self, module: str, setting: Mapping[str, object], settings: LocalSettings) -> None:
        super().__init__()
        self._module = module
        self._setting = dict(setting)
        self._settings = settings
        self.log_folder = str(settings.folder.absolute())
        self._workers: list[_WorkerProcess] = []
        self._free_gpus = list(settings.gpus)[::-1]
        self._started = 0
        self._selector = selectors.DefaultSelector()
        self._found: list[Report] = []

    @property
    def slots(self) -> int:
        """Holds one for each GPU, else as many as anybody may want."""
        return self._settings.slots

    def submit(self, job: Job) -> None:
        """Gives the job to a free worker, or to a new one.

        Raises:
            EnvironmentFailure: no process can be started.
        """
        free = [worker for worker in self._workers if worker.job is None and worker.able]
        worker = min(free, key=lambda one: not one.ready) if free else self._start()
        worker.job = job
        if worker.ready:
            self._give(worker, job)

    def _give(self, worker: _WorkerProcess, job: Job) -> None:
        worker.begin = time.monotonic()
        if job.timeout_s is not None:
            worker.deadline = worker.begin + job.timeout_s
        worker.channel.try_to_send(SentJob.of(job))

    def _start(self) -> _WorkerProcess:
        folder = prepare_folder(self._settings.folder)
        log = folder / f"worker-{self._started}.log"
        gpu = self._take_gpu()
        channel, theirs = open_channel()
        try:
            process = Supervised(
                served_by(self._module, *theirs),
                log=log,
                log_bytes=self._settings.log_bytes,
                env=environment(self._settings.threads, gpu),
                fds=theirs,
                grace_s=self._settings.grace_s,
            )
        except OSError as error:
            channel.close()
            raise environment_failure(error, sys.executable, "start") from error
        self._started += 1
        worker = _WorkerProcess(process, channel, gpu, log)
        self._workers.append(worker)
        self._selector.register(channel.incoming, selectors.EVENT_READ, worker)
        self._selector.register(process, selectors.EVENT_READ, worker)
        channel.try_to_send(Prepare(self._setting))
        return worker

    def _take_gpu(self) -> str | None:
        """Returns one for a new worker; the last one may still be that of a worker that is ending."""
        for worker in [one for one in self._workers if not one.able]:
            if self._settings.gpus and not self._free_gpus:
                worker.process.wait(self._settings.grace_s + GRACE_S)
                self._look(worker)
        return self._free_gpus.pop() if self._free_gpus else None

    def poll(self, timeout_s: float) -> list[Report]:
        """Looks for answers, dead workers and time-outs.

        Raises:
            UserCodeError: a worker cannot load what it shall evaluate.
            EnvironmentFailure: a worker cannot work on this machine.
        """
        now = time.monotonic()
        deadlines = [worker.deadline - now for worker in self._workers if worker.deadline is not None]
        wait = 0.0 if self._found else max(0.0, min([timeout_s, *deadlines]))
        for worker in {id(key.data): key.data for key, _ in self._selector.select(wait)}.values():
            self._look(worker)
        for worker in [one for one in self._workers if not one.able]:
            self._look(worker)  # which ends by force what does not heed its supervisor
        for worker in self._workers:
            if worker.deadline is not None and worker.job is not None and time.monotonic() >= worker.deadline:
                worker.ended_as = worker.ended_as or timed_out(worker.job)
                worker.deadline = None
                worker.stop()
        found, self._found = self._found, []
        return found

    def _look(self, worker: _WorkerProcess) -> None:
        worker.process.look()
        for message in worker.channel.incoming.receive():
            self._heard(worker, message)
        end = worker.process.end
        if end is not None:
            if end.error is not None:
                raise EnvironmentFailure(f"a worker {end}")
            why = worker.ended_as or str(end)
            if end.exit is not None and worker.ended_as is None:
                said = last_line(worker.log)
                why = f"worker {end}" + (f": {said}" if said else "")
            worker.failed(why, lost=worker.ended_as is None)
            self._forget(worker)
        elif worker.channel.incoming.closed:
            with contextlib.suppress(KeyError, ValueError):  # its end is near, or it closed what it needs
                self._selector.unregister(worker.channel.incoming)
            worker.stop()
        if worker.able or end is not None:  # until then it has its GPU, which the next job may need
            self._found += worker.found
            worker.found.clear()

    def _forget(self, worker: _WorkerProcess) -> None:
        self._workers.remove(worker)
        for key in [key for key in self._selector.get_map().values() if key.data is worker]:
            self._selector.unregister(key.fd)
        worker.channel.close()
        if worker.gpu is not None:
            self._free_gpus.append(worker.gpu)

    def _heard(self, worker: _WorkerProcess, message: Message) -> None:
        if isinstance(message, Unable):
            raise message.error
        if isinstance(message, Ready):
            worker.ready = True
            if worker.job is not None:
                self._give(worker, worker.job)
        elif isinstance(message, (Intermediate, Finished, Failed)):
            worker.reported(message)

    def cancel(self, number: int, attempt: int, reason: str) -> None:
        """Asks the worker to end the job at its next step; it is ended itself if that does not come soon."""
        for worker in self._workers:
            job = worker.job
            if job is None or (job.number, job.attempt) != (number, attempt) or worker.ended_as is not None:
                continue
            if not worker.begin:
                worker.failed(reason)
                self._found += worker.found
                worker.found.clear()
                return
            worker.ended_as = reason
            worker.deadline = min(worker.deadline or float("inf"), time.monotonic() + _CANCEL_S)
            worker.channel.try_to_send(Cancel(number, attempt, reason))

    def close(self) -> None:
        """Ends all workers; returns when they are gone."""
        for worker in self._workers:
            worker.process.stop()
        for worker in self._workers[:]:
            worker.process.wait(self._settings.grace_s + GRACE_S)
            self._forget(worker)
        self._selector.close()
