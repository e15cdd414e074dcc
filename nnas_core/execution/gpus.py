"""GPUs are counted within those that ``CUDA_VISIBLE_DEVICES`` shows, as CUDA itself counts them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnas_core.errors import UsageError

__all__ = ["visible_gpus"]

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(
    given: Sequence[str], environment: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> tuple[str, ...]:
    """Returns what each of the given GPUs is called in ``CUDA_VISIBLE_DEVICES``.

    Args:
        given: numbers, which count those that are visible, from 0; or names (``GPU-...``, ``MIG-...``).
        environment: says what is visible.
        root: of the file system, where drivers show their GPUs.

    Raises:
        UsageError: one of them is not there.
    """
    shown = environment.get(_VARIABLE)
    if shown is None:
        there = _installed(root)
        if there is None:
            return tuple(given)
        if not there:
            raise UsageError(f"`gpus` {','.join(given)}: this machine has no GPU", hint="leave it out")
        return tuple(_chosen(one, there, f"this machine has {_counted(there)}") for one in given)
    visible = _listed(shown)
    if not visible:
        raise UsageError(
            f"`gpus` {','.join(given)}: {_VARIABLE}={shown} shows no GPU", hint=f"leave it out, or unset {_VARIABLE}"
        )
    return tuple(_chosen(one, visible, f"{_VARIABLE}={shown} shows {_counted(visible)}") for one in given)


def _chosen(given: str, visible: Sequence[str], what_is_there: str) -> str:
    if given.isdecimal():
        if int(given) < len(visible):
            return visible[int(given)]
    elif given in visible or all(name.isdecimal() for name in visible):
        return given  # a name is not to be compared with numbers
    raise UsageError(f"`gpus` {given} is not there: {what_is_there}", hint="count from 0")


def _counted(visible: Sequence[str]) -> str:
    return "one, 0" if len(visible) == 1 else f"{len(visible)}, 0 to {len(visible) - 1}"


def _listed(shown: str) -> list[str]:
    """Returns the GPUs in a list; CUDA looks at nothing after one that cannot be."""
    found: list[str] = []
    for part in shown.split(","):
        name = part.strip()
        if not name or name.startswith("-") or name == "NoDevFiles":
            break
        found.append(name)
    return found


def _installed(root: Path) -> list[str] | None:
    """Returns the numbers of NVIDIA's GPUs of this machine; None where another driver may have some."""
    folders = (root / "proc/driver/nvidia/gpus").glob("*"), (root / "dev").glob("nvidia[0-9]*")
    count = max(sum(1 for _ in found) for found in folders)
    if not count and ((root / "dev/kfd").exists() or (root / "dev/dxg").exists()):  # AMD's, and Windows' for Linux
        return None
    return [str(number) for number in range(count)]
