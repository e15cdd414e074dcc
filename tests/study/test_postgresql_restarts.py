"""A PostgreSQL server that goes away and comes back: what is stored is stored once, and nobody has to start again.

Between the store and the server stands a relay, which can be cut: the server of the test run is others' too.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url

from nnas_core.errors import EnvironmentFailure, Interrupted
from nnas_core.execution.engine import TrialResult
from nnas_core.space.architecture import Architecture
from nnas_core.study.coordinator import run_study
from nnas_core.study.storage import database as database_module
from nnas_core.study.storage.database import ConnectionLost
from nnas_core.study.storage.records import StudyRecord
from nnas_core.study.storage.store import StudyStore
from tests.study import study_programs
from tests.study.postgres_server import Server


class Relay:
    """Hands on what goes to and from a server, until it is cut.

    Attributes:
        port: of ours, on 127.0.0.1; the same after it was cut.
        lose: the connection ends after a client has sent this, and before the answer.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._open: list[socket.socket] = []
        self.lose: bytes | None = None
        self.port = 0
        self.mend()

    def mend(self) -> None:
        """Takes connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections, and refuses others."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        while self._open:
            self._end(self._open.pop())

    @staticmethod
    def _end(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if from_client and self.lose is not None and self.lose in data:
                    self.lose = None
                    self._end(source)  # the server hears it, and nobody its answer
                    target.sendall(data)
                    time.sleep(0.05)
                    break
                target.sendall(data)
        for one in (source, target):
            self._end(one)


@pytest.fixture
def relay(postgres_server: Server) -> Iterator[Relay]:
    made = Relay(postgres_server.port)
    yield made
    made.cut()


@pytest.fixture
def store(relay: Relay, postgres_url: str) -> Iterator[StudyStore]:
    url = make_url(postgres_url).set(port=relay.port).render_as_string(hide_password=False)
    with StudyStore.open(url) as opened:
        yield opened


@pytest.fixture
def study(store: StudyStore) -> StudyRecord:
    return store.create_study(study_programs.settings())


def run(store: StudyStore, study: StudyRecord, relay: Relay, happens: dict[int, object], **more: object) -> list[float]:
    """Runs 6 trials; before the end of some, what happens to them."""
    measured: list[str] = []

    def evaluate(architecture: Architecture) -> TrialResult:
        measured.append(architecture.canonical)
        what = happens.get(len(measured))
        if callable(what):
            what()
        return TrialResult(float(len(measured)))

    run_study(store, study, study_programs.tuner_of(study), evaluate, study_programs.run_settings(trials=6, **more))
    trials = store.trials(study)
    assert [trial.architecture.canonical for trial in trials] == measured
    assert [trial.attempt for trial in trials] == [1] * 6
    return [trial.value or 0.0 for trial in trials]


def test_a_server_that_is_restarted_between_two_transactions_costs_nothing(
    store: StudyStore, study: StudyRecord, relay: Relay
) -> None:
    def restart() -> None:
        relay.cut()
        threading.Timer(0.3, relay.mend).start()

    assert run(store, study, relay, {2: restart, 5: restart}) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("word", [b"COMMIT", b"UPDATE trials", b"INSERT INTO trials", b"pg_advisory_xact_lock"])
def test_an_answer_that_is_lost_makes_nothing_count_twice(
    store: StudyStore, study: StudyRecord, relay: Relay, word: bytes
) -> None:
    def lose() -> None:
        relay.lose = word

    assert run(store, study, relay, {2: lose, 4: lose}) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert relay.lose is None


def test_a_server_that_stays_away_ends_the_run(
    store: StudyStore, study: StudyRecord, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store._database, "patience_s", 0.3)  # of a minute
    with pytest.raises(EnvironmentFailure, match="cannot connect: ") as caught:
        run(store, study, relay, {2: relay.cut})
    assert caught.value.exit_code == 6
    relay.mend()
    monkeypatch.undo()
    assert store.trial(study, 0).state == "succeeded"


def test_a_signal_is_heeded_while_the_server_is_away(store: StudyStore, study: StudyRecord, relay: Relay) -> None:
    numbers: list[int] = []

    def away() -> None:
        relay.cut()
        numbers.append(15)

    begin = time.monotonic()
    with pytest.raises(Interrupted):
        run(store, study, relay, {2: away}, should_stop=lambda: numbers[0] if numbers else None)
    assert time.monotonic() - begin < database_module.PATIENCE_S / 2
    relay.mend()


@pytest.mark.parametrize("stops", [False, True])
def test_a_connection_that_is_lost_in_every_transaction_is_not_tried_all_the_time(
    url: str, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def work() -> None:
        asked.append(time.monotonic())
        raise ConnectionLost("lost")

    def stop() -> None:
        raise Interrupted(15, "stopped")

    with StudyStore.open(url) as store:
        monkeypatch.setattr(store._database, "patience_s", 0.3)
        if stops:
            monkeypatch.setattr(store._database, "waiting", stop)
        with pytest.raises(Interrupted if stops else ConnectionLost):
            store._database.repeated(work)
    assert len(asked) == 1 if stops else 2 <= len(asked) <= 8


def test_a_server_that_never_was_there_is_not_waited_for(relay: Relay, postgres_url: str) -> None:
    url = make_url(postgres_url).set(port=relay.port).render_as_string(hide_password=False)
    relay.cut()
    begin = time.monotonic()
    with pytest.raises(EnvironmentFailure, match="cannot connect: "):
        StudyStore.open(url)
    assert time.monotonic() - begin < database_module.PATIENCE_S / 2
    relay.mend()
