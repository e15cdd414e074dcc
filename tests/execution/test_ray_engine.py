"""Trials on a Ray cluster of two nodes: the same results as here, and what happens to them when parts of it die."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.execution.commands import CommandEngine, LocalSettings
from nnas_core.execution.engine import Failed, Finished, Intermediate, Job, Report
from nnas_core.execution.pool import WorkerPool
from nnas_core.execution.ray import engine as ray_engine
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.execution.work import CommandTrials, WorkerTrials
from nnas_core.files import prepare_folder
from nnas_core.space.search_space import SearchSpace
from tests.cli_support import Cli, trials_of
from tests.execution.conftest import RayCluster
from tests.execution.process_checks import lives, until_gone
from tests.execution.ray_engine_trials import SPACE, Trials, command
from tests.study.program_fork_server import until
from tests.study.trial_objective import evaluate, space_of_all_kinds

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.xdist_group("ray")]


@pytest.fixture
def trials(ray_cluster: RayCluster, tmp_path: Path) -> Iterator[Trials]:
    """Commands on the cluster."""
    cluster = RaySettings(ray_cluster.address)
    engine = RayEngine(CommandTrials(command(tmp_path)), SPACE, LocalSettings(tmp_path / "logs"), cluster)
    with contextlib.closing(engine):
        yield Trials(engine, tmp_path)


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()[1])


def actor_of(pid: int) -> int:
    """The worker of Ray above a trial."""
    while b"ray::" not in Path("/proc", str(pid), "cmdline").read_bytes():
        pid = parent(pid)
    return pid


def without_seconds(found: list[Report]) -> list[Report]:
    """Reports without what depends on the clock."""
    return [report if isinstance(report, Intermediate) else replace(report, seconds=0.0) for report in found]


def test_a_command_gives_the_values_that_it_gives_without_ray(trials: Trials, tmp_path: Path) -> None:
    for _ in range(4):
        trials.submit()
    found = trials.reports(4)
    with contextlib.closing(CommandEngine(command(tmp_path), LocalSettings(tmp_path / "local"))) as engine:
        local = Trials(engine, tmp_path)
        for _ in range(4):
            local.submit()
        assert without_seconds(local.reports(4)) == without_seconds(found)
    on_the_way = [report.value for report in found if isinstance(report, Intermediate)]
    assert on_the_way == [value for number in range(4) for value in (0.1 + number, 0.30000000000000004)]
    assert (tmp_path / "logs" / "3-1" / "log.txt").exists()


def test_warm_workers_give_the_values_that_they_give_without_ray(ray_cluster: RayCluster, tmp_path: Path) -> None:
    space = space_of_all_kinds()
    setting = {"log": str(tmp_path / "log")}
    settings = LocalSettings(tmp_path / "logs")
    work = WorkerTrials("tests.study.pool_worker", setting)
    ends = []
    for engine in (
        RayEngine(work, space, settings, RaySettings(ray_cluster.address)),
        WorkerPool("tests.study.pool_worker", setting, settings),
    ):
        with contextlib.closing(engine):
            for number in range(12):
                engine.submit(Job(number, 1, space.at(number * 40)))
            ends.append(Trials(engine, tmp_path).reports(12))
    on_ray, local = ends
    assert without_seconds(on_ray) == without_seconds(local)
    results = {report.number: report.result for report in on_ray if isinstance(report, Finished)}
    failures = {report.number: report.message for report in on_ray if isinstance(report, Failed)}
    assert 0 < len(failures) < 12
    assert all(result == evaluate(space.at(number * 40)) for number, result in results.items())
    assert all(message.endswith("does not work") for message in failures.values())


@pytest.mark.slow
def test_inherited_weights_have_the_values_that_they_have_without_ray(
    nnas: Cli, small_run: Path, ray_cluster: RayCluster
) -> None:
    options = ("tune", "model.py", "--checkpoint", "run/checkpoint.pt", "--tuner", "random", "--trials", 4)
    on_ray = ("--engine", "ray", "--ray-address", ray_cluster.address, "--trial-threads", 1)
    here, there = nnas.ok(*options, "--study", "here"), nnas.ok(*options, "--study", "there", *on_ray)
    assert there.out == here.out
    assert len(trials_of("there")) == 4
    assert trials_of("there") == trials_of("here")


def test_a_killed_worker_of_ray_loses_its_trial_and_nothing_of_it_runs_on(trials: Trials) -> None:
    number = trials.submit(hold=True)
    process = trials.process(number)
    os.kill(actor_of(process), signal.SIGKILL)
    (failed,) = (report for report in trials.reports(1) if isinstance(report, Failed))
    assert (failed.number, failed.lost) == (number, True)
    assert failed.message.startswith("Ray lost its worker on ")
    until_gone(process)
    trials.submit()
    assert isinstance(trials.reports(1)[-1], Finished)


def test_a_killed_trial_is_lost_and_its_worker_goes_on(trials: Trials) -> None:
    number = trials.submit(hold=True)
    process = trials.process(number)
    actor = actor_of(process)
    os.kill(process, signal.SIGKILL)
    failed = trials.reports(1)[-1]
    assert isinstance(failed, Failed)
    assert (failed.message, failed.lost) == ("killed by signal 9 (out of memory?)", True)
    assert lives(actor)


@pytest.mark.slow
def test_a_killed_node_loses_its_trial_and_the_other_node_goes_on(trials: Trials, ray_cluster: RayCluster) -> None:
    numbers = [trials.submit(hold=True), trials.submit(hold=True)]
    processes = {number: trials.process(number) for number in numbers}
    ray_cluster.replace_second_node()
    (failed,) = (report for report in trials.reports(1) if isinstance(report, Failed))
    assert failed.lost
    assert failed.message.startswith("Ray lost ")
    until_gone(processes[failed.number])
    (other,) = set(numbers) - {failed.number}
    again = trials.submit()
    trials.release(other)
    ended = [report for report in trials.reports(2) if isinstance(report, Finished)]
    assert [report.number for report in ended] == [other, again]


def test_a_trial_that_is_cancelled_ends_wherever_it_is(trials: Trials) -> None:
    running = [trials.submit(hold=True), trials.submit(hold=True)]
    processes = [trials.process(number) for number in running]
    queued = trials.submit(hold=True)
    for number in (queued, *running):
        trials.engine.cancel(number, 1, f"no longer wanted: {number}")
    failed = [report for report in trials.reports(3) if isinstance(report, Failed)]
    assert [(report.number, report.message, report.lost) for report in failed] == [
        (number, f"no longer wanted: {number}", False) for number in (*running, queued)
    ]
    assert not any(lives(process) for process in processes)
    assert not (trials.folder / f"{queued}.begun").exists()


def test_a_timeout_counts_from_the_begin_and_not_while_a_trial_waits(trials: Trials) -> None:
    running = [trials.submit(hold=True), trials.submit(hold=True)]
    for number in running:
        trials.process(number)
    waiting = trials.submit(timeout_s=2.0)
    submitted = time.monotonic()
    until(lambda: trials.poll() and time.monotonic() - submitted > 2.5, "no time passes")
    trials.release(*running)
    ended = [report.number for report in trials.reports(3) if isinstance(report, Finished)]
    assert ended == [*running, waiting]
    late = trials.submit(hold=True, timeout_s=0.5)
    failed = trials.reports(1)[-1]
    assert isinstance(failed, Failed)
    assert (failed.number, failed.message, failed.lost) == (late, "timed out after 0.5 s", False)


@pytest.mark.parametrize(
    ("threads", "gpu", "message"),
    [
        (64, False, "a trial needs 64 CPUs, and no node of the Ray cluster has that; the largest has 1 CPU"),
        (1, True, "a trial needs 1 CPU and a GPU, and no node of the Ray cluster has that; .* 1 CPU, and 0 GPUs"),
    ],
)
def test_what_no_node_has_is_refused_at_once(
    ray_cluster: RayCluster, tmp_path: Path, threads: int, gpu: bool, message: str
) -> None:
    settings = LocalSettings(tmp_path, threads=threads)
    with pytest.raises(EnvironmentFailure, match=message):
        RayEngine(CommandTrials(["true"]), SPACE, settings, RaySettings(ray_cluster.address, gpu_each=gpu))


def test_a_program_that_a_node_lacks_ends_the_run(ray_cluster: RayCluster, tmp_path: Path) -> None:
    work = CommandTrials(["/no/such/program"])
    cluster = RaySettings(ray_cluster.address)
    with contextlib.closing(RayEngine(work, SPACE, LocalSettings(tmp_path), cluster)) as engine:
        engine.submit(Job(0, 1, SPACE.at(0)))
        with pytest.raises(
            EnvironmentFailure, match=r"command cannot be started: /no/such/program: .* \(on a node of the"
        ):
            Trials(engine, tmp_path).reports(1)


def test_a_folder_that_a_node_lacks_ends_the_run(
    ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepare_folder(tmp_path / "here"))
    cluster = RaySettings(ray_cluster.address)
    with contextlib.closing(RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), cluster)) as engine:
        (tmp_path / "here").rmdir()
        engine.submit(Job(0, 1, SPACE.at(0)))
        with pytest.raises(
            EnvironmentFailure, match=r"cannot work there: .* \(on a node of the Ray cluster\)"
        ) as caught:
            Trials(engine, tmp_path).reports(1)
    assert caught.value.where == str(tmp_path / "here")


def test_actors_that_never_begin_end_the_run(ray_cluster: RayCluster, tmp_path: Path) -> None:
    class Unreadable(SearchSpace):
        def to_json(self) -> dict[str, Any]:
            return {"key": {}}

    cluster = RaySettings(ray_cluster.address)
    space = Unreadable(SPACE)
    with contextlib.closing(RayEngine(CommandTrials(["true"]), space, LocalSettings(tmp_path), cluster)) as engine:
        engine.submit(Job(0, 1, SPACE.at(0)))
        with pytest.raises(EnvironmentFailure, match=r"no actor begins on the Ray cluster: its engine ended \(1\)"):
            Trials(engine, tmp_path).reports(1)


def test_what_a_study_does_not_use_others_may_have(ray_cluster: RayCluster, tmp_path: Path) -> None:
    settings = LocalSettings(tmp_path / "logs")
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # each has all that there is, in turn
            cluster = RaySettings(ray_cluster.address, idle_s=0.2)
            engine = RayEngine(CommandTrials(command(tmp_path)), SPACE, settings, cluster)
            held.append(Trials(stack.enter_context(contextlib.closing(engine)), tmp_path))
        for trials in held:
            numbers = [trials.submit(hold=True), trials.submit(hold=True)]
            for number in numbers:
                trials.process(number)
            trials.release(*numbers)
            assert all(isinstance(report, (Finished, Intermediate)) for report in trials.reports(2))
            for number in numbers:
                (tmp_path / f"{number}.begun").unlink()


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"cannot reach the Ray cluster at 127\.0\.0\.1:1: .*refused"):
        RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), RaySettings("127.0.0.1:1"))


def test_what_is_no_cluster_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EnvironmentFailure, match=f"the Ray cluster at {address}: no answer within 1 s"):
            RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), RaySettings(address))


def test_an_address_of_a_client_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`ray_address` 'ray://head:10001' is not that of a node"):
        RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), RaySettings("ray://head:10001"))


def test_without_ray_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="`engine` ray needs the package ray") as caught:
        RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), RaySettings())
    assert caught.value.hint == "pip install 'nnas[ray]'"


def test_a_ray_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.3")
    with pytest.raises(UsageError, match=r"`engine` ray needs ray 2\.59 or newer, not 2\.9\.3"):
        RayEngine(CommandTrials(["true"]), SPACE, LocalSettings(tmp_path), RaySettings())
