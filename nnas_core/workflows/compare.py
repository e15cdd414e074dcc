"""``nnas compare``: runs and studies in the same words, and in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnas_core.runs.summary import read_architecture, read_run
from nnas_core.space.architecture import Architecture
from nnas_core.study.storage.store import StudyStore

__all__ = ["Compared", "compare_run", "compare_study", "differing_options"]


@dataclass(frozen=True)
class Compared:
    """A run or a study.

    Attributes:
        name: the folder, or the name of the study.
        kind: ``"search"``, ``"retrain"`` or ``"study"``.
        algorithm: the mutator, or the tuner; None for a training of one architecture.
        state: as ``nnas runs`` and ``nnas study list`` have it.
        done, wanted: epochs, or trials that ended; None for no limit.
        metrics: the last ones; of a study those of its best trial, and its ``value``.
        measured_on: the data of the metrics, ``"validation"`` or ``"test"``; None for a study, which records that in
            its options.
        options: by name, what it was started with.
        architecture: the final one so far, or the best; None where there is none.
    """

    name: str
    kind: str
    algorithm: str | None
    state: str
    done: int
    wanted: int | None
    metrics: Mapping[str, float]
    measured_on: str | None
    options: Mapping[str, object]
    architecture: Architecture | None

    def to_json(self) -> dict[str, object]:
        """Returns everything, the architecture as masks."""
        return {
            "name": self.name,
            "kind": self.kind,
            "algorithm": self.algorithm,
            "state": self.state,
            "done": self.done,
            "wanted": self.wanted,
            "metrics": dict(self.metrics),
            "measured_on": self.measured_on,
            "options": dict(self.options),
            "architecture": None if self.architecture is None else self.architecture.masks(),
        }


def compare_run(folder: str) -> Compared:
    """Returns what a run folder says, see ``nnas_core.runs.summary``.

    Raises:
        InputError: it holds no run, or is damaged.
    """
    run = read_run(folder)
    return Compared(
        name=folder,
        kind=run.command or "",
        algorithm=run.mutator,
        state=run.state,
        done=run.epochs,
        wanted=run.wanted,
        metrics=run.metrics,
        measured_on=run.measured_on,
        options=run.options,
        architecture=read_architecture(folder),
    )


def compare_study(store: StudyStore, name: str) -> Compared:
    """Returns what a study says.

    Args:
        store: where it is.
        name: of the study, or enough of its beginning.

    Raises:
        InputError: there is none, or it is damaged.
    """
    status = store.status(store.find(name))
    made, best = status.study.settings, status.best
    arguments = {f"tuner_arg.{key}": value for key, value in made.tuner_args.items()}
    value = {} if best is None or best.value is None else {"value": best.value}
    return Compared(
        name=status.study.name,
        kind="study",
        algorithm=made.tuner,
        state=status.study.state,
        done=status.finished,
        wanted=status.limits["trials"],
        metrics={**value, **({} if best is None else best.metrics)},
        measured_on=None,
        options={**made.config, **arguments, "tuner": made.tuner, "seed": made.seed},
        architecture=None if best is None else best.architecture,
    )


def differing_options(compared: Sequence[Compared]) -> list[str]:
    """Returns the names of options, sorted, that two have and not with the same value."""
    values: dict[str, list[object]] = {}
    for one in compared:
        for name, value in one.options.items():
            values.setdefault(name, []).append(value)
    return sorted(name for name, found in values.items() if any(value != found[0] for value in found))
