"""A supervised command: how its end is told, what is kept of its output, and that nothing of it is left."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnas_core.execution.process import GRACE_S, End, Supervised, environment, last_line
from tests.execution.process_checks import lives, pid_in, program, until_gone
from tests.study.conftest import ROOT

PATIENCE_S = 60.0

PYTHON = [sys.executable, "-I", "-S"]

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a command; its log is ``tmp_path/log``."""

    def started(*command: str, log_bytes: int = 10_000, grace_s: float = 0.2) -> Supervised:
        log = tmp_path / "log"
        return Supervised(command, log=log, log_bytes=log_bytes, env=os.environ, grace_s=grace_s)

    return started


def end_of(process: Supervised) -> End:
    """How it ends."""
    process.wait(PATIENCE_S)
    assert process.end is not None
    return process.end


@pytest.mark.parametrize(
    ("script", "end", "text"),
    [
        ("exit 0", End(exit=0), "ended (exit 0)"),
        ("exit 3", End(exit=3), "ended (exit 3)"),
        ("exit 255", End(exit=255), "ended (exit 255)"),
        ("kill -9 $$", End(signal=9), "killed by signal 9 (out of memory?)"),
        ("kill -SEGV $$", End(signal=11), "killed by signal 11 (SIGSEGV)"),
        ("kill -45 $$", End(signal=45), "killed by signal 45"),
        ("cat", End(exit=0), "ended (exit 0)"),  # its input is empty
    ],
)
def test_how_a_command_ends_is_told(start: Start, script: str, end: End, text: str) -> None:
    found = end_of(start("sh", "-c", script))
    assert found == end
    assert str(found) == text


def test_a_command_that_is_none_is_told(start: Start, tmp_path: Path) -> None:
    assert str(end_of(start("/no/such"))) == "cannot be started: /no/such: No such file or directory"
    (tmp_path / "text").write_text("no program")
    assert str(end_of(start(str(tmp_path / "text")))) == f"cannot be started: {tmp_path}/text: Permission denied"


def test_an_end_that_is_known_stays_known(start: Start) -> None:
    process = start("true")
    assert end_of(process) == End(exit=0)
    process.look()
    process.stop()
    process.wait(0)
    assert process.end == End(exit=0)


# ---- output


@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 5096])
def test_output_that_is_not_much_longer_than_the_limit_is_kept_whole(start: Start, tmp_path: Path, size: int) -> None:
    text = "".join(chr(ord("a") + place % 26) for place in range(size))
    end_of(start(*PYTHON, "-c", f"print({text!r}, end='')", log_bytes=1000))
    assert (tmp_path / "log").read_text() == text


def test_of_long_output_begin_and_end_are_kept(start: Start, tmp_path: Path) -> None:
    end_of(start(*PYTHON, "-c", "for i in range(100_000): print(f'{i:09}')", log_bytes=1000))
    whole = "".join(f"{i:09}\n" for i in range(100_000))
    left_out = len(whole) - 1000 - 4096
    assert (tmp_path / "log").read_text() == f"{whole[:1000]}\n[nnas left out {left_out} bytes here]\n{whole[-4096:]}"
    assert last_line(tmp_path / "log") == "000099999"


def test_both_outputs_go_to_the_log_as_they_come(start: Start, tmp_path: Path) -> None:
    end_of(start("sh", "-c", "echo one; echo two >&2; echo three"))
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", ""),
        (b"\n \n\t\n", ""),
        (b"first\nlast\n\n", "last"),
        (b"\x1b[31mred\x1b[0m \xff\n", "[31mred [0m \ufffd"),
        (b"x" * 10_000, "x" * 200),
    ],
)
def test_the_last_line_is_the_last_that_says_something(tmp_path: Path, content: bytes, line: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    assert last_line(log) == line
    assert last_line(tmp_path / "other") == ""


# ---- ends

FAMILY = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for name, start in (("same group", lambda: None), ("own group", os.setpgrp), ("own session", os.setsid)):
    if os.fork() == 0:
        start()
        say(name)
        while True: signal.pause()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        say("orphan")
        while True: signal.pause()
    os._exit(0)
os.wait()
say("command")
while True: signal.pause()
"""

MEMBERS = ("same group", "own group", "own session", "orphan", "command")


def family(folder: Path) -> list[int]:
    """The processes of ``FAMILY``; waits until they are all there."""
    return [pid_in(folder / name) for name in MEMBERS]


@pytest.mark.kill
def test_a_command_that_is_stopped_is_ended_with_all_that_it_started_however_deaf(start: Start, tmp_path: Path) -> None:
    process = start(*PYTHON, program(tmp_path, FAMILY))
    pids = family(tmp_path)
    assert all(lives(pid) for pid in pids)
    process.stop()
    assert end_of(process) == End(signal=9)
    assert not any(lives(pid) for pid in pids)


@pytest.mark.kill
def test_a_command_that_is_stopped_may_end_in_its_own_way(start: Start, tmp_path: Path) -> None:
    text = (
        "def end(*_):\n"
        "    time.sleep(0.1)\n"  # a second signal would be seen
        "    say(f'told {len(told)}')\n"
        "    sys.exit(7)\n"
        "told = []\n"
        "signal.signal(15, lambda *_: (told.append(1), end() if len(told) == 1 else None))\n"
        "say('ready')\n"
        "while True: signal.pause()"
    )
    process = start(*PYTHON, program(tmp_path, text), grace_s=PATIENCE_S)
    pid_in(tmp_path / "ready")
    process.stop()
    assert end_of(process) == End(exit=7)
    assert (tmp_path / "told 1").exists()


@pytest.mark.kill
def test_what_a_command_leaves_running_ends_with_it(start: Start, tmp_path: Path) -> None:
    begin = FAMILY.partition('say("command")')[0] + f"for name in {MEMBERS[:-1]}: wait_for(name)\n"
    for last, end in (
        ("os.kill(os.getpid(), 9)", End(signal=9)),
        ("os.close(1); os.close(2); sys.exit(5)", End(exit=5)),
    ):
        for name in MEMBERS:
            (tmp_path / name).unlink(missing_ok=True)
        assert end_of(start(*PYTHON, program(tmp_path, begin + last))) == end
        assert not any(lives(pid_in(tmp_path / name)) for name in MEMBERS[:-1])


COORDINATOR = """
import os, signal, sys
from pathlib import Path
from nnas_core.execution.process import Supervised
command, log = sys.argv[1:]
running = Supervised([sys.executable, "-I", "-S", command], log=Path(log), log_bytes=1000, env=os.environ, grace_s=0.2)
while True: signal.pause()
"""


@pytest.mark.kill
def test_nothing_is_left_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COORDINATOR, program(tmp_path, FAMILY), str(tmp_path / "log")]
    coordinator = subprocess.Popen(command, cwd=ROOT)
    pids = family(tmp_path)
    coordinator.kill()
    coordinator.wait()
    until_gone(*pids)


@pytest.mark.kill
def test_a_command_dies_with_its_supervisor(start: Start, tmp_path: Path) -> None:
    text = "if os.fork() == 0: say('child')\nelse: say('command')\nwhile True: signal.pause()"
    process = start(*PYTHON, program(tmp_path, text))
    pids = [pid_in(tmp_path / name) for name in ("child", "command")]
    os.kill(parent_of(pids[1]), signal.SIGKILL)
    assert str(end_of(process)) == "killed by signal 9 (out of memory?)"
    until_gone(*pids)


@pytest.mark.kill
def test_a_supervisor_that_does_not_answer_is_made_to(start: Start, tmp_path: Path) -> None:
    process = start(*PYTHON, program(tmp_path, "say('command')\nwhile True: signal.pause()"))
    pid = pid_in(tmp_path / "command")
    os.kill(parent_of(pid), signal.SIGSTOP)
    process.stop()
    process.wait(PATIENCE_S)
    assert process.end == End(signal=15)
    until_gone(pid)


@pytest.mark.kill
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_a_supervisor_ends_its_command(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start(*PYTHON, program(tmp_path, "say('command')\nwhile True: signal.pause()"))
    os.kill(parent_of(pid_in(tmp_path / "command")), number)
    assert end_of(process) == End(signal=15)


def parent_of(pid: int) -> int:
    """The process that started it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# ---- what a command gets


def test_open_files_are_handed_on_and_closed_here(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    script = f"import os; os.write({theirs}, b'hello'); print(os.listdir('/proc/self/fd'))"
    process = Supervised(
        [*PYTHON, "-c", script], log=tmp_path / "log", log_bytes=1000, env=os.environ, fds=(theirs,), grace_s=GRACE_S
    )
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)
    assert end_of(process) == End(exit=0)
    assert os.read(ours, 100) == b"hello"
    assert os.read(ours, 100) == b""  # nobody else has the other end
    found = ast.literal_eval((tmp_path / "log").read_text())
    assert {"0", "1", "2", str(theirs)} < set(found)
    assert len(found) == 5  # and the folder that it lists
    os.close(ours)


@pytest.mark.parametrize(
    ("given", "threads", "expected"),
    [("", 2, "2"), ("1", 2, "1"), ("8", 2, "2"), ("0", 2, "2"), ("many", 2, "2"), ("\u00b2", 3, "3")],
)
def test_a_trial_has_no_more_threads_than_its_share(
    monkeypatch: pytest.MonkeyPatch, given: str, threads: int, expected: str
) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", given)
    assert environment(threads, None)["MKL_NUM_THREADS"] == expected


def test_a_trial_sees_its_gpu_or_what_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert environment(1, None)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert environment(1, "1")["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    found = environment(1, None, NNAS_TRIAL=3)
    assert "CUDA_VISIBLE_DEVICES" not in found
    assert (found["NNAS_TRIAL"], found["PATH"]) == ("3", os.environ["PATH"])


WATCHER = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT / "nnas_core" / "execution")!r})
import process_supervisor
process_supervisor._LATE_S = 0.1
child = os.fork()
if not child:
    signal.alarm(30)
    signal.pause()
process_supervisor._Watcher(child, {{"grace_s": 0.0, "group": None}}).run()
print(process_supervisor.descendants(os.getpid()))
"""


def test_a_supervisor_that_does_not_see_the_hang_up_is_ended_by_its_watcher() -> None:
    done = subprocess.run([*PYTHON, "-c", WATCHER], input="", capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
