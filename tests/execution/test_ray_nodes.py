"""Ray clusters that cannot run a trial: too small from the start, dead by now, or without nnas; and actors that end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.protocol import Channel, Close, Gone, Message, Ready, SentJob, decode, encode, open_channel
from nnas_core.execution.ray.driver import _Driver, refuse_impossible
from nnas_core.execution.ray.settings import DriverSettings, NodeSettings
from nnas_core.execution.work import CommandTrials

SMALL = {"CPU": 1.0, "memory": 1e9}
LARGE = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize("was_possible", [False, True])
def test_one_node_that_is_large_enough_is_enough(was_possible: bool) -> None:
    refuse_impossible([SMALL, LARGE, {}], {"CPU": 8, "GPU": 1}, was_possible)


@pytest.mark.parametrize(
    ("alive", "was_possible", "message"),
    [
        ([SMALL], False, "a trial needs 8 CPUs and a GPU, and no node .* has that; the largest has 1 CPU, and 0 GPUs"),
        ([], False, "no node of the Ray cluster lives"),
        ([{}], False, "no node of the Ray cluster lives"),
        ([], True, "no node of the Ray cluster lives"),
        ([SMALL], True, "the Ray cluster has lost every node that can run a trial"),
    ],
)
def test_a_dead_node_is_not_one_that_is_too_small(
    alive: list[dict[str, float]], was_possible: bool, message: str
) -> None:
    with pytest.raises(EnvironmentFailure, match=f"^{message}$"):
        refuse_impossible(alive, {"CPU": 8, "GPU": 1}, was_possible)


class Actor:
    """Stands for one on a cluster: its first answer is given, and it ends when it is told to."""

    def __init__(self, first: Message | Exception | None) -> None:
        self.told: list[Message] = []
        self.first = first
        self._answers = iter([first])
        self.hear = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._hear))
        self.tell = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._tell))

    def _hear(self) -> SimpleNamespace:
        self._answer: Future[str] = Future()
        answer, first = self._answer, next(self._answers, None)
        if isinstance(first, Exception):
            answer.set_exception(first)
        elif first is not None:
            answer.set_result(json.dumps([encode(first)]))
        return SimpleNamespace(future=lambda: answer)

    def _tell(self, text: str) -> None:
        self.told.append(decode(json.loads(text)))
        if isinstance(self.told[-1], Close):
            self._answer.set_result(json.dumps([encode(Gone("it was told to"))]))


@pytest.fixture
def channel() -> Iterator[Channel]:
    ours, theirs = open_channel()
    yield ours
    ours.close()
    Channel(*theirs).close()


Drives = Callable[..., tuple[_Driver, list[Actor]]]


@pytest.fixture
def drives(channel: Channel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drives:
    """Makes a driver of actors that answer as given at first; returns those that it has killed, too."""

    def made(*first: Message | Exception | None) -> tuple[_Driver, list[Actor]]:
        actors, killed = map(Actor, first), list[Actor]()
        declared = SimpleNamespace(remote=lambda _: next(actors))
        ray = SimpleNamespace(remote=lambda **_: lambda _: declared, kill=killed.append)
        monkeypatch.setitem(sys.modules, "ray", ray)
        node = NodeSettings(CommandTrials(["true"]), {}, LocalSettings(tmp_path, grace_s=0.1), str(tmp_path), [])
        return _Driver(DriverSettings("auto", 1, 0, False, 1.0, None, node), channel), killed

    return made


def test_three_actors_in_a_row_that_cannot_begin_end_the_run(drives: Drives) -> None:
    broken = ImportError("no module named nnas_core")
    driver, killed = drives(broken, broken, Ready("a node"), broken, broken, broken)

    def turn() -> None:
        driver._dispatch()
        driver._take_answers()

    driver._asked(SentJob(0, 0, "{}"))
    for _ in range(3):
        turn()
    assert len(killed) == 2
    driver._asked(SentJob(1, 0, "{}"))  # the other one has an actor, and the row begins anew
    for _ in range(2):
        turn()
    with pytest.raises(EnvironmentFailure, match=r"^no actor begins on the Ray cluster: .*no module named nnas_core"):
        turn()
    assert len(killed) == 5


def test_actors_that_run_end_in_order_and_the_others_are_killed(drives: Drives) -> None:
    driver, killed = drives(Ready("a node"), None)
    for number in range(2):
        driver._asked(SentJob(number, 0, "{}"))
    driver._dispatch()
    driver._take_answers()
    driver._end_all()
    assert [(actor.first, actor.told) for actor in killed] == [(Ready("a node"), [Close()]), (None, [])]
