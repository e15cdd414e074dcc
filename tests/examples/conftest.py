"""Fixtures of the examples' tests."""

from __future__ import annotations

from tests.cli_support import _fork_server, forks, nnas

__all__ = ["_fork_server", "forks", "nnas"]
