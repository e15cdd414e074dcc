"""A limit on the memory that a call may take, so that what grows without end fails before the machine does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from nnas_core.space.sizes import size_in_words

__all__ = ["limited_memory"]

_STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def limited_memory(most: int, whose: str) -> Iterator[None]:
    """Lets what runs inside take at most ``most`` bytes more than there are; only on Linux.

    Args:
        most: bytes.
        whose: subject of the sentence that it fails with.

    Raises:
        AssertionError: it wanted more.
    """
    try:
        import resource

        found = re.search(r"^VmData:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except (ImportError, OSError):  # another system
        found = None
    if found is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [1024 * int(found[1]) + most, *(one for one in (soft, hard) if one != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    except MemoryError:
        raise AssertionError(
            f"{whose} took more than {size_in_words(most >> 20)} MiB: does it list what it should draw? "
            "A choice of any of 70 inputs has 2^70 decisions; `SearchSpace.sample` draws one, and "
            "`SearchSpace.neighbours` gives the few that are a step away"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
