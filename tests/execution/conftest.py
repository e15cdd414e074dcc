"""What tests of Ray share: a cluster of two nodes, which a process of its own has started and ends."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nnas_core.execution.pipes import Receiver
from nnas_core.execution.process import Supervised
from tests.cli_support import _searched, nnas, small_model, small_run

__all__ = ["ROOT", "RayCluster", "_searched", "nnas", "ray_cluster", "small_model", "small_run"]

ROOT = Path(__file__).parents[2]

START_S = 60.0


@dataclass
class RayCluster:
    """A cluster that runs.

    Attributes:
        address: for ``--ray-address``.
        environment: variables that whoever connects must have.
    """

    address: str
    environment: dict[str, str]
    _asks: int
    _answers: Receiver[dict[str, Any]]

    def replace_second_node(self) -> None:
        """Kill a node, and add one."""
        os.write(self._asks, b"replace\n")
        _answer(self._answers)


def _answer(answers: Receiver[dict[str, Any]]) -> dict[str, Any]:
    while True:
        found = answers.receive()
        if found:
            return found[0]
        assert not answers.closed, "the Ray cluster has ended"
        assert answers.wait(START_S), "the Ray cluster does not answer"


@pytest.fixture(scope="module")  # its processes are never idle: not longer than it is needed
def _ray_cluster() -> Iterator[RayCluster]:
    asks, our_asks = os.pipe()
    our_answers, answers = os.pipe()
    with tempfile.TemporaryDirectory(prefix="nnas-test-", dir="/tmp") as folder:
        environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        process = Supervised(
            [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), str(asks), str(answers)],
            log=Path(folder, "log"),
            log_bytes=2**20,
            env={**os.environ, **environment, "RAY_TMPDIR": folder},
            fds=(asks, answers),
        )
        receiver: Receiver[dict[str, Any]] = Receiver(our_answers, dict)
        yield RayCluster(_answer(receiver)["address"], environment, our_asks, receiver)
        process.stop()
        process.wait(START_S)
        os.close(our_asks)
        os.close(our_answers)


@pytest.fixture
def ray_cluster(_ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The cluster, and what this process needs to connect to it."""
    for name, value in _ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    return _ray_cluster
