"""A worker of ``WorkerPool`` for tests; what an evaluation does, the first decision of its architecture says.

The setting has ``folder``, for files that tests look at or write, ``do``, a list of names of functions below, and
perhaps ``prepare``, one that is called first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnas_core.errors import EnvironmentFailure, UserCodeError
from nnas_core.execution.engine import TrialFailed, TrialResult
from nnas_core.execution.worker import EvaluateInSteps, serve

Poll = Callable[[], None]
Report = Callable[[float], None]

REPORTS = 0


class Deeds:
    """What evaluations do; each returns a value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, name: str) -> None:
        """Write our number to a file."""
        (self.folder / f"{name}.part").write_text(f"{os.getpid()}\n")
        (self.folder / f"{name}.part").rename(self.folder / name)

    def wait_for(self, name: str, poll: Poll) -> None:
        """Wait for a file."""
        while not (self.folder / name).exists():
            poll()
            time.sleep(0.005)

    def fine(self, poll: Poll, report: Report) -> float:
        """Nothing."""
        return 1.0

    def nan(self, poll: Poll, report: Report) -> float:
        """No result."""
        return float("nan")

    def values(self, poll: Poll, report: Report) -> float:
        """Some intermediate ones."""
        for value in (0.1, float("nan"), 0.1 + 0.2, float("inf"), 1e-300):
            report(value)
        return 1 / 3

    def fails(self, poll: Poll, report: Report) -> float:
        """As a trial may."""
        raise TrialFailed("it does not work")

    def breaks(self, poll: Poll, report: Report) -> float:
        """As a user's code may."""
        raise UserCodeError("no such layer", where="model.py:3", hint="mend it", problems=["one"])

    def impossible(self, poll: Poll, report: Report) -> float:
        """As the machine may."""
        raise EnvironmentFailure("no memory", where="here", hint="buy some")

    def leaves(self, poll: Poll, report: Report) -> float:
        """End the process."""
        print("last words\n", flush=True)
        sys.exit(3)

    def raises(self, poll: Poll, report: Report) -> float:
        """A bug of ours."""
        raise LookupError("a bug")

    def babbles(self, poll: Poll, report: Report) -> float:
        """Say what is no message."""
        os.write(REPORTS, b"nonsense\n")
        signal.pause()
        return 1.0

    def dies(self, poll: Poll, report: Report) -> float:
        """Once; another attempt succeeds."""
        if not (self.folder / "died").exists():
            self.say("died")
            os.kill(os.getpid(), signal.SIGKILL)
        return 2.0

    def meets_1(self, poll: Poll, report: Report) -> float:
        """Wait for the other one."""
        self.say("first")
        self.wait_for("second", poll)
        return 1.0

    def meets_2(self, poll: Poll, report: Report) -> float:
        """Wait for the other one."""
        self.say("second")
        self.wait_for("first", poll)
        return 2.0

    def waits(self, poll: Poll, report: Report) -> float:
        """Report once, wait to be told to go on, or that nobody wants it any more."""
        self.say("waits")
        report(0.5)
        self.wait_for("go", poll)
        return 3.0

    def hangs(self, poll: Poll, report: Report) -> float:
        """Wait for ever and hear nothing."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.say("hangs")
        while True:
            signal.pause()

    def stops_all(self, poll: Poll, report: Report) -> float:
        """Stop those who watch us, again and again."""
        self.say("stops_all")
        while True:
            os.killpg(os.getpgid(os.getppid()), signal.SIGSTOP)

    def late(self, poll: Poll, report: Report) -> float:
        """Have a result just when the process is told to end, which it then does not."""
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        self.say("late")
        while not told:
            time.sleep(0.005)
        return 4.0


def main(jobs: int, reports: int) -> None:
    """Work until nobody listens."""
    global REPORTS  # the module is this worker
    REPORTS = reports
    serve(jobs, reports, prepare)


def prepare(setting: dict[str, Any]) -> EvaluateInSteps:
    """As the setting says."""
    folder = Path(setting["folder"])
    deeds = Deeds(folder)
    {
        None: lambda: None,
        "user's fault": lambda: deeds.breaks(lambda: None, lambda value: None),
        "no memory": lambda: deeds.impossible(lambda: None, lambda value: None),
        "leaves": lambda: deeds.leaves(lambda: None, lambda value: None),
        "waits": lambda: deeds.wait_for("prepared", lambda: None),
    }[setting.get("prepare")]()

    def evaluation(canonical: str, poll: Poll, report: Report) -> TrialResult:
        deed = setting["do"][canonical]
        value = getattr(deeds, deed)(poll, report)
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return TrialResult(value, {"gpu": int(gpu) if gpu else -1, "bad": float("nan")}, {"pid": os.getpid()})

    return evaluation
