"""A Ray cluster of one's own, and coordinators that are killed: nothing is left, and every trial counts once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnas_core.errors import EnvironmentFailure
from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.engine import Finished
from nnas_core.execution.ray.engine import RayEngine, RaySettings
from nnas_core.execution.work import CommandTrials
from nnas_core.study.storage.store import StudyStore
from tests.execution.conftest import ROOT, RayCluster
from tests.execution.process_checks import lives, until_gone
from tests.execution.ray_engine_trials import SPACE, Trials, command
from tests.study.program_fork_server import until

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.slow, pytest.mark.xdist_group("ray")]


def below(root: int) -> dict[int, str]:
    """The command lines of all processes that descend from one, itself left out."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="], text=True, stdout=subprocess.PIPE, check=True
    ).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    found: dict[int, str] = {}
    for _ in rows:
        new = {int(pid): args for pid, parent, *args in rows if int(parent) in {root, *found} and int(pid) not in found}
        if not new:
            break
        found |= {pid: " ".join(args) for pid, args in new.items()}
    return found


def folder_of_head(processes: dict[int, str]) -> tuple[int, Path]:
    """The process of the head of a cluster, and the folder that the cluster works in."""
    ((pid, args),) = (
        (pid, args) for pid, args in processes.items() if re.search(r"gcs_server --log_dir=\S*/nnas-ray-", args)
    )
    match = re.search(r"--log_dir=(\S*/nnas-ray-[^/]+)/", args)
    assert match is not None
    return pid, Path(match[1])


def test_a_cluster_of_its_own_runs_trials_and_its_loss_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # not to be heeded
    cluster = RaySettings(cpus=2, go_on="join")
    engine = RayEngine(CommandTrials(command(tmp_path)), SPACE, LocalSettings(tmp_path / "logs"), cluster)
    with contextlib.closing(engine):
        trials = Trials(engine, tmp_path)
        trials.submit()
        assert isinstance(trials.reports(1)[-1], Finished)
        trials.process(trials.submit(hold=True))
        supervisor = next(  # the watcher, and below it the supervisor
            pid for pid, args in below(os.getpid()).items() if "execution.ray.driver" in args and "-S" in args
        )
        processes = below(supervisor)
        head, folder = folder_of_head(processes)
        assert folder.stat().st_mode & 0o777 == 0o700
        os.kill(head, signal.SIGKILL)
        with pytest.raises(EnvironmentFailure, match="the Ray cluster is lost") as caught:
            trials.reports(1)
        assert (caught.value.hint or "").startswith("go on with `join` when it runs again; ")
    assert not folder.exists()
    assert len(processes) > 5
    assert not any(lives(pid) for pid in processes)


def start_study(tmp_path: Path, address: str) -> subprocess.Popen[str]:
    """The study of ``ray_study.py``."""
    arguments = [f"sqlite:///{tmp_path}/nnas.db", str(tmp_path), address]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.execution.ray_study", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


def kill_study(tmp_path: Path, address: str) -> dict[int, str]:
    """Kill the coordinator of a study while its trials 2 and 3 run; what had run below it, and these trials."""
    for number in (2, 3):
        (tmp_path / f"{number}.wait").touch()
    coordinator = start_study(tmp_path, address)
    until(lambda: all((tmp_path / f"{number}.begun").exists() for number in (2, 3)), "no trials")
    processes = below(coordinator.pid)
    processes |= {int((tmp_path / f"{number}.begun").read_text()): "a trial" for number in (2, 3)}
    coordinator.kill()
    coordinator.communicate()
    until_gone(*processes)
    for number in (2, 3):
        (tmp_path / f"{number}.wait").unlink()
    return processes


def test_a_coordinator_that_is_killed_takes_its_cluster_with_it(tmp_path: Path) -> None:
    processes = kill_study(tmp_path, "")
    _, folder = folder_of_head(processes)
    assert not folder.exists()


def test_a_killed_coordinator_leaves_no_trial_on_the_cluster_and_the_next_one_counts_each_once(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    kill_study(tmp_path, ray_cluster.address)
    resumed = start_study(tmp_path, ray_cluster.address)
    assert resumed.communicate(timeout=60)[0] == "8 0 2\n"
    with StudyStore.open(f"sqlite:///{tmp_path}/nnas.db") as store:
        trials = store.trials(store.study("study"))
    assert {trial.number: trial.attempt for trial in trials} == {n: 2 if n in (2, 3) else 1 for n in range(8)}
    assert all(trial.cost == {"attempt": trial.attempt} for trial in trials)
