"""What training left: a checkpoint of a supernet, or a run folder; weights, architecture, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from nnas_core.errors import ArchitectureError, InputError
from nnas_core.files import finite_only, read_json
from nnas_core.runs.checkpoint import CheckpointHeader, read_checkpoint, read_plain
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.summary import read_run
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace

__all__ = ["Trained", "read_trained"]


@dataclass(frozen=True)
class Trained:
    """Weights with their architecture.

    Attributes:
        path: of the checkpoint, or of the weights of a retraining.
        space: of all architectures.
        architecture: the final one; None: a search at its beginning has none.
        weights: ``state_dict`` of the supernet, or of the network that was trained alone.
        alone: true if they are of the architecture alone.
        header: of the checkpoint; of a retraining, that of its newest.
        task: the file with data that the run was given.
        metrics: of a retraining, on the data of ``nnas retrain``'s report.
        cost: of a retraining: ``parameters`` and ``macs``.
    """

    path: str
    space: SearchSpace
    architecture: Architecture | None
    weights: Mapping[str, Tensor]
    alone: bool
    header: CheckpointHeader
    task: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    def chosen(self, document: object | None, where: str | None) -> Architecture:
        """The architecture of a document, or the final one.

        Args:
            document: in any form; None: the final one.
            where: its file, for errors.

        Raises:
            ArchitectureError: it does not fit the space, or the weights are of another one alone.
            InputError: there is none yet.
        """
        if document is None:
            if self.architecture is None:
                raise InputError(
                    "has no architecture yet: it is of the beginning of a search",
                    where=self.path,
                    hint="let the search go on, or give `architecture`",
                )
            return self.architecture
        found = self.space.parse(document, where)
        if self.alone and self.architecture is not None and found.canonical != self.architecture.canonical:
            raise ArchitectureError(
                "is another architecture than the one that was trained alone",
                where=where,
                hint="leave it out, or give the checkpoint of the search",
            )
        return found


def read_trained(path: str) -> Trained:
    """Read a checkpoint of ``nnas search``, or the folder of a run of ``nnas search`` or ``nnas retrain``.

    Raises:
        InputError: neither; or a file of the folder is missing (it is named) or damaged.
    """
    place = Path(path)
    if not place.is_dir():
        return _of_checkpoint(path, place.parent)
    if not (place / "config.json").is_file() and (place / "checkpoint.pt").is_file():
        return _of_checkpoint(str(place / "checkpoint.pt"), place)
    run = read_run(path)
    if run.command == "search":
        return _of_checkpoint(str(_part(place, "checkpoint.pt")), place)
    return _of_retraining(place)


def _of_checkpoint(path: str, folder: Path) -> Trained:
    content = read_checkpoint(path)
    header = content["header"]
    if "space" not in header:
        raise InputError(
            "has no architecture: it is of a plain model",
            where=path,
            hint="take one of `nnas search`, or the folder of the run",
        )
    space = SearchSpace.from_json(header["space"], path)
    return Trained(
        path=path,
        space=space,
        architecture=space.parse(header["architecture"], path) if "architecture" in header else None,
        weights=content["state"].get("model", {}),
        alone=False,
        header=header,
        task=_task_of(folder, "search"),
    )


def _task_of(folder: Path, command: str) -> str | None:
    if not (folder / "config.json").is_file():
        return None
    document = read_json(folder / "config.json")
    options = document.get(command) if isinstance(document, dict) else None
    task = options.get("task") if isinstance(options, dict) else None
    return task if isinstance(task, str) else None


def _part(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        hint = "let the run end first: resume it" if name == "weights.pt" else "put it back, or run it again"
        raise InputError("there is no such file, the run folder is not whole", where=str(file), hint=hint)
    return file


def _of_retraining(folder: Path) -> Trained:
    space_file, chosen = _part(folder, "search_space.json"), _part(folder, "architecture.json")
    weights = _part(folder, "weights.pt")
    space = SearchSpace.from_json(read_json(space_file), str(space_file))
    state = read_plain(weights)
    wrong = [name for name in state if not isinstance(name, str)]
    if wrong:
        raise InputError("is damaged: its weights have no names", where=str(weights))
    ended = [event for event in RunFolder(folder).events() if event.get("event") == "finished"]
    last: Mapping[str, Any] = ended[-1] if ended else {}
    return Trained(
        path=str(weights),
        space=space,
        architecture=space.parse(read_json(chosen), str(chosen)),
        weights=cast("dict[str, Tensor]", state),
        alone=True,
        header=read_checkpoint(_part(folder, "checkpoint.pt"))["header"],
        task=_task_of(folder, "retrain"),
        metrics=finite_only(last.get("test") or {}),
        cost=finite_only(last.get("cost") or {}),
    )
