"""Messages over a pipe: whole ones only, however they come, and nothing after what is none."""

from __future__ import annotations

import json
import math
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nnas_core.execution import pipes
from nnas_core.execution.pipes import LONGEST_MESSAGE, Receiver
from nnas_core.execution.pipes import send_object as send


class Pipe:
    """Both ends."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.receiver: Receiver[dict[str, Any]] = Receiver(self.read_end, dict)

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close_write_end()
    os.close(made.read_end)


def test_what_is_sent_is_received_in_order(pipe: Pipe) -> None:
    sent = [{"number": number, "text": 'a\n"ü\ud800'} for number in range(5)]
    for message in sent:
        send(pipe.write_end, message)
    assert pipe.receiver.receive() == sent
    assert pipe.receiver.receive() == []
    assert not pipe.receiver.closed


@pytest.mark.parametrize("seed", range(5))
def test_a_message_may_come_in_any_pieces(pipe: Pipe, seed: int) -> None:
    rng = random.Random(seed)
    sent = [{"n": number, "text": "\u00fc\n" * rng.randrange(40)} for number in range(50)]
    data = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in sent)
    received = []
    while data:
        size = rng.randrange(1, 200)
        os.write(pipe.write_end, data[:size])
        data = data[size:]
        received += pipe.receiver.receive()
    assert received == sent
    assert not pipe.receiver.closed


def test_the_end_of_the_other_side_drops_half_a_message(pipe: Pipe) -> None:
    os.write(pipe.write_end, b'{"a": 1}\n{"a": ')
    assert pipe.receiver.receive() == [{"a": 1}]
    assert not pipe.receiver.closed
    os.write(pipe.write_end, b"2")
    pipe.close_write_end()
    assert pipe.receiver.receive() == []
    assert pipe.receiver.closed


def test_a_message_longer_than_a_pipe_comes_through(pipe: Pipe) -> None:
    sent = {"text": "x" * 3_000_000}
    thread = threading.Thread(target=send, args=(pipe.write_end, sent))
    thread.start()
    received = []
    while not received:
        assert pipe.receiver.wait(60)
        received = pipe.receiver.receive()
    thread.join()
    assert received == [sent]


@pytest.mark.parametrize(
    "line", [b"nonsense", b"", b"[1]", b"null", b"1", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, b'{"a": 1}{"a": 2}']
)
def test_what_is_no_object_ends_the_conversation_for_good(pipe: Pipe, line: bytes) -> None:
    thread = threading.Thread(target=os.write, args=(pipe.write_end, b'{"a": 1}\n' + line + b'\n{"a": 3}\n'))
    thread.start()
    received = []
    while not pipe.receiver.closed:
        assert pipe.receiver.wait(60)
        received += pipe.receiver.receive()
    os.set_blocking(pipe.read_end, True)
    thread.join()
    assert received == [{"a": 1}]
    send(pipe.write_end, {"a": 4})
    assert pipe.receiver.receive() == []


def test_what_never_ends_does_not_fill_the_memory(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "LONGEST_MESSAGE", 1000)
    os.write(pipe.write_end, b"x" * 1000)
    assert pipe.receiver.receive() == []
    assert not pipe.receiver.closed
    os.write(pipe.write_end, b"x")
    assert pipe.receiver.receive() == []
    assert pipe.receiver.closed
    assert LONGEST_MESSAGE == 2**24


def test_waiting_ends_with_a_message_or_the_other_side_or_the_time(pipe: Pipe) -> None:
    assert not pipe.receiver.wait(0)
    assert not pipe.receiver.wait(-1)
    send(pipe.write_end, {})
    assert pipe.receiver.wait(None)
    assert pipe.receiver.receive() == [{}]
    pipe.close_write_end()
    assert pipe.receiver.wait(None)


def test_nobody_can_be_told_what_json_does_not_know_nor_when_nobody_listens(pipe: Pipe) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        send(pipe.write_end, {"value": math.nan})
    assert pipe.receiver.receive() == []
    read_end, write_end = os.pipe()
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        send(write_end, {})
    os.close(write_end)
