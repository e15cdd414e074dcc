"""A training in a run folder: checkpoints at the cadence asked for, events, interruption, and going on."""

from __future__ import annotations

import hashlib
import re
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

import nnas_core
from nnas_core import random_state
from nnas_core.errors import EnvironmentFailure, InputError, Interrupted, NoResultError, UsageError, UserCodeError
from nnas_core.files import finite_only
from nnas_core.mutables.mutator import Mutator
from nnas_core.runs.checkpoint import read_checkpoint, write_checkpoint
from nnas_core.runs.folder import RunFolder
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.trainer import Callback, Trainer

__all__ = [
    "CheckpointCadence",
    "Recorder",
    "StopSignal",
    "check_space",
    "check_weights",
    "choose_device",
    "load_weights",
    "peak_memory_mb",
    "untouched_randomness",
    "weights_digest",
]

StopSignal = Callable[[], int | None]
"""Asked between steps: the number of the signal that asks to stop, or None."""


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        EnvironmentFailure: the machine has no such device.
        UsageError: no such name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"no device is named {name!r}", hint="use auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFailure(
            f"the device {name} is not there ({torch.cuda.device_count()} GPUs found)",
            hint="use --device cpu or auto",
        )
    return device


def peak_memory_mb(device: torch.device) -> float:
    """The most memory used so far, in MiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class CheckpointCadence:
    """When to write a checkpoint besides the end of each epoch.

    Args:
        text: steps (``"500"``), seconds (``"30s"``), minutes (``"5m"``), or None for epochs only.

    Raises:
        UsageError: something else.
    """

    def __init__(self, text: str | None) -> None:
        match = re.fullmatch(r"(\d+)([smh]?)", text) if text else None
        if text and (match is None or int(match[1]) == 0):
            raise UsageError(
                f"--checkpoint-every {text!r} is no cadence", hint="give steps (500) or time (30s, 5m, 1h)"
            )
        self._steps = int(match[1]) if match and not match[2] else None
        self._seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match and match[2] else None
        self._last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to write one after ``step`` steps."""
        if self._steps is not None:
            return step % self._steps == 0
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def written(self) -> None:
        """Start the clock again."""
        self._last = time.monotonic()


class Recorder(Callback):
    """Writes the events and checkpoints of a training, and stops it when asked.

    Args:
        run: the folder.
        facts: plain data for the header of each checkpoint: command, model, seed, ...
        space: of the model, None where there is nothing to decide.
        cadence: when to write besides epochs.
        should_stop: asked after every step.
    """

    def __init__(
        self,
        run: RunFolder,
        facts: Mapping[str, Any],
        space: SearchSpace | None,
        cadence: CheckpointCadence,
        should_stop: StopSignal,
    ) -> None:
        self._run = run
        self._facts = facts
        self._space = space
        self._cadence = cadence
        self._should_stop = should_stop
        self._kept: Architecture | None = None

    def build(self, model: nn.Module, mutator: Mutator | None, trainer: Trainer) -> None:
        super().build(model, mutator, trainer)
        self._look_at(model)

    def _look_at(self, model: nn.Module) -> None:
        # a mask of minus infinity is meant to be one
        self._never_finite = {name for name, value in model.state_dict().items() if not _is_finite(value)}
        self._looked_at = model

    def on_epoch_begin(self, epoch: int) -> None:
        if self.trainer.model is not self._looked_at:  # an algorithm of several stages began one with a new model
            self._look_at(self.trainer.model)

    def on_batch_end(self, epoch: int) -> None:
        number = self._should_stop()
        if number is not None:
            self._stop(number)
        if self._cadence.is_due(self.trainer.step):
            self.save()

    def on_validation_batch(self, epoch: int) -> None:
        number = self._should_stop()
        if number is not None:
            self._stop(number)

    def _stop(self, number: int) -> None:
        self.save()
        self._run.log("interrupted", step=self.trainer.step, signal=number)
        raise self._interrupted(number)

    def poll(self) -> None:
        """Stop after the training, while its result is measured.

        Raises:
            Interrupted: the last checkpoint has everything.
        """
        number = self._should_stop()
        if number is not None:
            raise self._interrupted(number)

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(
            number,
            f"interrupted; checkpoint at step {self.trainer.step}: {self._run.checkpoint}",
            hint=self._how_to_resume,
        )

    @property
    def _how_to_resume(self) -> str:
        return f"nnas {self._facts['command']} --resume {self._run.path}"

    def train(self) -> None:
        """Run the trainer to its end; where it diverges, say what is left.

        Raises:
            NoResultError: the loss or the weights are not finite.
            Interrupted: at once, by a second signal.
        """
        try:
            self.trainer.train()
        except KeyboardInterrupt as error:
            kept = self._run.checkpoint
            left = f"the last checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet"
            raise Interrupted(self._should_stop() or 2, f"stopped at once; {left}", hint=self._how_to_resume) from error
        except NoResultError as error:
            kept = self._run.checkpoint
            left = f"the last good checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet"
            raise NoResultError(f"{error.message}; {left}", where=error.where, hint=error.hint) from error

    def on_epoch_end(self, epoch: int) -> None:
        record = self.trainer.history[-1]
        self.save()
        self._run.log(
            "epoch",
            epoch=record.epoch,
            step=self.trainer.step,
            train=finite_only(record.train),
            valid=finite_only(record.valid),
            samples_per_second=record.samples_per_second,
        )

    def keep(self, architecture: Architecture) -> None:
        """Let ``architecture`` be the final one from here on, and save it."""
        self._kept = architecture
        self.save()

    def final_architecture(self) -> Architecture | None:
        """What was kept, or the mutator would export now; drawing it leaves all random states as they are."""
        if self._kept is not None or self.mutator is None or self._space is None:
            return self._kept
        with untouched_randomness(self.trainer.generators):
            return self.mutator.final_architecture()

    def save(self) -> None:
        """Write the checkpoint, and the architecture beside it.

        Raises:
            NoResultError: a weight is not finite; the checkpoint before stays.
        """
        self._require_finite()
        architecture = self.final_architecture()
        header = {
            "nnas": nnas_core.__version__,
            "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(),
            **self._facts,
            "model_arg": {**self._facts.get("model_arg", {}), **self.trainer.model_arguments},
            "progress": {
                "epoch": self.trainer.epoch,
                "epochs": self.trainer.epochs,
                "batch": self.trainer.batch,
                "step": self.trainer.step,
            },
            "metrics": finite_only(self.trainer.history[-1].valid) if self.trainer.history else {},
        }
        if self._space is not None:
            header["space"] = self._space.to_json()
            header["fingerprint"] = self._space.fingerprint
        if architecture is not None:
            header["architecture"] = architecture.masks()
        try:
            write_checkpoint(self._run.checkpoint, header, {"state": self.trainer.state_dict()})
        except TypeError as error:
            raise UserCodeError(
                f"the state of the training cannot be saved: {error}",
                hint="look at the optimizer, the scheduler, the mutator and the model's extra state",
            ) from error
        if architecture is not None:
            self._run.write("architecture.json", architecture.masks())
        self._cadence.written()

    def _require_finite(self) -> None:
        """A loss may be finite and its gradient not: such weights must not replace good ones."""
        mutator = self.trainer.mutator
        of_mutator = dict(mutator.named_parameters()) if mutator is not None else {}
        for kind, state in (("weights", self.trainer.model.state_dict()), ("architecture parameters", of_mutator)):
            for name, value in state.items():
                if not (kind == "weights" and name in self._never_finite) and not _is_finite(value):
                    raise NoResultError(
                        f"the {kind} are not finite ({name}) after step {self.trainer.step}",
                        hint="lower the learning rate, set --clip-grad, or look for bad input data",
                    )

    def restore(self) -> list[str]:
        """Load the newest checkpoint, if one was written, into the trainer.

        Returns:
            What is not as it was and may change the bits of the result.

        Raises:
            InputError: it is damaged or of another model.
        """
        if not self._run.checkpoint.exists():
            return []
        content = read_checkpoint(self._run.checkpoint)
        header = content["header"]
        if self._space is not None:
            check_space(header, self._space, str(self._run.checkpoint))
        self.trainer.prepare_for(content["state"])
        self._look_at(self.trainer.model)
        check_weights(self.trainer.model, content["state"]["model"], str(self._run.checkpoint))
        self.trainer.load_state_dict(content["state"])
        now = {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}
        return [f"{name} {header[name]} -> {value}" for name, value in now.items() if header[name] != value]


def _is_finite(value: Any) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()))


@contextmanager
def untouched_randomness(generators: Mapping[str, torch.Generator]) -> Iterator[None]:
    """Leave all global random states, and those of ``generators``, as they were before the block."""
    before = random_state.capture()
    private = {name: generator.get_state() for name, generator in generators.items()}
    try:
        yield
    finally:
        random_state.restore(before)
        for name, generator in generators.items():
            generator.set_state(private[name])


def check_space(header: Mapping[str, Any], space: SearchSpace, where: str) -> None:
    """Refuse a checkpoint of another search space.

    Raises:
        InputError: with a line for each key that differs.
    """
    if "space" not in header:
        raise InputError(
            "is no checkpoint of a supernet, it has no search space",
            where=where,
            hint="take one of `nnas search`",
        )
    theirs = SearchSpace.from_json(header["space"], where)
    if theirs != space:
        raise InputError(
            "belongs to another search space",
            where=where,
            problems=space.differences(theirs, ("the model", "the checkpoint")),
            hint="take the checkpoint of this model, and the same --model-arg as then",
        )


def check_weights(model: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Refuse weights of another model, before anything is loaded.

    Raises:
        InputError: with the first differences of names and shapes.
    """
    own = model.state_dict()
    problems = [f"{name}: missing in the checkpoint" for name in own if name not in weights]
    problems += [f"{name}: not in the model" for name in weights if name not in own]
    problems += [
        f"{name}: shape {list(weights[name].shape)} in the checkpoint, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = [f"and {len(problems) - 3} more"] if len(problems) > 3 else []
        raise InputError(
            f"the weights are of another model ({len(problems)} differences)",
            where=where,
            problems=problems[:3] + more,
            hint="give the --model-arg that the checkpoint was made with",
        )


def load_weights(model: nn.Module, path: str | Path, space: SearchSpace) -> dict[str, Any]:
    """Load a supernet's weights from a checkpoint of ``nnas search``.

    Returns:
        The checkpoint's header.

    Raises:
        InputError: it cannot be read, or is of another space or model.
    """
    content = read_checkpoint(path)
    check_space(content["header"], space, str(path))
    check_weights(model, content["state"]["model"], str(path))
    model.load_state_dict(content["state"]["model"])
    header: dict[str, Any] = content["header"]
    return header


def weights_digest(model: nn.Module) -> str:
    """``sha256:`` and the beginning of the hash of all weights and buffers: equal for equal bits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"
