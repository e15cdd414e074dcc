"""``nnas profile``: what architectures cost: parameters, multiply-adds, memory of activations, latency."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn

from nnas_core.errors import UsageError
from nnas_core.files import write_json
from nnas_core.mutables.base import Mutable
from nnas_core.mutables.cost import FlopMeter, count_flops, parameter_table
from nnas_core.mutables.extraction import extract
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import tensors
from nnas_core.mutables.shapes import output_shapes
from nnas_core.mutables.untouched import untouched
from nnas_core.randomness import generator
from nnas_core.space.architecture import Architecture
from nnas_core.space.cost_extremes import extreme
from nnas_core.space.costs import CostTable
from nnas_core.space.latency_table import LATENCY_FORMAT
from nnas_core.training.profiling import Latency, measure_candidates, measure_latency, peak_activation_memory
from nnas_core.workflows.example_inputs import ExampleInputs, running
from nnas_core.workflows.settings import ProfileSettings
from nnas_core.workflows.setup import Setup

__all__ = ["CandidateCost", "Profile", "ProfileReport", "TableCheck", "profile"]

_CHECKED = 50
"""Random architectures that the predictions of a latency table are compared with."""


@dataclass(frozen=True)
class Profile:
    """The cost of one architecture, taken out of its supernet.

    Attributes:
        name: how it was chosen.
        architecture: None for a model without choices.
        parameters: as many numbers.
        macs: multiply-adds of one sample: half the FLOPs of ``torch.utils.flop_counter``, see ``mutables.cost``.
        activation_bytes: the most that is alive at once for one sample, see ``peak_activation_memory``.
        latency: of a batch.
    """

    name: str
    architecture: Architecture | None
    parameters: int
    macs: int
    activation_bytes: int
    latency: Latency


@dataclass(frozen=True)
class CandidateCost:
    """What one candidate brings that no other has.

    Attributes:
        macs: of one sample; None where they do not add up.
        output: the shape of what it gives for one sample; None where that is no tensor.
    """

    key: str
    candidate: str
    parameters: int
    macs: int | None
    output: tuple[int, ...] | None


@dataclass(frozen=True)
class TableCheck:
    """Predictions of a latency table beside measurements of whole architectures.

    Attributes:
        architectures: how many random ones were measured.
        fixed_ms: what every architecture takes besides its candidates; measured as the rest of one of them, 0 where
            nothing is left. The table has it too.
        median_error, worst_error: relative ones, of the size of the difference.
        tau: Kendall's, of the two orders; None where one of them has only equal numbers.
    """

    architectures: int
    fixed_ms: float
    median_error: float
    worst_error: float
    tau: float | None


@dataclass(frozen=True)
class ProfileReport:
    """The answer of a profile, and under which conditions it holds.

    Attributes:
        device, threads, batch_size, precision: of the latencies.
        inputs: the shape of each tensor that the model is given for one sample.
        profiles: of the architectures.
        candidates: of all LayerChoices.
        fixed: what every architecture has besides: parameters, and multiply-adds of one sample, None as above.
        shares: true if candidates share parameters with others: those count besides, once, if any of them is chosen.
        check: of the table, if one was asked for.
    """

    device: str
    threads: int
    batch_size: int
    precision: str
    inputs: list[tuple[int, ...]]
    profiles: list[Profile]
    candidates: list[CandidateCost]
    fixed: tuple[int, int | None]
    shares: bool
    check: TableCheck | None


def profile(
    settings: ProfileSettings,
    document: object | None = None,
    where: str | None = None,
    *,
    follow: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> ProfileReport:
    """Measure architectures of a model, and what its candidates bring.

    Args:
        settings: of what, and how.
        document: an architecture to measure, in any form; None: none but those of the settings.
        where: its file, for errors.
        follow: told what is measured, how much of it is done, and how much there is.

    Raises:
        ArchitectureError: the architecture does not fit the model.
        UsageError: what was asked for needs choices, and the model has none.
        UserCodeError: the model fails with what it is given.
    """
    setup = Setup(settings.setup)
    with _threads(settings.threads):
        return _Profiler(settings, setup, follow).report(document, where)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Profiler:
    """A model with what it is run on.

    Args:
        settings, setup: of it.
        follow: see ``profile``.
    """

    def __init__(self, settings: ProfileSettings, setup: Setup, follow: Callable[[str, int, int], None]) -> None:
        self._settings = settings
        self._setup = setup
        self._follow = follow
        self._device = setup.device
        setup.to_device(setup.model)
        has_choices = any(isinstance(module, Mutable) for module in setup.model.modules())
        self._mutator = Mutator(setup.model) if has_choices else None
        inputs = ExampleInputs(setup, setup.model, settings.input_shape, self._mutator)
        self._one = inputs.of(1)
        size = settings.setup.data.batch_size
        self._batch = self._one if size == 1 else inputs.of(size)

    def report(self, document: object | None, where: str | None) -> ProfileReport:
        settings, mutator = self._settings, self._mutator
        fixed: tuple[int, int | None]
        if mutator is None:
            asked = document is not None or settings.smallest or settings.largest or settings.random
            if asked or settings.latency_table is not None:
                raise UsageError("the model has no choices, and so one architecture", hint="leave the option out")
            profiles, candidates, check = [self._measured("the model", None)], [], None
            fixed, shares = (profiles[0].parameters, profiles[0].macs), False
        else:
            parameters = parameter_table(self._setup.model)
            flops = FlopMeter(mutator, running(self._setup.model, self._one)).table()
            chosen = self._chosen(mutator, parameters, flops, document, where)
            profiles = []
            for number, (name, architecture) in enumerate(chosen):
                self._follow("architectures", number, len(chosen))
                profiles.append(self._measured(name, architecture))
            candidates = list(_candidates(mutator, parameters, flops, self._output_shapes(mutator)))
            fixed, shares = (parameters.fixed, None if flops is None else flops.fixed // 2), bool(parameters.shared)
            check = None if settings.latency_table is None else self._table(mutator, settings.latency_table)
        return ProfileReport(
            device=str(self._device),
            threads=torch.get_num_threads(),
            batch_size=settings.setup.data.batch_size,
            precision=_precision(self._setup.model),
            inputs=[tuple(tensor.shape) for tensor in tensors([self._one[0], dict(self._one[1])])],
            profiles=profiles,
            candidates=candidates,
            fixed=fixed,
            shares=shares,
            check=check,
        )

    def _chosen(
        self,
        mutator: Mutator,
        parameters: CostTable,
        flops: CostTable | None,
        document: object | None,
        where: str | None,
    ) -> list[tuple[str, Architecture]]:
        settings, space = self._settings, mutator.space
        tables = [parameters] if flops is None else [parameters, flops]
        chosen: list[tuple[str, Architecture]] = []
        if document is not None:
            chosen.append(("given", space.parse(document, where)))
        none = document is None and not (settings.smallest or settings.largest or settings.random)
        for wanted, name, largest in ((settings.smallest, "smallest", False), (settings.largest, "largest", True)):
            if wanted or none:
                architecture, exact = extreme(space, tables, largest=largest)
                chosen.append((name if exact else f"{name} found", architecture))
        rng = generator(settings.setup.data.seed, "profile")
        chosen += [(f"random {number + 1}", space.sample(rng)) for number in range(settings.random)]
        return chosen

    def _measured(self, name: str, architecture: Architecture | None) -> Profile:
        network = self._network(architecture)
        one, batch = running(network, self._one), running(network, self._batch)
        weights = list(itertools.chain(network.parameters(), network.buffers()))
        with untouched(network), torch.no_grad():
            network.eval()
            return Profile(
                name,
                architecture,
                sum(parameter.numel() for parameter in network.parameters()),
                count_flops(one) // 2,
                peak_activation_memory(one, weights, self._one),
                measure_latency(batch, self._device, self._settings.seconds),
            )

    def _network(self, architecture: Architecture | None) -> nn.Module:
        model = self._setup.model
        return model if architecture is None else extract(model, architecture)

    def _output_shapes(self, mutator: Mutator) -> dict[str, list[tuple[int, ...] | None]]:
        model = self._setup.model
        with untouched(model, mutator), torch.no_grad():
            model.eval()
            return output_shapes(mutator, running(model, self._one))

    # ---- the table

    def _table(self, mutator: Mutator, path: str) -> TableCheck:
        """Measure all candidates and some whole architectures, and write the table."""
        model, seconds = self._setup.model, self._settings.seconds
        run = running(model, self._batch)
        measured = measure_candidates(
            mutator, run, self._device, seconds / 10, lambda done, total: self._follow("candidates", done, total)
        )
        if not measured:
            raise UsageError("the model has no LayerChoice, of which a table could be made", hint="leave it out")
        rng = generator(self._settings.setup.data.seed, "profile", "table")
        sums, times = [], []
        for number in range(_CHECKED + 1):
            self._follow("whole architectures", number, _CHECKED + 1)
            architecture = mutator.space.sample(rng)
            network = self._network(architecture).eval()
            times.append(measure_latency(running(network, self._batch), self._device, seconds / 10).median)
            sums.append(sum(measured[key][str(name)] for key, name in architecture.names().items() if key in measured))
        check = _check(np.array(sums), np.array(times))
        document = {"format": LATENCY_FORMAT, "unit": "ms", "fixed": check.fixed_ms, "latencies": measured}
        write_json(path, document)
        return check


def _check(sums: np.ndarray, times: np.ndarray) -> TableCheck:
    """Compare: the first one gives what is fixed, the others are predicted."""
    fixed = max(0.0, float(times[0] - sums[0]))  # less than nothing is the noise of a measurement
    predicted, measured = fixed + sums[1:], times[1:]
    errors = np.abs(predicted - measured) / measured
    return TableCheck(len(measured), fixed, float(np.median(errors)), float(errors.max()), _tau(predicted, measured))


def _tau(one: np.ndarray, other: np.ndarray) -> float | None:
    """Kendall's tau-b: 1 for equal orders, -1 for opposite ones."""
    first, second = (np.sign(values[:, None] - values[None, :]) for values in (one, other))
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / norm) if norm else None


def _candidates(
    mutator: Mutator,
    parameters: CostTable,
    flops: CostTable | None,
    shapes: Mapping[str, Sequence[tuple[int, ...] | None]],
) -> Iterator[CandidateCost]:
    for choice in mutator.space:
        if choice.kind == "layer_choice":
            key = choice.key
            for index, name in enumerate(choice.candidates):
                macs = None if flops is None else flops.candidates[key][index] // 2
                brought = parameters.candidates[key][index]
                yield CandidateCost(key, str(name), brought, macs, shapes[key][index])


def _precision(model: nn.Module) -> str:
    found = {str(one.dtype).removeprefix("torch.") for one in model.parameters()}
    return ", ".join(sorted(found)) or str(torch.get_default_dtype()).removeprefix("torch.")
