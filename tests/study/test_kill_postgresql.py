"""What is left in PostgreSQL when the coordinator dies at the worst moment."""

from __future__ import annotations

import collections
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import make_url

from nnas_core.study.coordinator import run_study
from nnas_core.study.postgresql import open_database
from nnas_core.study.store import StudyStore
from tests.study import child
from tests.study.conftest import Spawn
from tests.study.postgres import Server
from tests.study.test_kill import done

pytestmark = [pytest.mark.postgresql, pytest.mark.kill, pytest.mark.slow]

KILLS = 20
TRIALS = 300


def test_a_study_killed_20_times_is_the_study_that_was_never_killed(
    postgres_url: str, postgres_server: Server, schema: str, tmp_path: Path, spawn: Spawn
) -> None:
    log = tmp_path / "log"
    rng = np.random.default_rng()  # other moments in every run
    cut_short = 0
    for _ in range(KILLS):
        before = len(done(log))
        process = spawn("run", postgres_url, log, TRIALS)
        begin = time.monotonic()
        # half of them die while they start, take over and replay, half of them between and in trials
        begun = rng.random() < 0.5
        while begun and len(done(log)) == before and process.poll() is None:
            assert time.monotonic() < begin + 30, "the study does not go on"
            time.sleep(0.002)
        late = time.monotonic() + rng.uniform(0, 0.1 if begun else 0.8)
        while time.monotonic() < late:
            time.sleep(0.001)
        process.kill()
        cut_short += process.wait() == -signal.SIGKILL
    assert cut_short >= KILLS - 4  # or the campaign was too small to hit anything
    final = spawn("run", postgres_url, log, TRIALS)
    _, stderr = final.communicate(timeout=60)
    assert (final.returncode, stderr) == (0, "")

    with StudyStore.open(postgres_url) as store:
        trials = store.trials(store.study("study"))
        killed = child.history(store)
        assert store.owner(store.study("study")) is None
    stored = [f"{t.number} {t.architecture.canonical} {t.value}" for t in trials]
    reported = done(log)
    assert set(reported) <= set(stored)  # nothing that was reported is lost
    assert not [line for line, count in collections.Counter(reported).items() if count > 1]
    assert {trial.state for trial in trials} == {"succeeded", "failed"}  # nothing is stuck
    finished = set()
    for line in log.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "done":
            finished.add(rest.split()[1])
        else:
            assert rest not in finished, "an architecture was evaluated again after its trial was reported"
    with closing(postgres_server.connect(admin=True, database="tests")) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        checked = connection.execute(
            "SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE c.relnamespace = %s::regnamespace",
            [schema],
        ).fetchone()
    assert checked is not None
    assert checked[0] >= 7  # as many indexes as there are keys, each found whole

    with StudyStore.open(f"sqlite:///{tmp_path}/quiet.db") as store:
        study = store.create_study(child.settings())
        run_study(store, study, child.tuner_of(study), child.evaluate, trials=TRIALS)
        assert killed == child.history(store)


def test_the_lock_of_a_writer_killed_in_mid_write_is_free_and_its_write_is_not_there(
    postgres_url: str, spawn: Spawn
) -> None:
    with StudyStore.open(postgres_url, busy_timeout_s=10) as store:
        study = store.create_study(child.settings())
        process = spawn("stay_in_write", postgres_url)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        database = open_database(make_url(postgres_url), create=False, busy_timeout_s=0)
        with pytest.raises(Exception, match=f"locked for 0 s by process {process.pid} on "), database.write():
            pass
        database.close()
        process.kill()
        process.wait()
        with store.acquire(study) as owned:  # waits no longer than the server needs to see it
            owned.start(study.settings.space.at(0))
        assert store.study("study").settings == study.settings
        assert [one.name for one in store.studies()] == ["study"]
