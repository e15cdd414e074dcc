"""What a computation ran on, for those who repeat or report it: versions, processor, memory; nobody's name."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nnas_core import __version__

__all__ = ["Machine", "this_machine"]


@dataclass(frozen=True)
class Machine:
    """A machine with its software.

    Attributes:
        nnas, python: their versions.
        system: the operating system with its release, and the kind of processor.
        processor: its name.
        cpus: how many of its cores this process may use.
        memory_mib: of the whole machine; None where that is not known.
        packages: name -> version of those that compute.
        threads: of a kernel on the CPU; None where others decide that.
        device: where it ran: ``"cpu"``, ``"cuda:0"``; None where others decide that.
        accelerator: the name of the GPU that was used.
    """

    nnas: str
    python: str
    system: str
    processor: str
    cpus: int
    memory_mib: int | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    device: str | None = None
    accelerator: str | None = None

    def to_json(self) -> dict[str, object]:
        """Returns everything that is known."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return {**known, "packages": dict(self.packages)}

    @classmethod
    def from_json(cls, document: object) -> Machine | None:
        """Reads what ``to_json`` wrote; None for something else."""
        if not isinstance(document, Mapping):
            return None
        names = ("nnas", "python", "system", "processor")
        nnas, python, system, processor = texts = [str(document.get(name)) for name in names]
        packages = document.get("packages", {})
        cpus = _count(document.get("cpus"))
        if cpus is None or texts != [document.get(name) for name in names] or not isinstance(packages, Mapping):
            return None
        device, accelerator = (document.get(name) for name in ("device", "accelerator"))
        return cls(
            nnas=nnas,
            python=python,
            system=system,
            processor=processor,
            cpus=cpus,
            memory_mib=_count(document.get("memory_mib")),
            packages={str(name): str(version) for name, version in packages.items()},
            threads=_count(document.get("threads")),
            device=device if isinstance(device, str) else None,
            accelerator=accelerator if isinstance(accelerator, str) else None,
        )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62 else None


def this_machine(
    packages: Iterable[str] = (),
    threads: int | None = None,
    device: str | None = None,
    accelerator: str | None = None,
) -> Machine:
    """Returns the machine of this process.

    Args:
        packages: names of those that compute; what is not installed is left out.
        threads, device, accelerator: see ``Machine``.
    """
    return Machine(
        nnas=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_processor(),
        cpus=len(os.sched_getaffinity(0)),
        memory_mib=_memory_mib(),
        packages={name: version for name in packages if (version := _version(name)) is not None},
        threads=threads,
        device=device,
        accelerator=accelerator,
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The name in ``/proc/cpuinfo``, where Linux has it, with family and model: some clouds hide the name."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            pairs = [line.partition(":") for line in stream.read(10_000).split("\n\n")[0].splitlines()]
    except OSError:
        pairs = []
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if facts.keys() >= _NUMBERED else name


_NUMBERED = {"cpu family", "model"}


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return None
