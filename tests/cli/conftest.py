"""Fixtures of the command-line tests."""

from __future__ import annotations

from tests.cli.terminals import terminal
from tests.cli_support import _fork_server, _searched, forks, nnas, small_model, small_run

__all__ = ["_fork_server", "_searched", "forks", "nnas", "small_model", "small_run", "terminal"]
