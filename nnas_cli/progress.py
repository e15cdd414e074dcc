"""The progress of a training: a plain line an epoch, and on a terminal bars and losses below them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch.nn as nn
from torch.nn.parameter import UninitializedParameter

from nnas_cli.bars import Pinned, bar
from nnas_cli.output import Output
from nnas_cli.studies import span
from nnas_core.mutables.mutator import Mutator
from nnas_core.space.sizes import size_in_words
from nnas_core.training.trainer import Callback, Trainer

if TYPE_CHECKING:
    from rich.text import Text

    from nnas_core.runs.recording import Usage
    from nnas_core.workflows.derive import DerivationState

__all__ = ["TrainingProgress", "described", "usage_rows"]


def described(metrics: dict[str, float]) -> str:
    """``accuracy 0.9312, loss 0.2514``; ``recall without a value`` for what no batch had one of."""
    return ", ".join(
        f"{name} {value:.4f}" if name == "loss" or not math.isnan(value) else f"{name} without a value"
        for name, value in metrics.items()
    )


def usage_rows(usage: Usage) -> list[list[str]]:
    """Rows of a table: throughput, time and memory of a run."""
    return [
        ["throughput", f"{usage.samples_per_second:.0f} samples/s"],
        ["time", f"{usage.seconds:.1f} s"],
        ["peak memory", f"{usage.peak_memory_mb:.0f} MiB"],
    ]


class TrainingProgress(Callback):
    """Follows a training: a line an epoch, and on a terminal below them two bars, the losses and the time left.

    What a derivation measures after it is shown in the same place.

    At the end of a ``with`` block the lines below are gone.

    Args:
        out: where to.
        clock: seconds.
    """

    def __init__(self, out: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._shows_bars = out.shows_bars
        self._pinned: Pinned | None = None
        self._begun, self._step = clock(), 0
        self._validated = 0
        self._derives = False

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def build(self, model: nn.Module, mutator: Mutator | None, trainer: Trainer) -> None:
        super().build(model, mutator, trainer)
        for line in (_facts(trainer), *trainer.remarks):
            self._out.announce(line)

    def on_batch_begin(self, epoch: int) -> None:
        if self._pin():
            self._begun, self._step = self._clock(), self.trainer.step
        self._validated = 0

    def on_batch_end(self, epoch: int) -> None:
        self._draw(now=self.trainer.step == self._step + 1)  # the first step is worth to be seen however quick it is

    def on_validation_batch(self, epoch: int) -> None:
        self._validated += 1
        self._draw(now=self._validated == 1)

    def on_epoch_end(self, epoch: int) -> None:
        record = self.trainer.history[-1]
        self._out.note(
            f"epoch {record.epoch}/{self.trainer.epochs}: train {described(record.train)}; "
            f"valid {described(record.valid)}; {record.samples_per_second:.0f} samples/s",
            fold=True,
        )

    def on_architecture_measured(self, state: DerivationState) -> None:
        """Follow the measurements after a training, with the weights that it left."""
        if not self._derives:
            self._derives = True
            self._out.announce(f"deriving: the best of {state.count} architectures on the validation data")
            self._pin()
        if self._pinned is not None:
            self._pinned.draw(lambda: _derivation_lines(state), now=state.tried == 1)

    def _pin(self) -> bool:
        """Returns true if there are lines below from now on, where there were none."""
        if not self._shows_bars or self._pinned is not None:
            return False
        self._pinned = Pinned(self._out, self._clock)
        return True

    def _draw(self, *, now: bool) -> None:
        if self._pinned is not None:
            self._pinned.draw(self._lines, now=now)

    def _lines(self) -> list[Text]:
        from rich.text import Text

        trainer = self.trainer
        epoch, epochs = min(trainer.epoch + 1, trainer.epochs), trainer.epochs
        steps, batches = trainer.steps_of(epoch - 1), len(trainer.valid_batches)
        if self._validated:
            now = bar(self._validated, batches), f"validation {_of(self._validated, batches)}"
        else:
            now = bar(trainer.batch, steps), f"step {_of(trainer.batch, steps)}"
        width = len(f"epoch {epoch}/{epochs}  ")
        lines = [
            Text(f"epoch {epoch}/{epochs}  ", style="bold") + now[0] + Text(f"  {now[1]}"),
            Text("in all".ljust(width), style="bold") + bar(self._done, 1.0) + Text(f"  {self._time_left()}"),
            Text(f"train {described(trainer.training_means)}"),
        ]
        if trainer.history:
            lines.append(Text(f"valid {described(trainer.history[-1].valid)} (epoch {trainer.history[-1].epoch})"))
        return lines

    @property
    def _done(self) -> float:
        """The part of the training that is done, from 0 to 1."""
        trainer = self.trainer
        return trainer.step / trainer.total_steps if trainer.total_steps else trainer.epoch / trainer.epochs

    def _time_left(self) -> str:
        """About how long the rest takes, at the rate of what was done here; validation takes its part."""
        trainer, elapsed = self.trainer, self._clock() - self._begun
        here = trainer.step - self._step
        if not trainer.total_steps or not here:
            return f"{span(elapsed)} so far"
        left = max(0, trainer.total_steps - trainer.step) * elapsed / here
        return f"about {span(left)} left"

    def close(self) -> None:
        """Take the lines below away."""
        if self._pinned is not None:
            self._pinned.close()
            self._pinned = None


def _derivation_lines(state: DerivationState) -> list[Text]:
    from rich.text import Text

    head = Text("deriving  ", style="bold") + bar(state.tried, state.count)
    best = "none has a finite one yet" if state.value is None else f"best so far {state.value:.4f}"
    return [
        head + Text(f"  architecture {state.tried}/{state.count}"),
        Text(f"{state.metric} with inherited weights: {best}"),
    ]


def _of(done: int, total: int) -> str:
    return f"{done}/{total}" if total else str(done)


def _facts(trainer: Trainer) -> str:
    """``cpu; 12,345 parameters; 9,000 architectures; 1,437 training and 360 validation samples``."""
    parameters = sum(one.numel() for one in trainer.model.parameters() if not isinstance(one, UninitializedParameter))
    facts = [str(trainer.device), f"{parameters:,} parameters"]
    if trainer.mutator is not None:
        facts.append(f"{size_in_words(trainer.mutator.space.size, ',')} architectures")
    batches = {"training": trainer.train_batches, "validation": trainer.valid_batches}
    sizes = [f"{one.samples:,} {name}" for name, one in batches.items() if one.samples is not None]
    if sizes:
        facts.append(f"{' and '.join(sizes)} samples")
    return "; ".join(facts)
