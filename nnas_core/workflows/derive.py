"""Deriving an architecture: of several, the one that does best on validation data with the weights of the supernet.

An algorithm says at the end of a search which architecture it takes for the best. The same supernet can also be asked:
an estimate with inherited weights costs a few forward passes, and is often the better judge (benchmarks/groundtruth).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nnas_core import random_state, randomness
from nnas_core.errors import BindingError, NnasError, NoResultError, UserCodeError
from nnas_core.mutables.mutator import Mutator
from nnas_core.plugins.loading import as_user_error
from nnas_core.space.architecture import Architecture
from nnas_core.space.goals import Constraint
from nnas_core.training.evaluation import InheritedWeights, first_metric
from nnas_core.training.settings import RECALIBRATE
from nnas_core.training.trainer import Trainer

__all__ = ["SHARE", "SMALL", "Derivation", "DerivationState", "derive"]

SHARE = 0.2
"""How many forward passes the estimates may take, as a part of those of the training's steps."""

SMALL = 100
"""Spaces of so many architectures or fewer are measured whole, whatever part of the search that takes."""

_PASSES_A_STEP = 3
"""A backward pass costs about two forward passes."""

_DRAWS = 1 / 3
"""The part of the architectures that are draws; the others are neighbours of the best one so far."""

_ATTEMPTS = 100
"""To find an architecture that was not measured yet."""


@dataclass(frozen=True)
class Derivation:
    """The best of several architectures.

    Attributes:
        architecture: the best; of equals the algorithm's own, or else the first.
        proposed: the algorithm's own.
        tried: how many different ones were measured, ``proposed`` included.
        whole: true if those are all that there are.
        metric: the task's first, by name.
        mode: ``"max"`` or ``"min"``: which of its values are better.
        metrics: of the best, on the validation data, with the weights of the supernet. As the best of several estimates
            on the data that they were chosen by, they are optimistic.
        proposed_metrics: the same of ``proposed``.
    """

    architecture: Architecture
    proposed: Architecture
    tried: int
    whole: bool
    metric: str
    mode: str
    metrics: dict[str, float]
    proposed_metrics: dict[str, float]

    @property
    def value(self) -> float:
        """The metric of the best."""
        return self.metrics[self.metric]

    @property
    def proposed_value(self) -> float:
        """The metric of the algorithm's own."""
        return self.proposed_metrics[self.metric]


@dataclass(frozen=True)
class DerivationState:
    """How far a derivation is.

    Attributes:
        tried: how many architectures were measured.
        count: how many there will be at most, or in all where the space is measured whole.
        metric: the task's first, by name.
        value: the best of those tried; None: none is finite yet.
    """

    tried: int
    count: int
    metric: str
    value: float | None


def derive(
    trainer: Trainer,
    seed: int,
    count: int | None = None,
    poll: Callable[[], None] = lambda: None,
    follow: Callable[[DerivationState], None] = lambda state: None,
    limits: Sequence[Constraint] = (),
) -> Derivation:
    """Measure architectures with inherited weights, and keep the best.

    The first is what the algorithm itself says. A space with no more than ``count`` architectures is measured whole. In
    a larger one a third are draws of the algorithm, or uniform ones where it always says the same, and the others
    differ in one decision from the best so far. What the mutator does not accept is left out, and so is what fails.

    All random states stay as they are, so that it gives the same when it is done again.

    Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", arXiv:1802.03268
    (section 2.2, "Deriving Architectures"; there draws alone and one batch, here also neighbours, as in the
    evolutionary search of arXiv:1904.00420, section 3.4, and all validation data).

    Args:
        trainer: after its training.
        seed: of the choice among architectures.
        count: how many to measure at most, 1 or more; None: as many as ``SHARE`` allows, and small spaces whole.
        poll: called before each batch; what it raises ends the measurement.
        follow: told of every architecture that was measured.
        limits: constraints on metrics, that the best must meet; those on costs the mutator knows.

    Raises:
        BindingError: the trainer has no mutator.
        NoResultError: no architecture has a finite metric.
    """
    mutator = trainer.mutator
    if mutator is None:
        raise BindingError("there is no mutator to draw architectures from", hint="train with one")
    mutator.progress = 1.0  # of a training that was resumed after its end, too
    with random_state.untouched(trainer.generators), trainer.autocast():
        found = _Found(trainer, mutator, poll, limits)
        proposed = mutator.final_architecture()
        found.measure(proposed)
        if count is None:
            passes = SHARE * _PASSES_A_STEP * trainer.step
            count = max(int(passes / max(1, found.passes)), SMALL if mutator.space.size <= SMALL else 1)
        size, every = _all_of(mutator)
        whole = size is not None and size <= count
        found.follow(follow, count if size is None else min(count, size))
        if whole:
            for architecture in every:
                found.try_out(architecture)
        else:
            _look_around(found, mutator, count, randomness.generator(seed, "derive"))
    best = found.best
    if best is None:
        raise found.no_result()
    return Derivation(
        best,
        proposed,
        len(found.metrics),
        whole and len(found.metrics) == size,
        found.metric,
        trainer.task.metric_mode,
        found.metrics[best],
        found.metrics[proposed],
    )


class _Found:
    """What was measured.

    Attributes:
        metrics: of each architecture.
        best: the first of those with the best metric; None: none is finite.
        metric: its name.
        passes: forward passes, in all.
    """

    def __init__(
        self, trainer: Trainer, mutator: Mutator, poll: Callable[[], None], limits: Sequence[Constraint]
    ) -> None:
        self._limits = limits
        self._mutator = mutator
        self._poll = poll
        self._sign = -1.0 if trainer.task.metric_mode == "min" else 1.0
        self._inherited = InheritedWeights(
            mutator,
            trainer.task,
            trainer.train_batches,
            trainer.valid_batches,
            trainer.device,
            RECALIBRATE,
            trainer.to_device,
            compares=False,
        )
        self.metrics: dict[Architecture, dict[str, float]] = {}
        self._refused: set[Architecture] = set()
        self._worth = -math.inf
        self._tell: Callable[[], None] = lambda: None
        self.best: Architecture | None = None
        self.metric = ""
        self.passes = 0

    def follow(self, follow: Callable[[DerivationState], None], count: int) -> None:
        """Tell of what was measured, now and from now on; ``count`` are at most to be."""

        def tell() -> None:
            value = None if self.best is None else self.metrics[self.best][self.metric]
            follow(DerivationState(len(self.metrics), count, self.metric, value))

        self._tell = tell
        tell()

    def is_new(self, architecture: Architecture) -> bool:
        """True if it can be measured and was not."""
        known = architecture in self.metrics or architecture in self._refused
        return not known and self._mutator.accepts(architecture)

    def measure(self, architecture: Architecture) -> None:
        """Measure one architecture."""
        metrics = self._inherited.evaluate(architecture, self._count).metrics
        self.metrics[architecture] = metrics
        self.metric, value = first_metric(metrics)
        worth = self._sign * value
        if math.isfinite(worth) and worth > self._worth and self._meets(architecture, metrics):
            self._worth, self.best = worth, architecture
        self._tell()

    def _meets(self, architecture: Architecture, metrics: Mapping[str, float]) -> bool:
        """True if it may be handed out; what the algorithm says is measured in any case."""
        limited = all(one.holds(metrics.get(one.name, math.nan)) for one in self._limits)
        return limited and (self._mutator.region is None or self._mutator.accepts(architecture))

    def no_result(self) -> NoResultError:
        """Describes that none of them can be handed out."""
        region = self._mutator.region
        asked = [*self._limits, *(region.constraints if region is not None else ())]
        if asked and any(math.isfinite(metrics[self.metric]) for metrics in self.metrics.values()):
            return NoResultError(
                f"none of the {len(self.metrics)} architectures that were measured has {' and '.join(map(str, asked))}",
                hint="measure more by `derive`, or move the bounds",
            )
        return NoResultError(
            f"none of the {len(self.metrics)} architectures has a finite {self.metric} on the validation data",
            hint="look for bad input data, and for weights that are too large",
        )

    def try_out(self, architecture: Architecture) -> None:
        """Measure it if it is new; one with which the user's code fails is left out: training never needed it."""
        if not self.is_new(architecture):
            return
        try:
            self.measure(architecture)
        except (UserCodeError, NoResultError):
            self._refused.add(architecture)
        except Exception as error:
            ours = isinstance(error, NnasError | MemoryError | torch.OutOfMemoryError)  # an interruption, say
            if ours or as_user_error(error) is None:
                raise
            self._refused.add(architecture)

    def _count(self) -> None:
        self._poll()
        self.passes += 1


def _all_of(mutator: Mutator) -> tuple[int | None, Iterator[Architecture]]:
    """How many architectures may be handed out, None if that is not known; and each of them."""
    space, region = mutator.space, mutator.region
    if region is None:
        return space.size, (space.at(number) for number in range(space.size))
    codes = region.codes
    return region.size, (Architecture(space.choices, codes.decisions(code)) for code in region.all())


def _look_around(found: _Found, mutator: Mutator, count: int, rng: np.random.Generator) -> None:
    """Measure ``count`` architectures in all: draws first, then neighbours of the best."""
    space = mutator.space
    deciding = [choice for choice in space if choice.size > 1]

    def drawn() -> Architecture:
        own = mutator.final_architecture()
        if found.is_new(own):
            return own
        if mutator.region is None:
            return space.sample(rng)
        return Architecture(space.choices, mutator.region.codes.decisions(mutator.region.draw(rng)))

    def neighbour(of: Architecture) -> Architecture:
        choice = deciding[int(rng.integers(len(deciding)))]
        return of.replace(choice.key, choice.sample_other(rng, of.indices()[choice.key]))

    for number in range(1, count):
        best = found.best
        near = best is not None and best.is_hard and number >= count * _DRAWS
        for attempt in range(_ATTEMPTS):
            # where all neighbours are known, somewhere else is as good
            candidate = neighbour(best) if near and best is not None and attempt < _ATTEMPTS // 2 else drawn()
            if found.is_new(candidate):
                found.try_out(candidate)
                break
        else:
            return
