"""When a run writes checkpoints besides the end of each epoch."""

from __future__ import annotations

import re
import time

from nnas_core.errors import UsageError

__all__ = ["CheckpointCadence"]


class CheckpointCadence:
    """Says when to write a checkpoint besides the end of each epoch.

    Args:
        text: steps (``"500"``), seconds (``"30s"``), minutes (``"5m"``), or None for epochs only.

    Raises:
        UsageError: something else.
    """

    def __init__(self, text: str | None) -> None:
        match = re.fullmatch(r"(\d+)([smh]?)", text) if text else None
        if text and (match is None or int(match[1]) == 0):
            raise UsageError(
                f"`checkpoint_every` {text!r} is no cadence", hint="give steps (500) or time (30s, 5m, 1h)"
            )
        self._steps = int(match[1]) if match and not match[2] else None
        self._seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match and match[2] else None
        self._last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns true if one is to be written after ``step`` steps."""
        if self._steps is not None:
            return step % self._steps == 0
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def written(self) -> None:
        """Start the clock again."""
        self._last = time.monotonic()
