"""A control group for each command, where the system lets us make one: nothing that a command starts leaves it.

Only version 2 of them is used, below the group that this process is in; see cgroups(7).
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from pathlib import Path

__all__ = ["new_group", "own_group"]

_KILL = "cgroup.kill"
"""The file of a group that ends all in it; Linux has it from 5.14 on."""


def new_group(name: str) -> Path | None:
    """Makes a group; ``process_supervisor.end_group`` ends it.

    Args:
        name: that no other has.

    Returns:
        Its folder; None where that is not allowed, or of no use.
    """
    parent = own_group()
    if parent is None:
        return None
    group = parent / f"nnas-{name}"
    with contextlib.suppress(OSError):
        group.mkdir()
        if (group / _KILL).exists():
            return group
        group.rmdir()
    return None


@cache
def own_group(process: Path = Path("/proc/self")) -> Path | None:
    """Returns the folder of the group that this process is in; None where there is none that we see.

    Args:
        process: the folder in which the kernel describes it.
    """
    try:
        groups, mounts = ((process / name).read_text("utf-8", "replace") for name in ("cgroup", "mountinfo"))
    except OSError:
        return None
    ours = re.search(r"^0::(/.*)$", groups, re.MULTILINE)
    # ID PARENT DEVICE ROOT PLACE OPTIONS ... - TYPE SOURCE OPTIONS
    mount = re.search(r"^\S+ \S+ \S+ (/\S*) (/\S*) .* - cgroup2 ", mounts, re.MULTILINE)
    if ours is None or mount is None or not Path(ours[1]).is_relative_to(mount[1]):
        return None
    return Path(mount[2], Path(ours[1]).relative_to(mount[1]))
