"""When a run writes checkpoints besides the end of each epoch."""

from __future__ import annotations

import time

from nnas_core.training.settings import cadence

__all__ = ["CheckpointCadence"]


class CheckpointCadence:
    """Says when to write a checkpoint besides the end of each epoch.

    Args:
        text: as ``cadence`` reads it, or None for epochs only.

    Raises:
        UsageError: something else.
    """

    def __init__(self, text: str | None) -> None:
        self._steps, self._seconds = (None, None) if text is None else cadence(text)
        self._last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns true if one is to be written after ``step`` steps."""
        if self._steps is not None:
            return step % self._steps == 0
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def written(self) -> None:
        """Start the clock again."""
        self._last = time.monotonic()
