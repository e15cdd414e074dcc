"""A training in a run folder: events, checkpoints, and an end in good order when somebody asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

import nnas_core
from nnas_core import random_state
from nnas_core.errors import InputError, Interrupted, NoResultError, UsageError, UserCodeError
from nnas_core.files import finite_only
from nnas_core.mutables.mutator import Mutator
from nnas_core.runs.cadence import CheckpointCadence
from nnas_core.runs.checkpoint import (
    Checkpoint,
    RunFacts,
    read_checkpoint,
    taking_state,
    write_checkpoint,
)
from nnas_core.runs.decision_weights import recorded_weights
from nnas_core.runs.digests import Digests
from nnas_core.runs.folder import RunFolder
from nnas_core.runs.machine import machine_changes, machine_facts, machine_of
from nnas_core.runs.weights import changes, check_run, check_space, check_weights
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.device import peak_memory_mb
from nnas_core.training.loader_processes import loader_died
from nnas_core.training.optimizers import longer_schedule
from nnas_core.training.state_form import check_state
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["Recorder", "StopSignal", "Usage"]

StopSignal = Callable[[], int | None]
"""Asked between steps: the number of the signal that asks to stop, or None."""


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
        self._facts = facts.copy()
        self._space = space
        self._cadence = cadence
        self._should_stop = should_stop
        self._kept: Architecture | None = None
        self._written: Architecture | None = None
        self._logged: set[int] = set()  # epochs that events.jsonl has
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
        self.save()
        self._log_epochs()

    def _log_epochs(self) -> None:
        """Log each epoch once: the last one may lack its line, and those after an older checkpoint have theirs."""
        count = self.trainer.weightless.count
        for record in self.trainer.history:
            if record.epoch not in self._logged:
                is_last = record is self.trainer.history[-1]
                self._run.log(
                    "epoch",
                    epoch=record.epoch,
                    step=record.step or self.trainer.step,
                    train=finite_only(record.train),
                    valid=finite_only(record.valid),
                    seconds=record.seconds,
                    samples_per_second=record.samples_per_second,
                    **({"weightless_passes": count} if count and is_last else {}),
                    **(self._decision_weights(record.epoch) if is_last else {}),
                )
                self._logged.add(record.epoch)

    def _decision_weights(self, epoch: int) -> dict[str, object]:
        """Those of now, which are those after ``epoch`` unless a step came since."""
        if self.mutator is None or self._space is None or self.trainer.batch:
            return {}
        weights = recorded_weights(self.mutator, self._space, epoch, self.trainer.epochs)
        return {} if weights is None else {"decision_weights": weights}

    # ---- the end in good order

    def _stop_if_asked(self) -> None:
        number = self._should_stop()
        if number is not None:
            self.save()
            took = time.perf_counter() - self._started
            self._run.log("interrupted", step=self.trainer.step, signal=number, seconds=took)
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
            Interrupted: at once, by a second signal, or by one that ended a loader process too.
        """
        try:
            self.trainer.train()
        except (KeyboardInterrupt, RuntimeError) as error:
            number = self._should_stop()
            if number is None or not (isinstance(error, KeyboardInterrupt) or loader_died(error)):
                raise
            raise Interrupted(
                number,
                f"stopped at once; the last checkpoint is {self._run.checkpoint}",
                hint=f"resume the run {self._run.path}",
            ) from error
        except NoResultError as error:
            message = f"{error.message}; the last good checkpoint is {self._run.checkpoint}"
            raise NoResultError(message, where=error.where, hint=error.hint) from error

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

    def keep(self, architecture: Architecture | None) -> None:
        """Let ``architecture`` be the final one from here on, None: the mutator's own; saved if it is another one."""
        self._kept = architecture
        if self.final_architecture() != self._written:
            self.save()

    def final_architecture(self) -> Architecture | None:
        """The one that was kept, or that the mutator would export now; drawing it leaves all random states alone."""
        if self._kept is not None or self.mutator is None or self._space is None:
            return self._kept
        with random_state.untouched(self.trainer.generators):
            return self.mutator.final_architecture()

    # ---- checkpoints

    def save(self) -> None:
        """Write the checkpoint, and the architecture beside it; the checkpoint before is kept under its own name.

        Raises:
            NoResultError: a weight is not finite; the checkpoint before stays.
        """
        self._require_finite()
        architecture = self.final_architecture()
        self._write_checkpoint(self._run.checkpoint, architecture, self._run.previous_checkpoint)
        self._write_architecture(architecture)
        self._cadence.written()

    def _write_checkpoint(self, path: Path, architecture: Architecture | None, keep: Path | None = None) -> None:
        try:
            write_checkpoint(path, self._header(architecture), {"state": self.trainer.state_dict()}, keep)
        except TypeError as error:
            raise UserCodeError(
                f"the state of the training cannot be saved: {error}",
                hint="look at the optimizer, the scheduler, the mutator and the model's extra state",
            ) from error

    def _write_architecture(self, architecture: Architecture | None) -> None:
        if architecture is not None:
            self._run.write("architecture.json", architecture.masks())
        self._written = architecture

    def _header(self, architecture: Architecture | None) -> dict[str, object]:
        trainer = self.trainer
        header: dict[str, object] = {
            "nnas": nnas_core.__version__,
            **machine_facts(),
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

    def begin(
        self,
        configuration: Mapping[str, object],
        documents: Mapping[str, object],
        digests: Digests,
        warn: Callable[[str], None],
        **started: object,
    ) -> None:
        """Go on from the newest checkpoint, or let a new run take the place of what is in the folder.

        Args:
            configuration: for ``config.json``.
            documents: further JSON files by name.
            digests: of code and data, for the header of each checkpoint and the events.
            warn: told, in one line each, of what a run that goes on has otherwise than before.
            started: for the event of a new run.

        Raises:
            InputError: the checkpoints are damaged, or of another run; no file has changed.
        """
        self._facts["digests"] = digests
        if self._run.goes_on:
            for line in self.restore():
                warn(line)
        else:
            with self._run.beginning(configuration) as first:
                self._write_checkpoint(first, None)  # before the first step nothing is found
        for name, document in documents.items():
            if not (self._run.path / name).exists():
                self._run.write(name, document)
        ran = {"code": digests.get("code", {}), "machine": machine_of(self.trainer.device).to_json()}
        # a kill may have come between a checkpoint and its events
        events = self._run.events()
        logged = (event.get("epoch") for event in events if event.get("event") == "epoch")
        self._logged = {epoch for epoch in logged if isinstance(epoch, int)}
        if not any(event.get("event") == "started" for event in events):
            self._run.log("started", **started, **ran, samples=digests.get("samples", {}))
        self._log_epochs()
        if self._run.goes_on:
            self._run.log("resumed", step=self.trainer.step, **ran)

    def restore(self) -> list[str]:
        """Load the newest checkpoint into the trainer, or the one before it if that is damaged.

        Returns:
            Lines that say what is otherwise than before, and may change the result.

        Raises:
            InputError: both are damaged, or it is of another run or model.
        """
        content, path, lines = self._read()
        header, where = content["header"], str(path)
        check_run(header, self._facts, where)
        if self._space is not None:
            check_space(header, self._space, where)
        before = header["progress"]["epochs"]
        self._refuse_other_stages(before)
        with taking_state(where):
            state = content["state"]
            self.trainer.prepare_for(state)
            self._look_at(self.trainer.model)
            check_weights(self.trainer.model, state["model"], where)
            check_state(state, self.trainer.state_dict(), header["progress"])
            self.trainer.load_state_dict(state)
            if before != self.trainer.epochs and self.trainer.scheduler is not None:
                self.trainer.scheduler = longer_schedule(self.trainer.optimizer, self._schedule, state["scheduler"])
        if path == self._run.previous_checkpoint:
            self._run.fall_back()
        if "architecture" in header and self._space is not None:  # a kill may have come between the two files
            self._write_architecture(self._space.parse(header["architecture"], where))
        lines += [f"resume differs: {one}; the result may differ in its last bits" for one in machine_changes(header)]
        return lines + [f"resume differs: {one}" for one in changes(header, self._facts)]

    def _read(self) -> tuple[Checkpoint, Path, list[str]]:
        """The newest checkpoint that can be read, its file, and a line that says so if it is not the newest."""
        newest, before = self._run.checkpoint, self._run.previous_checkpoint
        try:
            return read_checkpoint(newest), newest, []
        except InputError as error:
            if not before.exists():
                raise
            try:
                content = read_checkpoint(before)
            except InputError as second:
                raise InputError(
                    f"{error.message}, and so is the checkpoint before it",
                    where=error.where,
                    problems=[*error.problems, str(second)],
                    hint="put one of them back, or start over with `force`",
                ) from error
            step = content["header"]["progress"]["step"]
            return content, before, [f"{error}; going on from the checkpoint before it, at step {step}"]

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


def _is_finite(value: object) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()))
