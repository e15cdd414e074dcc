"""The settings that cross to a Ray cluster, with the JSON form of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nnas_core.execution.commands import LocalSettings
from nnas_core.execution.work import CommandTrials, TrialKind, WorkerTrials
from nnas_core.space.choice import Choice

__all__ = ["DriverSettings", "NodeSettings"]


@dataclass(frozen=True)
class NodeSettings:
    """Says how an engine on a node works.

    Attributes:
        kind: what a trial is.
        space: whose architectures come, as JSON.
        local: how trials run there.
        cwd: the folder to work in.
        path: where else to import from.
    """

    kind: TrialKind
    space: Mapping[str, Any]
    local: LocalSettings
    cwd: str
    path: Sequence[str]

    @property
    def choices(self) -> dict[str, Choice]:
        """Holds the choices of the space by key."""
        return {key: Choice.from_json(key, entry) for key, entry in self.space.items()}

    def of_actor(self, number: int) -> NodeSettings:
        """Returns the settings of one actor of many: their workers have logs of one name, in folders of their own."""
        if isinstance(self.kind, CommandTrials):
            return self
        return replace(self, local=replace(self.local, folder=self.local.folder / f"ray-{number}"))

    def to_json(self) -> dict[str, object]:
        """Returns the settings as a JSON object."""
        document = asdict(self)
        document["local"]["folder"] = str(self.local.folder)
        document["local"]["work_in"] = None  # the engine itself works in ``cwd``
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NodeSettings:
        """Reads what ``to_json`` wrote; GPUs are not looked at, Ray assigns them."""
        kind, local = document["kind"], document["local"]
        return cls(
            kind=CommandTrials(**kind) if "command" in kind else WorkerTrials(**kind),
            space=document["space"],
            local=LocalSettings(**{**local, "folder": Path(local["folder"]), "gpus": ()}),
            cwd=document["cwd"],
            path=document["path"],
        )


@dataclass(frozen=True)
class DriverSettings:
    """Says how the process that is connected to a cluster works.

    Attributes:
        address: of the cluster; None: it starts one.
        cpus, gpus: how many that one has.
        gpu_each: a trial gets a GPU, alone.
        idle_s: how long what a trial had is kept for the next one.
        temporary: a folder for a cluster of its own, else None.
        node: how an engine on a node works.
    """

    address: str | None
    cpus: int
    gpus: int
    gpu_each: bool
    idle_s: float
    temporary: str | None
    node: NodeSettings

    def to_json(self) -> dict[str, object]:
        """Returns the settings as a JSON object."""
        return {**vars(self), "node": self.node.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DriverSettings:
        """Reads what ``to_json`` wrote."""
        return cls(**{**document, "node": NodeSettings.from_json(document["node"])})
