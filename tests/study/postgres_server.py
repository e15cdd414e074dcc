"""A real PostgreSQL server for tests: one for all processes of a test run, on 127.0.0.1, gone when they are gone.

The first process that needs it starts this file as a supervisor, which is the server's parent. Every process that uses
the server holds a shared lock on a file, which the system gives free however the process ends; when the supervisor gets
the same lock for itself alone, nobody is left, and it stops the server. If the supervisor is killed, the kernel does.

python -m tests.study.postgres_server FOLDER
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["NoServer", "Server", "running"]

ROOT = Path(__file__).parents[2]


class NoServer(Exception):
    """The server could not be started, and why."""


@dataclass(frozen=True)
class Server:
    """How to reach the server.

    Attributes:
        port: on 127.0.0.1.
        admin_password: of the superuser ``admin``.
        password: of ``tester``, who owns the database ``tests`` and can do nothing else.
    """

    port: int
    admin_password: str
    password: str

    def url(self, schema: str, *, user: str = "tester", password: str | None = None, database: str = "tests") -> str:
        """For ``--storage``: studies in that schema."""
        secret = password or self.password
        return f"postgresql+psycopg://{user}:{secret}@127.0.0.1:{self.port}/{database}?options=-csearch_path%3D{schema}"

    def connect(self, schema: str = "public", *, admin: bool = False, database: str = "tests") -> Any:
        """A connection of the driver's own, in which every statement is a transaction."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="admin" if admin else "tester",
            password=self.admin_password if admin else self.password,
            dbname=database,
            autocommit=True,
            options=f"-csearch_path={schema}",
        )

    @contextmanager
    def schema(self) -> Iterator[str]:
        """A schema of its own."""
        name = f"test_{secrets.token_hex(6)}"
        with closing(self.connect()) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            yield name
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """The server of all processes that give the same ``folder``.

    Raises:
        NoServer: there is none, and it cannot be started.
    """
    folder.mkdir(exist_ok=True)
    ready = folder / "ready.json"
    # the locks of lockf belong to the process alone: children that it forks do not keep them
    with open(folder / "users", "a+") as users, open(folder / "start", "a+") as start:
        fcntl.lockf(start, fcntl.LOCK_EX)  # one process starts it, the others wait
        fcntl.lockf(users, fcntl.LOCK_SH)
        if not ready.exists():
            _start(folder, ready)
        fcntl.lockf(start, fcntl.LOCK_UN)
        yield Server(**json.loads(ready.read_text()))


def _start(folder: Path, ready: Path) -> None:
    log = folder / "log"
    with open(log, "wb") as stream:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.study.postgres_server", str(folder)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest; the supervisor sees pytest end
        )
    while not ready.exists():
        if supervisor.poll() is not None:
            raise NoServer(log.read_text(errors="replace").strip()[-2000:])
        time.sleep(0.02)
    supervisor.returncode = 0  # it outlives us on purpose: no warning that nobody waited for it


# ---- the supervisor


def _programs() -> Path:
    """The folder of the newest server programs."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found += [path.parent for path in sorted(debian, key=lambda path: float(path.parts[-3]), reverse=True)]
    if not found:
        raise NoServer(
            "these tests need a PostgreSQL server and found no initdb: install it (apt-get install postgresql), "
            "or leave them out by -m 'not postgresql'"
        )
    return found[0]


def _account() -> dict[str, Any]:
    """Arguments of ``subprocess`` for an account that the server accepts: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoServer("PostgreSQL does not run as root, and there is no account postgres or nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def supervise(folder: Path) -> None:
    """Run the server until no process uses it."""
    programs, account = _programs(), _account()
    # not below pytest's folder, which no other account may enter
    home = Path(tempfile.mkdtemp(prefix="nnas-postgresql-"))
    try:
        if account:
            os.chown(home, account["user"], account["group"])
        server = Server(_free_port(), secrets.token_hex(12), secrets.token_hex(12))
        process = _serve(programs, account, home, server)
        try:
            _prepare(server, process)
            temporary = folder / "ready.tmp"
            temporary.write_text(json.dumps(asdict(server)))
            temporary.rename(folder / "ready.json")
            with open(folder / "users", "a+") as users:
                fcntl.lockf(users, fcntl.LOCK_EX)  # granted when the last user is gone
                (folder / "ready.json").unlink()
                _stop(process)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home)


def _serve(programs: Path, account: dict[str, Any], home: Path, server: Server) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(home)}
    common: dict[str, Any] = {**account, "cwd": home, "env": environment}
    password = home / "password"
    password.write_text(server.admin_password)
    made = subprocess.run(
        [
            *(programs / "initdb", "--pgdata=data", "--username=admin", "--auth=scram-sha-256", "--no-sync"),
            *(f"--pwfile={password}", "--encoding=UTF8", "--locale=C"),
        ],
        capture_output=True,
        text=True,
        **common,
    )
    if made.returncode:
        raise NoServer(f"initdb failed: {made.stderr}")
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(server.port),
        "unix_socket_directories": "",
        "shared_buffers": "16MB",
        "fsync": "on",
    }
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    # whatever happens to the supervisor, its server ends with it
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "QUIT", programs / "postgres", "-D", "data", *settings],
        stdin=subprocess.DEVNULL,
        **common,
    )


def _prepare(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = server.connect(admin=True, database="postgres")
            break
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NoServer(f"the server does not answer: {error}") from error
            time.sleep(0.05)
    with closing(connection):
        connection.execute(sql.SQL("CREATE ROLE tester LOGIN PASSWORD {}").format(sql.Literal(server.password)))
        connection.execute("CREATE DATABASE tests OWNER tester")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # disconnects everybody
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait()


if __name__ == "__main__":
    try:
        supervise(Path(sys.argv[1]))
    except NoServer as reason:
        sys.exit(str(reason))
