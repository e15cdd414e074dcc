"""The other side of ``tests.cli_support.ForkServer``: torch is imported once, every command is a fork."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

import torch

from nnas_cli.main import COMMANDS, entry
from nnas_core.plugins.registry import entries

# Commands load these where they need them, which costs each a tenth of a second or two.
LOADED_LATE = (
    "jsonschema",
    "rich._emoji_codes",
    "rich.console",
    "rich.live",
    "rich.text",
    "sqlalchemy.dialects.sqlite",
    "torch.optim.lr_scheduler",
    "torch.profiler._cupti_monitor",
    "torch.utils.serialization",
)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(descriptor: int) -> None:
    """Answer requests until the socket closes."""
    torch.set_num_threads(1)
    for name in ("seeding", "signals", "progress", *(f"commands.{command.replace('-', '_')}" for command in COMMANDS)):
        importlib.import_module(f"nnas_cli.{name}")
    for name in ("search", "retrain", "evaluate", "profile", "tune", "tune_command", "validate", "assess"):
        importlib.import_module(f"nnas_core.workflows.{name}")
    mutators = [f"mutators.{name.replace('-', '_')}" for name in entries("mutators")]
    for name in ("schema", "schemas", *mutators, "tuners.bayes", "tuners.random"):
        importlib.import_module(f"nnas_core.{name}")
    for name in LOADED_LATE:
        importlib.import_module(name)
    # torch imports much on first use; children should not have to
    parameter = torch.nn.Parameter(torch.zeros(2))
    torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([parameter], lr=0.1), T_max=2)
    gc.collect()
    gc.freeze()  # what is here now is not looked at again, nor copied, by the children
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if "argv" in request:
                answer = {"pid": _fork(request, connection)}
            else:
                answer = {"code": os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])}
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


def _fork(request: dict[str, Any], connection: socket.socket) -> int:
    # What Python does after a fork cannot be interrupted: an exception of a handler would be printed and forgotten.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    grouped, leads = os.pipe()
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        os.close(leads)
        os.read(grouped, 1)  # until it leads a group: a signal to one that is not there yet would be lost
        os.close(grouped)
        return pid
    code = 99
    try:
        connection.close()
        os.setsid()
        os.close(grouped)
        os.close(leads)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        for number in STOPPING:  # nohup lets one be ignored
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if "file_limit" in request:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(request["file_limit"]), int(request["file_limit"])))
        if "memory_limit" in request:
            resource.setrlimit(resource.RLIMIT_AS, (int(request["memory_limit"]), int(request["memory_limit"])))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for target, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], flags), target)
        os.dup2(os.open(request.get("stdin", os.devnull), os.O_RDONLY), 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        code = entry(request["argv"])
        code = _flushed(code)
    except KeyboardInterrupt:  # before or after the command: the interpreter ends so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os._exit(code)


def _flushed(code: int) -> int:
    """What the interpreter does at its end, which ``os._exit`` leaves out: flush, and 120 where that fails."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120
    return code
