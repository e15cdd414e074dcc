"""Under which circumstances a run was made, as its events tell it: code, data, machines, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnas_core.files import finite, finite_only, read_json_lines
from nnas_core.machine import Machine

__all__ = ["Circumstances", "read_circumstances"]


@dataclass(frozen=True)
class Circumstances:
    """What the events of a run say besides its results; an older nnas said less.

    Attributes:
        machines: those that it ran on, in their order, each once.
        code: digests of the files that model and task are made of, as they were in the end.
        changed: files whose contents changed on the way.
        samples: sizes of the data sets, by name.
        split: which samples of the training set are held out: ``seed`` and ``valid_fraction``.
        training_s: seconds that its epochs were trained; None where one of them does not say.
        seconds: wall time of its processes; None while one of them has not said it: it runs, or was killed.
        processes: how many there were.
        derived: how many architectures were measured after the training.
    """

    machines: Sequence[Machine] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    changed: Sequence[str] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    split: Mapping[str, float] = field(default_factory=dict)
    training_s: float | None = None
    seconds: float | None = None
    processes: int = 0
    derived: int = 0


def read_circumstances(folder: str | Path) -> Circumstances:
    """Reads them from ``events.jsonl`` of a run folder; what is not there, or of another form, is not known.

    Raises:
        EnvironmentFailure: it may not be read.
    """
    file = Path(folder) / "events.jsonl"
    events = read_json_lines(file) if file.is_file() else []
    begun = [event for event in events if event.get("event") in ("started", "resumed")]
    machines = [one for one in (Machine.from_json(event.get("machine")) for event in begun) if one is not None]
    codes = [_texts(event.get("code")) for event in begun]
    code = {name: digest for one in codes for name, digest in one.items()}
    sizes = _numbers(begun[0].get("samples")) if begun else {}
    for event in events:
        if (tested := finite(event.get("tested_samples"))) is not None:
            sizes["test"] = tested
    derived = [finite(event.get("tried")) for event in events if event.get("event") == "derived"]
    return Circumstances(
        machines=[one for place, one in enumerate(machines) if one not in machines[:place]],
        code=code,
        changed=sorted({name for one in codes for name, digest in one.items() if digest != code[name]}),
        samples={name: int(size) for name, size in sizes.items()},
        split=_numbers(begun[0].get("split")) if begun else {},
        training_s=_training_s(events),
        seconds=_seconds(events, len(begun)),
        processes=len(begun),
        derived=int(derived[-1] or 0) if derived else 0,
    )


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(one) for name, one in value.items()} if isinstance(value, Mapping) else {}


def _numbers(value: object) -> dict[str, float]:
    return finite_only(value) if isinstance(value, dict) else {}


def _training_s(events: Sequence[Mapping[str, object]]) -> float | None:
    """Each epoch counts once: what was trained twice, after a kill, is said twice."""
    logged = [event for event in events if event.get("event") == "epoch"]
    epochs = {str(event.get("epoch")): finite(event.get("seconds")) for event in logged}
    known = [seconds for seconds in epochs.values() if seconds is not None]
    return sum(known) if known and len(known) == len(epochs) else None


def _seconds(events: Sequence[Mapping[str, object]], processes: int) -> float | None:
    ends: list[float | None] = []
    for event in events:
        if event.get("event") in ("started", "resumed"):
            ends.append(None)
        elif event.get("event") in ("interrupted", "finished") and ends:
            ends[-1] = finite(event.get("seconds"))
    known = [seconds for seconds in ends if seconds is not None]
    return sum(known) if known and len(known) == processes else None
