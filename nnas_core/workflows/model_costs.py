"""What architectures of a model cost, before they are trained: parameters, multiply-adds, and what else is asked for.

parameters    add up, but for parts that candidates share     parameter_table
macs          of one sample; add up, or are counted           FlopMeter, count_flops
latency_ms    from a latency table; or measured, of one sample
memory_mib    measured: the peak of activations of one sample
others        what ``costs(model)`` of the task returns
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import UserCodeError
from nnas_core.mutables.cost import FlopMeter, count_flops, parameter_table
from nnas_core.mutables.extraction import extract
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import first_row
from nnas_core.mutables.untouched import untouched
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.costs import CostTable, latency_costs
from nnas_core.space.goals import COSTS, Constraint, Objective, nothing_reports
from nnas_core.space.latency_table import read_milliseconds
from nnas_core.space.region import KnownCosts, Region
from nnas_core.training.data import to_device
from nnas_core.training.profiling import Arguments, arguments_of, measure_latency, peak_activation_memory
from nnas_core.workflows.setup import Setup

__all__ = ["ModelCosts", "MultiplyAdds", "check_names", "region_of"]

_SECONDS = 0.2
"""To measure one latency."""

_MIB = 2**20

_REMEMBERED = 100_000
"""Architectures whose measured costs are kept, so that memory has a limit."""


class ModelCosts(KnownCosts):
    """The costs of a model's architectures; model and random states stay as they are.

    Args:
        setup: the model, on its device, and its data.
        wanted: names that are asked for; parameters and multiply-adds are known in any case, if the model can be run.
        latency_table: a file; None measures latencies.
        mutator: bound to the model; None: nothing is.
        runs: false if the model may only be run where a wanted cost needs that: candidates may end or hang the process
            that runs them.

    Attributes:
        available: all names that could be asked for.

    Raises:
        InputError: the latency table is none of the model.
        UserCodeError: the model cannot be run on one sample, and a wanted cost needs that; ``costs(model)`` fails.
    """

    def __init__(
        self,
        setup: Setup,
        wanted: Collection[str] = (),
        latency_table: str | None = None,
        mutator: Mutator | None = None,
        *,
        runs: bool = True,
    ) -> None:
        self._setup = setup
        self._space = setup.space
        self._one: Arguments | None = None
        self._known: dict[str, dict[str, float]] = {}  # by architecture
        tables = {"parameters": parameter_table(setup.model)}
        if latency_table is not None:
            table = read_milliseconds(latency_table, self._space)
            tables["latency_ms"] = latency_costs(table.candidates, table.fixed)
        own = self._own_costs(self._space.at(0)) if setup.task.has("costs") else {}
        self._of_task = set(own)
        self.available = [*dict.fromkeys([*COSTS, *own])]
        needs = set(wanted) & ({"macs", "memory_mib", "latency_ms"} - tables.keys() - self._of_task)
        self._can_run = runs or bool(needs)
        flops = None
        if self._can_run:
            try:
                flops = self._prepare(mutator)
            except Exception:  # whatever the model raises
                if needs:
                    raise
                self._can_run = False
        if flops is not None:
            tables["macs"] = flops
        self.tables: Mapping[str, CostTable] = {
            name: table for name, table in tables.items() if name not in self._of_task
        }
        always = ["parameters", *(["macs"] if self._can_run else []), *own]
        self.names = [name for name in self.available if name in always or name in wanted or name in self.tables]

    def _prepare(self, mutator: Mutator | None) -> CostTable | None:
        """Takes a sample, and counts multiply-adds; None where they do not add up."""
        setup = self._setup
        one = _one_sample(setup)
        with _bound(setup.model, mutator) as bound:
            self._one = arguments_of(setup.task, setup.model, one, bound)
            flops = FlopMeter(bound, self._forward(setup.model)).table()
        return None if flops is None else dataclasses.replace(flops, unit=Fraction(1, 2))

    def _forward(self, network: nn.Module) -> Callable[[], object]:
        if self._one is None:
            raise UserCodeError("the model cannot be run on one sample, to measure what it costs")
        args, kwargs = self._one
        return lambda: network(*args, **kwargs)

    def measured(self, decisions: Mapping[str, Decision], names: Collection[str]) -> Mapping[str, float]:
        """Measures costs of one architecture, taken out of the model; NaN where that fails.

        What was measured before is known: a latency that was within a bound stays there.
        """
        architecture = Architecture(self._space.choices, dict(decisions))
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        known = self._known.setdefault(architecture.canonical, {})
        missing = [name for name in names if name not in known]
        if missing:
            known.update(self._taken_out(architecture, missing))
        return {name: known[name] for name in names}

    def _taken_out(self, architecture: Architecture, names: Collection[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._of_task & set(names):
            try:
                own = self._own_costs(architecture)
            except Exception:  # noqa: BLE001  (as below)
                own = {}
            found.update({name: own.get(name, math.nan) for name in names if name in self._of_task})
        others = [name for name in names if name not in found]
        if others:
            with random_state.untouched({}):
                network = extract(self._setup.model, architecture)
            with untouched(network), torch.no_grad():
                network.eval()
                found.update({name: self._measure(name, network) for name in others})
        return found

    def _measure(self, name: str, network: nn.Module) -> float:
        run = self._forward(network)
        try:
            if name == "macs":
                return count_flops(run) / 2
            if name == "memory_mib":
                weights = [*network.parameters(), *network.buffers()]
                return peak_activation_memory(run, weights, self._one) / _MIB
            return measure_latency(run, self._setup.device, _SECONDS).median
        except Exception:  # noqa: BLE001  (an architecture with which the model fails meets no bound)
            return math.nan

    def _own_costs(self, architecture: Architecture) -> dict[str, float]:
        with random_state.untouched({}):
            network = extract(self._setup.model, architecture)
            return self._setup.task.costs(network)


def _one_sample(setup: Setup) -> object:
    """A batch of the first sample of the training data, on the device.

    Raises:
        UserCodeError: it is of no form out of which a sample can be taken.
    """
    with random_state.untouched({}):
        batch = next(iter(setup.train_batches.epoch(0)), None)
    one = first_row(batch)
    if one is None:
        raise UserCodeError(
            f"no sample can be taken out of a batch that is a {type(batch).__name__}, to measure costs on",
            where=setup.task.user.reference,
            hint="let batches be tensors in lists, tuples or dictionaries",
        )
    return to_device(one, setup.device)


class MultiplyAdds:
    """Counts the multiply-adds of one sample, of one architecture at a time: no other candidate is run.

    Args:
        setup: the model, on its device, and its data.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._one: object = None

    def of(self, architecture: Architecture) -> dict[str, float]:
        """``macs``; nothing where they cannot be counted, for which no trial should fail."""
        setup = self._setup
        try:
            if self._one is None:
                self._one = _one_sample(setup)
            with random_state.untouched({}):
                network = extract(setup.model, architecture)
            args, kwargs = arguments_of(setup.task, network, self._one)
            with untouched(network), torch.no_grad():
                network.eval()
                return {"macs": count_flops(lambda: network(*args, **kwargs)) / 2}
        except Exception:  # noqa: BLE001  (whatever the model raises)
            return {}


def check_names(
    setup: Setup, costs: ModelCosts, constraints: Sequence[Constraint], objectives: Sequence[Objective] = ()
) -> list[str]:
    """Refuses constraints and objectives about what is neither a cost nor a metric of the task.

    Returns:
        The metrics, *the* metric first; none where nothing needed them, or they cannot be found out without a trial.

    Raises:
        UsageError: nothing reports a name; the hint has the closest.
    """
    unknown = {one.name for one in constraints} | {one.name for one in objectives}
    reported = _metric_names(setup) if objectives or unknown - set(costs.names) else []
    for what, names in (("constraint", [one.name for one in constraints]), ("objective", [o.name for o in objectives])):
        for name in names:
            if reported and name not in (*costs.names, *reported, "value", "seconds"):
                raise nothing_reports(what, name, [*costs.available, *reported, "seconds"])
    return reported


def _metric_names(setup: Setup) -> list[str]:
    try:
        with random_state.untouched({}), torch.no_grad():
            batch = next(iter(setup.valid_batches.epoch(0)))
            child = extract(setup.model, next(setup.space.covering()))
            output, target = setup.task.forward_batch(child.eval(), to_device(batch, setup.device))
            own = [*setup.task.metrics(output, target), "loss"]
            return [*own, *(f"{name}_before_recalibration" for name in own)]
    except Exception:  # noqa: BLE001  (whatever the model raises: its trials will say it)
        return []


def region_of(
    setup: Setup, constraints: Sequence[Constraint], latency_table: str | None, mutator: Mutator
) -> tuple[Region | None, tuple[Constraint, ...]]:
    """What a search may hand out.

    Returns:
        The region of the constraints on costs, None without any; and the constraints on metrics.

    Raises:
        UsageError: a constraint is about a number that nobody measures.
        NoResultError: no architecture meets those on costs.
    """
    costs = ModelCosts(setup, [one.name for one in constraints], latency_table, mutator)
    check_names(setup, costs, constraints)
    before = [one for one in constraints if one.name in costs.names]
    after = tuple(one for one in constraints if one.name not in costs.names)
    return Region(setup.space, before, costs) if before else None, after


@contextlib.contextmanager
def _bound(model: nn.Module, mutator: Mutator | None) -> Iterator[Mutator]:
    """The mutator, or one that lets the model go at the end."""
    if mutator is not None:
        yield mutator
        return
    own = Mutator(model)
    try:
        yield own
    finally:
        own.unbind()
