"""A training in a run folder: events, checkpoints, and an end in good order when somebody asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

import nnas_core
from nnas_core import random_state
from nnas_core.errors import Interrupted, NoResultError, UsageError, UserCodeError
from nnas_core.files import finite_only
from nnas_core.mutables.mutator import Mutator
from nnas_core.runs.checkpoint import CheckpointHeader, RunFacts, read_checkpoint, write_checkpoint
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.weights import check_space, check_weights
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.device import peak_memory_mb
from nnas_core.training.optimizers import longer_schedule
from nnas_core.training.settings import cadence
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["CheckpointCadence", "Recorder", "StopSignal", "Usage"]

StopSignal = Callable[[], int | None]
"""Asked between steps: the number of the signal that asks to stop, or None."""


class CheckpointCadence:
    """Says when to write a checkpoint besides the end of each epoch.

    Args:
        text: as ``cadence`` reads it, or None for epochs only.

    Raises:
        UsageError: something else.
    """

    def __init__(self, text: str | None) -> None:
        self._steps, self._seconds = (None, None) if text is None else cadence(text)
        self._last = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Returns true if one is to be written after ``step`` steps."""
        if self._steps is not None:
            return step % self._steps == 0
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds

    def written(self) -> None:
        """Start the clock again."""
        self._last = time.monotonic()


@dataclass(frozen=True)
class Usage:
    """Time and memory that a run took.

    Attributes:
        epochs: finished in all.
        seconds: wall time of this process.
        samples_per_second: training throughput of the last epoch.
        peak_memory_mb: of the GPU, or of the process.
        device: where it ran.
    """

    epochs: int
    seconds: float
    samples_per_second: float
    peak_memory_mb: float
    device: str


class Recorder(Callback):
    """Writes the events and checkpoints of a training, and stops it when asked.

    Args:
        run: the folder.
        facts: for the header of each checkpoint.
        space: of the model, None where there is nothing to decide.
        cadence: when to write besides epochs.
        should_stop: asked after every step.
        started: when the run began, as ``time.perf_counter`` said; None: now.
    """

    def __init__(
        self,
        run: RunFolder,
        facts: RunFacts,
        space: SearchSpace | None,
        cadence: CheckpointCadence,
        should_stop: StopSignal,
        started: float | None = None,
    ) -> None:
        self._run = run
        self._facts = facts
        self._space = space
        self._cadence = cadence
        self._should_stop = should_stop
        self._kept: Architecture | None = None
        self._started = time.perf_counter() if started is None else started

    def build(self, model: nn.Module, mutator: Mutator | None, trainer: Trainer) -> None:
        super().build(model, mutator, trainer)
        self._look_at(model)

    def _look_at(self, model: nn.Module) -> None:
        # a mask of minus infinity is meant to be one
        self._never_finite = {name for name, value in model.state_dict().items() if not _is_finite(value)}
        self._looked_at = model

    # ---- hooks of the loop

    def on_epoch_begin(self, epoch: int) -> None:
        if self.trainer.model is not self._looked_at:  # an algorithm of several stages began one with a new model
            self._look_at(self.trainer.model)

    def on_batch_end(self, epoch: int) -> None:
        self._stop_if_asked()
        if self._cadence.is_due(self.trainer.step):
            self.save()

    def on_validation_batch(self, epoch: int) -> None:
        self._stop_if_asked()

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
            **({"weightless_passes": self.trainer.weightless.count} if self.trainer.weightless.count else {}),
        )

    # ---- the end in good order

    def _stop_if_asked(self) -> None:
        number = self._should_stop()
        if number is not None:
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
        where = f"checkpoint at step {self.trainer.step}: {self._run.checkpoint}"
        return Interrupted(number, f"interrupted; {where}", hint=f"resume the run {self._run.path}")

    def train(self) -> None:
        """Run the trainer to its end; where it diverges, say what is left.

        Raises:
            NoResultError: the loss or the weights are not finite.
            Interrupted: at once, by a second signal.
        """
        try:
            self.trainer.train()
        except KeyboardInterrupt as error:
            raise Interrupted(
                self._should_stop() or 2,
                f"stopped at once; {self._left('the last checkpoint')}",
                hint=f"resume the run {self._run.path}",
            ) from error
        except NoResultError as error:
            message = f"{error.message}; {self._left('the last good checkpoint')}"
            raise NoResultError(message, where=error.where, hint=error.hint) from error

    def _left(self, name: str) -> str:
        kept = self._run.checkpoint
        return f"{name} is {kept}" if kept.exists() else "there is no checkpoint yet"

    # ---- results

    def usage(self) -> Usage:
        """Time and memory so far."""
        return Usage(
            epochs=len(self.trainer.history),
            seconds=time.perf_counter() - self._started,
            samples_per_second=self.trainer.history[-1].samples_per_second,
            peak_memory_mb=peak_memory_mb(self.trainer.device),
            device=str(self.trainer.device),
        )

    def finish(self, **results: object) -> Usage:
        """Log the end of the run with its results."""
        usage = self.usage()
        self._run.log(
            "finished",
            **results,
            seconds=usage.seconds,
            samples_per_second=usage.samples_per_second,
            peak_memory_mb=usage.peak_memory_mb,
        )
        return usage

    def keep(self, architecture: Architecture) -> None:
        """Let ``architecture`` be the final one from here on, and save it."""
        self._kept = architecture
        self.save()

    def final_architecture(self) -> Architecture | None:
        """The one that was kept, or that the mutator would export now; drawing it leaves all random states alone."""
        if self._kept is not None or self.mutator is None or self._space is None:
            return self._kept
        with random_state.untouched(self.trainer.generators):
            return self.mutator.final_architecture()

    # ---- checkpoints

    def save(self) -> None:
        """Write the checkpoint, and the architecture beside it.

        Raises:
            NoResultError: a weight is not finite; the checkpoint before stays.
        """
        self._require_finite()
        architecture = self.final_architecture()
        try:
            write_checkpoint(self._run.checkpoint, self._header(architecture), {"state": self.trainer.state_dict()})
        except TypeError as error:
            raise UserCodeError(
                f"the state of the training cannot be saved: {error}",
                hint="look at the optimizer, the scheduler, the mutator and the model's extra state",
            ) from error
        if architecture is not None:
            self._run.write("architecture.json", architecture.masks())
        self._cadence.written()

    def _header(self, architecture: Architecture | None) -> dict[str, object]:
        trainer = self.trainer
        header: dict[str, object] = {
            "nnas": nnas_core.__version__,
            **_machine(),
            **self._facts,
            "model_arg": {**self._facts.get("model_arg", {}), **trainer.model_arguments},
            "progress": {
                "epoch": trainer.epoch,
                "epochs": trainer.epochs,
                "batch": trainer.batch,
                "step": trainer.step,
            },
            "metrics": finite_only(trainer.history[-1].valid) if trainer.history else {},
        }
        if self._space is not None:
            header.update(space=self._space.to_json(), fingerprint=self._space.fingerprint)
        if architecture is not None:
            header["architecture"] = architecture.masks()
        return header

    def _require_finite(self) -> None:
        """Refuse weights that are not finite: a loss may be so and its gradient not."""
        mutator = self.trainer.mutator
        of_mutator = dict(mutator.named_parameters()) if mutator is not None else {}
        for kind, state in (("weights", self.trainer.model.state_dict()), ("architecture parameters", of_mutator)):
            for name, value in state.items():
                if not (kind == "weights" and name in self._never_finite) and not _is_finite(value):
                    raise NoResultError(
                        f"the {kind} are not finite ({name}) after step {self.trainer.step}",
                        hint="lower the learning rate, set `clip_grad`, or look for bad input data",
                    )

    def resume(self, warn: Callable[[str], None]) -> None:
        """Load the newest checkpoint into the trainer, and log it.

        Args:
            warn: told, in one line each, of differences that may change the bits of the result.

        Raises:
            InputError: it is damaged or of another model.
        """
        for difference in self.restore():
            warn(f"resume differs: {difference}; the result may differ in its last bits")
        self._run.log("resumed", step=self.trainer.step)

    def restore(self) -> list[str]:
        """Load the newest checkpoint, if one was written, into the trainer.

        Returns:
            Differences from then that may change the bits of the result.

        Raises:
            InputError: it is damaged or of another model.
        """
        if not self._run.checkpoint.exists():
            return []
        content = read_checkpoint(self._run.checkpoint)
        header, state = content["header"], content["state"]
        if self._space is not None:
            check_space(header, self._space, str(self._run.checkpoint))
        before = header["progress"]["epochs"]
        self._refuse_other_stages(before)
        self.trainer.prepare_for(state)
        self._look_at(self.trainer.model)
        check_weights(self.trainer.model, state["model"], str(self._run.checkpoint))
        self.trainer.load_state_dict(state)
        if before != self.trainer.epochs and self.trainer.scheduler is not None:
            self.trainer.scheduler = longer_schedule(self.trainer.optimizer, self._schedule, state["scheduler"])
        return _differences(header)

    def _schedule(self) -> torch.optim.lr_scheduler.LRScheduler | None:
        return self.trainer.task.build_scheduler(self.trainer.optimizer, self.trainer.schedule_steps)

    def _refuse_other_stages(self, before: int) -> None:
        if before != self.trainer.epochs and self.trainer.in_stages:
            raise UsageError(
                f"the {before} epochs of this run were divided among stages, and {self.trainer.epochs} would be "
                "divided in another way",
                where=str(self._run.path),
                hint="begin a new run with so many `epochs`",
            )


def _machine() -> dict[str, object]:
    """Facts of this process that may change the last bits of a result."""
    return {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}


def _differences(header: CheckpointHeader) -> list[str]:
    before: Mapping[str, object] = header
    return [f"{name} {before[name]} -> {value}" for name, value in _machine().items() if before[name] != value]


def _is_finite(value: object) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()))
