"""What one process says, another one hears: every message, to the bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnas_core.errors import EnvironmentFailure, InputError, NnasError, UserCodeError
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Failed, Finished, Intermediate, Job, TrialResult
from nnas_core.execution.protocol import (
    Cancel,
    Close,
    Gone,
    Message,
    Prepare,
    Ready,
    SentJob,
    Unable,
    begin_to_serve,
    decode,
    encode,
    open_channel,
)
from nnas_core.execution.ray.settings import DriverSettings, NodeSettings
from nnas_core.execution.work import CommandTrials, TrialKind, WorkerTrials
from tests.study.study_programs import space_of_all_kinds

MESSAGES: list[Message] = [
    Prepare({"any": ["JSON", None, 0.1]}),
    SentJob(3, 2, '{"a":[0]}', 0.1 + 0.2),
    SentJob(3, 2, '{"a":[0]}'),
    Cancel(3, 2, "stopped by the assessor"),
    Close(),
    Ready(),
    Ready("node 7"),
    Gone("its engine ended (1)"),
    Intermediate(3, 2, 5, 1e-300),
    Finished(3, 2, TrialResult(1 / 3, {"ü": 0.1}, {"seconds": 2.0}), 0.1),
    Failed(3, 2, "killed", 1.5, lost=True),
]


def crossed(message: Message) -> Message:
    """A message as another process reads it."""
    return decode(json.loads(json.dumps(encode(message))))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    assert crossed(message) == message


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (
            UserCodeError("no", where="model.py:3", hint="mend it", problems=["a"]).with_traceback_of_user("..."),
            UserCodeError,
        ),
        (EnvironmentFailure("no", where="here", hint="buy some", problems=["a"]), EnvironmentFailure),
        (InputError("no"), EnvironmentFailure),
    ],
)
def test_errors_of_the_users_code_stay_theirs_and_others_are_the_machines(
    error: NnasError, heard: type[NnasError]
) -> None:
    for message in (Unable(error), Failed(1, 1, "no", 0.5, error=error)):
        found = crossed(message)
        assert isinstance(found, type(message))
        assert type(found.error) is heard
        assert vars(found.error) == vars(error)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "joke"},
        {"kind": ["job"]},
        {"kind": "job", "number": 1},
        {"kind": "ready", "more": 1},
        {"kind": "unable", "error": "text"},
        {"kind": "finished", "number": 1, "attempt": 1, "seconds": 1, "result": [1]},
    ],
)
def test_what_is_no_message_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no message"):
        decode(document)


def test_a_job_is_that_of_its_space() -> None:
    space = space_of_all_kinds()
    job = Job(4, 1, space.sample(np.random.default_rng(0)), 2.5)
    assert SentJob.of(job).job(space.choices) == job


def test_a_channel_ends_with_its_other_side() -> None:
    ours, theirs = open_channel()
    ours.send(Prepare({"a": 1}))
    ours.send(Close())
    other, first, rest = begin_to_serve(*theirs)
    assert (first, rest) == (Prepare({"a": 1}), [Close()])
    ours.hang_up()
    other.incoming.wait(10)
    assert other.incoming.receive() == []
    assert other.incoming.closed
    other.send(Ready())
    other.close()
    ours.incoming.wait(10)
    assert ours.incoming.receive() == [Ready()]
    ours.try_to_send(Close())  # to nobody
    ours.close()


@pytest.mark.parametrize("first", [[Ready()], []])
def test_a_process_serves_nobody_who_does_not_say_what_for(first: list[Message]) -> None:
    ours, theirs = open_channel()
    for message in first:
        ours.send(message)
    ours.hang_up()
    other, setting, _ = begin_to_serve(*theirs)
    assert setting is None
    other.close()
    ours.close()


def test_what_is_said_to_a_process_that_is_gone_is_an_error_or_nothing() -> None:
    ours, theirs = open_channel()
    for descriptor in theirs:
        os.close(descriptor)
    with pytest.raises(BrokenPipeError):
        ours.send(Close())
    ours.try_to_send(Close())
    ours.close()


@pytest.mark.parametrize("kind", [CommandTrials(["python", "x"]), WorkerTrials("a.b", {"c": [1]})])
def test_the_settings_of_a_cluster_cross_too(kind: TrialKind) -> None:
    local = LocalSettings(Path("logs"), threads=2, log_bytes=7, grace_s=0.5)
    node = NodeSettings(kind, space_of_all_kinds().to_json(), local, "/here", ["/there"])
    driver = DriverSettings("auto", 1, 2, True, 3.5, None, node)
    assert DriverSettings.from_json(json.loads(json.dumps(driver.to_json()))) == driver
    assert node.choices == space_of_all_kinds().choices
    own = node.of_actor(3).local.folder
    assert own == (Path("logs") if isinstance(kind, CommandTrials) else Path("logs/ray-3"))
