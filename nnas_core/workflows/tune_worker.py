"""A worker process of ``nnas tune`` with a model: the supernet is loaded once, architectures come over a pipe."""

from __future__ import annotations

from nnas_core.execution.worker import serve
from nnas_core.workflows.tune import prepare_worker

__all__ = ["main"]


def main(jobs: int, reports: int) -> None:
    """Serve the two pipes; see ``nnas_core.execution.pool``."""
    serve(jobs, reports, prepare_worker)
