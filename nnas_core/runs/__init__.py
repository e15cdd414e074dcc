"""Run folders: everything of one training in one place, so that it goes on after any end.

    Recorder (a Callback) --> RunFolder: config.json, events.jsonl, search_space.json, architecture.json
                          --> write_checkpoint: checkpoint.pt  --> read_checkpoint, load_weights

Begin with ``RunFolder``, which one process locks at a time, and ``Recorder``, which writes into it while a trainer
runs. A checkpoint holds tensors and plain data only, and is trusted in nothing when it is read.

Names are loaded when they are first used: a ``RunFolder`` needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.runs.cadence import CheckpointCadence as CheckpointCadence
    from nnas_core.runs.checkpoint import Checkpoint as Checkpoint
    from nnas_core.runs.checkpoint import CheckpointHeader as CheckpointHeader
    from nnas_core.runs.checkpoint import read_checkpoint as read_checkpoint
    from nnas_core.runs.checkpoint import write_checkpoint as write_checkpoint
    from nnas_core.runs.folder import RunFolder as RunFolder
    from nnas_core.runs.recording import Recorder as Recorder
    from nnas_core.runs.recording import StopSignal as StopSignal
    from nnas_core.runs.recording import Usage as Usage
    from nnas_core.runs.summary import RunSummary as RunSummary
    from nnas_core.runs.summary import find_runs as find_runs
    from nnas_core.runs.summary import read_run as read_run
    from nnas_core.runs.trained import Trained as Trained
    from nnas_core.runs.trained import read_trained as read_trained
    from nnas_core.runs.weights import load_weights as load_weights
    from nnas_core.runs.weights import weights_digest as weights_digest
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Checkpoint": "checkpoint",
            "CheckpointCadence": "cadence",
            "CheckpointHeader": "checkpoint",
            "Recorder": "recording",
            "RunFolder": "folder",
            "RunSummary": "summary",
            "StopSignal": "recording",
            "Trained": "trained",
            "Usage": "recording",
            "find_runs": "summary",
            "load_weights": "weights",
            "read_checkpoint": "checkpoint",
            "read_run": "summary",
            "read_trained": "trained",
            "weights_digest": "weights",
            "write_checkpoint": "checkpoint",
        },
    )
