"""A thread renews a lease while its process lives, whatever that process is busy with."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import timedelta

from nnas_core.errors import NnasError

__all__ = ["Heartbeat"]

_BEATS = 5
"""How often a lease is renewed in its term: one or two that are late, or cannot be written, cost nothing."""


class Heartbeat:
    """Calls a function several times in the term of a lease, from ``start`` to ``stop``.

    Args:
        renew: writes to the database; its failure is passed over, for the next beat may succeed.
        term: of the lease.
    """

    def __init__(self, renew: Callable[[], None], term: timedelta) -> None:
        self._renew = renew
        self._every_s = term.total_seconds() / _BEATS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="nnas-lease", daemon=True)

    def start(self) -> None:
        """Begins, unless it has begun."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Ends; no call is under way any more when it returns."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(self._every_s):
            with contextlib.suppress(NnasError):
                self._renew()
