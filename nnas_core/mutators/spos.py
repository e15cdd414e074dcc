"""Train a supernet along single paths drawn uniformly, if asked among architectures of bounded FLOPs and parameters.

Source: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv:1904.00420
(uniform sampling; bounds and bins are those of NNI 1.x).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import NoResultError, UsageError, UserCodeError
from nnas_core.mutables.binding import per_binding
from nnas_core.mutables.cost import FlopMeter, parameter_table
from nnas_core.mutables.nested import first_row
from nnas_core.mutators._bounded import AddedCosts, BoundedDraw, Interval, MeasuredCosts, Population
from nnas_core.mutators.random import RandomMutator
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.training.data import to_device
from nnas_core.training.optimizers import State
from nnas_core.training.task import Batch
from nnas_core.training.trainer import Trainer

__all__ = ["SposMutator", "SposTrainer"]


class SposTrainer(Trainer):
    """The plain loop; before the first step it lets the mutator measure FLOPs on one sample, where these are bounded.

    The sample is kept in checkpoints, so that a resumed search measures the same again.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sample: Any = None

    def train_batch(self, batch: Batch) -> None:
        if isinstance(self.mutator, SposMutator) and self.mutator.needs_costs:
            self._sample = self.one_sample(batch)
            self._measure()
        super().train_batch(batch)

    def _measure(self) -> None:
        if isinstance(self.mutator, SposMutator):
            self.mutator.measure_costs(self.to_device(self._sample), forward=self.task.forward_batch)

    def one_sample(self, batch: Batch) -> Any:
        """The first sample of a batch: the first row of every tensor that has as many rows as the first one.

        Raises:
            UserCodeError: there is no tensor in nested lists, tuples and dictionaries.
        """
        sample = first_row(batch)
        if sample is None:
            raise UserCodeError(
                f"flops cannot be bounded: no sample can be taken out of a batch that is a {type(batch).__name__}",
                where=self.task.user.reference,
                hint="let batches be tensors in lists, tuples or dictionaries, or override SposTrainer.one_sample",
            )
        return to_device(sample, torch.device("cpu"))

    def state_dict(self) -> State:
        return {**super().state_dict(), "sample": self._sample if _is_plain(self._sample) else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._sample = state.get("sample")
        if self._sample is not None:
            self._measure()


def _is_plain(value: Any) -> bool:
    """Return true if a checkpoint can hold it; a sample of other types is taken anew after a resume."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(entry) for name, entry in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)


class SposMutator(RandomMutator):
    """Uniform single paths: all architectures are equally likely, as with ``random``.

    With bounds, the range of the costs is divided into ``bins`` of equal width. A draw picks one of the bins that have
    architectures, each equally likely, and then one of the architectures of that bin, each equally likely. So an
    architecture in a sparse bin is drawn more often than one in a crowded bin; ``bins=1`` makes all architectures
    within the bounds equally likely. No draw, final ones included, is ever outside of the bounds. Where both costs are
    bounded, the bins are those of the FLOPs.

    Parameters are counted, and FLOPs measured on one sample: by ``SposTrainer`` on the first it trains on, in other
    programs by ``measure_costs``. Where FLOPs of candidates do not add up, because one changes the shape that the next
    one sees, every architecture that may be drawn is run once on that sample.

    Args:
        model: to be bound.
        generator: source of randomness, on the CPU; torch's default generator if None.
        flops: lowest and highest FLOPs of one sample, both allowed; null for no limit. A multiply-add counts two.
        params: lowest and highest number of parameters, both allowed; null for no limit.
        bins: into which the bounds are divided, each equally likely; 1 to ignore how costs are distributed.
        tries: architectures drawn at most until one is in the bin, in spaces that are too large to be listed.

    Raises:
        UsageError: an option is out of range.
        NoResultError: no architecture, or too few of ``tries``, has as few or as many parameters as asked for.
    """

    trainer = SposTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        flops: Sequence[float | None] | None = None,
        params: Sequence[float | None] | None = None,
        bins: int = 7,
        tries: int = 10_000,
    ) -> None:
        super().__init__(model, generator)
        for name, value in (("bins", bins), ("tries", tries)):
            if value < 1:
                raise UsageError(f"spos: {name} must be at least 1, not {value}")
        given = {"flops": flops, "params": params}
        self._bounds = {name: _interval(name, ends) for name, ends in given.items() if ends is not None}
        self._bins = bins
        self._tries = tries
        self._forward: Callable[[], object] | None = None
        if self._bounds and "flops" not in self._bounds:
            SposMutator._bounded.renew(self)

    @property
    def needs_costs(self) -> bool:
        """True if FLOPs are bounded and were not measured yet."""
        return "flops" in self._bounds and self._forward is None

    def measure_costs(self, *inputs: object, forward: Callable[..., object] | None = None) -> None:
        """Measure the FLOPs of candidates on one sample; model, decision and random states stay as they are.

        Args:
            inputs: of the model, with a batch dimension of 1; they are kept to measure again if candidates change.
            forward: called as ``forward(model, *inputs)``; None calls the model.

        Raises:
            NoResultError: no architecture, or too few of those that were drawn, is within the bounds.
        """
        model = self.model
        call = model if forward is None else functools.partial(forward, model)
        self._forward = functools.partial(call, *inputs)
        if self._bounds:
            SposMutator._bounded.renew(self)

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask."""
        return self.hard(self._decided()) if self._bounds else super().sample_search()

    def _decided(self) -> dict[str, Decision]:
        region = self.region
        if not self._bounds or region is None:
            return super()._decided()
        for _ in range(self._tries):
            decisions = self._draw()
            if region.codes.code(decisions) in region:
                return decisions
        asked = " and ".join(map(str, region.constraints))
        raise NoResultError(
            f"none of {self._tries:,} architectures within the bounds of spos has {asked}",
            hint="widen the bounds, leave them out, or raise tries",
        )

    def _draw(self) -> dict[str, Decision]:
        return self._bounded.draw(self.generator) if self._bounds else super()._draw()

    def accepts(self, architecture: Architecture) -> bool:
        """True if ``architecture`` is within the bounds."""
        own = not self._bounds or (architecture.is_hard and self._bounded.has(architecture.indices()))
        return own and super().accepts(architecture)

    @per_binding
    def _bounded(self) -> BoundedDraw:
        """Draws within the bounds."""
        return BoundedDraw(self._population(), self._bounds, self._bins, self._tries)

    def _population(self) -> Population:
        tables = {"params": parameter_table(self.model)}
        choices = {key: mutable.choice for key, mutable in self.binding.choices.items()}
        if "flops" in self._bounds:
            if self._forward is None:
                raise UsageError(
                    "spos: the FLOPs of the candidates are not measured, their bounds cannot be kept",
                    hint="call measure_costs(inputs) before reset(), or let SposTrainer do it (`trainer` spos)",
                )
            meter = FlopMeter(self, self._forward)
            table = meter.table()
            if table is None:
                return MeasuredCosts(choices, tables["params"], meter)
            tables["flops"] = table
        return AddedCosts(choices, {name: tables[name] for name in self._bounds})

    def __getstate__(self) -> tuple[dict[str, Any], nn.Module | None]:
        attributes, model = super().__getstate__()
        return {**attributes, "_forward": None}, model  # it knows this model, a copy is bound to another


def _interval(name: str, ends: Sequence[float | None]) -> Interval:
    low, high = ends if len(ends) == 2 else (math.nan, math.nan)
    interval = (-math.inf if low is None else low, math.inf if high is None else high)
    if not interval[0] <= interval[1] or interval[1] < 0:
        raise UsageError(
            f"spos: {name} must be [lowest, highest] with lowest <= highest, and highest >= 0, not {list(ends)}",
            hint="null is no limit",
        )
    return interval
