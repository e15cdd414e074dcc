"""Control groups of commands: where one can be made nothing gets out, and nothing of them is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from nnas_core.execution import control_group, process_supervisor
from nnas_core.execution.control_group import new_group, own_group
from nnas_core.execution.process import End, Supervised
from tests.execution.process_checks import lives, pid_in, program, until_gone
from tests.execution.test_hostile_commands import HIDE, WAIT
from tests.execution.test_supervised import PYTHON
from tests.study.program_fork_server import until

UNKNOWN = """
if os.environ.get("unknown"):
    say("unknown")
    while True: signal.pause()
if os.fork() == 0:
    if os.fork() != 0: os._exit(0)
    os.setsid()
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__], {"unknown": "yes"})
wait_for("unknown")
"""
"""An orphan in another session, whose environment says nothing of where it comes from."""

DESCRIPTION = (
    "22 20 0:5 / /proc rw - proc proc rw\n41 31 0:38 {} /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
)


@pytest.mark.kill
@pytest.mark.parametrize(
    ("attack", "end"),
    [("os.kill(watcher, 9); os.kill(supervisor, 9)" + WAIT, End(signal=9)), ("sys.exit(5)", End(exit=5))],
)
def test_what_nobody_can_recognise_ends_with_the_group(tmp_path: Path, attack: str, end: End) -> None:
    command = [*PYTHON, program(tmp_path, UNKNOWN + HIDE + attack)]
    process = Supervised(command, log=tmp_path / "log", log_bytes=1000, env=os.environ, grace_s=0.2)
    pids = [pid_in(tmp_path / name) for name in ("orphan", "other session", "command", "unknown")]
    process.wait(60)
    assert process.end == end
    until_gone(*pids[:-1])
    if process._group is None and end.exit is None:
        assert lives(pids[-1])  # as docs/trials.md says
        os.kill(pids[-1], signal.SIGKILL)
    until_gone(pids[-1])
    if process._group is not None:
        until(lambda: not Path(str(process._group)).exists(), "the group is left")


def test_a_command_that_cannot_be_started_leaves_no_group(tmp_path: Path) -> None:
    process = Supervised([str(tmp_path)], log=tmp_path / "log", log_bytes=1000, env=os.environ)
    process.wait(60)
    assert process.end is not None
    assert process.end.errno == 13
    assert process._group is None or not process._group.exists()


def test_a_group_goes_with_those_that_were_made_in_it() -> None:
    group = new_group(f"test-{os.getpid()}")
    if group is not None:
        (group / "inner" / "innermost").mkdir(parents=True)
    process_supervisor.end_group(group)
    assert group is None or not group.exists()
    process_supervisor.end_group(group)  # whoever comes later finds nothing to do


@pytest.mark.parametrize(
    ("groups", "root", "found"),
    [
        ("0::/\n", "/", "/sys/fs/cgroup"),
        ("4:memory:/a\n0::/user.slice/one.scope\n", "/", "/sys/fs/cgroup/user.slice/one.scope"),
        ("0::/docker/1/inner\n", "/docker/1", "/sys/fs/cgroup/inner"),
        ("0::/elsewhere\n", "/docker/1", None),
        ("0::/../above\n", "/docker/1", None),
        ("4:memory:/a\n", "/", None),
        ("", "/", None),
    ],
)
def test_our_own_group_is_where_the_kernel_says(tmp_path: Path, groups: str, root: str, found: str | None) -> None:
    (tmp_path / "cgroup").write_text(groups)
    (tmp_path / "mountinfo").write_text(DESCRIPTION.format(root))
    assert own_group(tmp_path) == (None if found is None else Path(found))


def test_where_the_kernel_says_nothing_there_is_none(tmp_path: Path) -> None:
    assert own_group(tmp_path) is None
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text("22 20 0:5 / /proc rw - proc proc rw\n")
    assert own_group(tmp_path / ".") is None


@pytest.mark.parametrize("place", [None, Path("/proc/self/nothing"), Path("/dev/null")])
def test_no_group_is_made_where_that_is_not_allowed(place: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_group, "own_group", lambda: place)
    assert new_group("one") is None


def test_a_kernel_that_cannot_end_a_group_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_group, "own_group", lambda: tmp_path)
    assert new_group("one") is None
    assert list(tmp_path.iterdir()) == []
