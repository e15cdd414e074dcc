"""What a model costs where it runs: the time of a forward pass, and the memory of its activations.

measure_latency(run, device) --> Latency             warm-up, then many passes: median and quartiles
peak_activation_memory(run, inputs) --> bytes        of what is alive at once, kernel by kernel
measure_candidates(mutator, run, device) --> table   every candidate of every LayerChoice, by itself
arguments_of(task, model, batch) --> Arguments       what a forward pass is given
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnas_core.errors import UserCodeError
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.dispatch_modes import uncompiled
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import tensors
from nnas_core.mutables.untouched import untouched
from nnas_core.training.task import Task

__all__ = ["Arguments", "Latency", "arguments_of", "measure_candidates", "measure_latency", "peak_activation_memory"]

Arguments = tuple[tuple[object, ...], Mapping[str, object]]
"""Of a forward pass: by place, and by name."""

_WARM_UP = 3
"""Passes that are not counted, at least."""

_LEAST_RUNS, _MOST_RUNS = 11, 1000


@dataclass(frozen=True)
class Latency:
    """Times of forward passes.

    Attributes:
        median, low, high: milliseconds; the latter are the quartiles.
        runs: how many were measured.
    """

    median: float
    low: float
    high: float
    runs: int


def measure_latency(
    run: Callable[[], object],
    device: torch.device,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time a forward pass.

    A tenth of the time, and three passes at least, go by before anything counts: caches, kernels that are chosen by
    trying them, clocks that rise. Then each pass is timed by itself, and on a GPU waited for.

    Args:
        run: does it once.
        device: where.
        seconds: how long to measure, about; 11 to 1,000 passes.
        clock: seconds.
    """

    def timed(seconds: float, least: int) -> list[float]:
        times: list[float] = []
        _wait(device)
        end = clock() + seconds
        while len(times) < least or (len(times) < _MOST_RUNS and clock() < end):
            begun = clock()
            run()
            _wait(device)
            times.append(clock() - begun)
        return times

    with torch.no_grad():
        timed(seconds / 10, _WARM_UP)
        times = timed(seconds, _LEAST_RUNS)
    low, median, high = (1000 * one for one in statistics.quantiles(times, n=4, method="inclusive"))
    return Latency(median, low, high, len(times))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def arguments_of(task: Task, model: nn.Module, batch: object, mutator: Mutator | None = None) -> Arguments:
    """What the task hands to the model for a batch; everything stays as it is.

    Args:
        task: whose ``forward_batch`` is called.
        model: of the batch's device.
        batch: as the task has them.
        mutator: bound to the model, if it has choices.

    Raises:
        UserCodeError: the task does not call the model exactly once.
    """
    found: list[Arguments] = []

    def keep(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        found.append((args, kwargs))

    with untouched(model, mutator), torch.no_grad():
        model.eval()
        if mutator is not None:
            mutator.apply_architecture(mutator.space.at(0))
        handle = model.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            task.forward_batch(model, batch)
        finally:
            handle.remove()
    if len(found) != 1:
        raise UserCodeError(
            f"forward_batch calls the model {len(found)} times, so that a forward pass is not one call",
            where=task.user.reference,
            hint="give `input_shape`, the shape of one sample",
        )
    return found[0]


# ---- memory


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which memory each operation reads and writes.

    Args:
        weights: whose memory is left out.

    Attributes:
        sizes: bytes, by the number of the memory.
        uses: the first and the last operation that uses it; -1 is before them all.
        operations: how many there were.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: list[int] = []
        self.uses: list[tuple[int, int]] = []
        self.operations = 0
        self._weights = {one.untyped_storage().data_ptr() for one in weights}
        self._numbers: dict[int, tuple[torch.UntypedStorage, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor):
                self.use(leaf, self.operations)
        self.operations += 1
        return result

    def use(self, tensor: Tensor, operation: int) -> None:
        """Note that an operation uses the memory of a tensor."""
        storage = tensor.untyped_storage()
        if not storage.nbytes() or storage.data_ptr() in self._weights:
            return
        if id(storage) not in self._numbers:  # kept alive, so that nothing else gets its number
            self._numbers[id(storage)] = storage, len(self.sizes)
            self.sizes.append(storage.nbytes())
            self.uses.append((operation, operation))
        number = self._numbers[id(storage)][1]
        self.uses[number] = self.uses[number][0], operation


def peak_activation_memory(run: Callable[[], object], weights: Iterable[Tensor], inputs: object) -> int:
    """The most bytes of input and activations that are alive at once in a forward pass without gradients.

    It is what a device needs besides the weights if it runs the operations of PyTorch one after the other, in the order
    of the program, and frees each tensor after its last use. What an operation makes and nobody uses (the places of a
    maximum, say) does not count, nor does its own scratch memory, nor what a runtime saves by fusing operations or by
    working in place where the program does not. It is the same on every device.

    Args:
        run: does it once, and returns the output.
        weights: parameters and buffers, which do not count.
        inputs: of the pass, nested as they may be.
    """
    recorder = _Recorder(weights)
    for tensor in tensors(inputs):
        recorder.use(tensor, -1)
    with torch.no_grad(), uncompiled(_Recorder), recorder:
        output = run()
    for tensor in tensors(output):
        recorder.use(tensor, recorder.operations)
    change = [0] * (recorder.operations + 3)
    for size, (first, last) in zip(recorder.sizes, recorder.uses, strict=True):
        if first < last:
            change[first + 1] += size
            change[last + 2] -= size
    return max(itertools.accumulate(change))


# ---- candidates


def measure_candidates(
    mutator: Mutator,
    run: Callable[[], object],
    device: torch.device,
    seconds: float = 0.1,
    follow: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float]]:
    """The time of each candidate of each LayerChoice, by itself, on what it is given in a pass of the supernet.

    A key that several choices share takes the sum of them. What a choice is given must not depend on what others
    chose, or the numbers hold for the first candidates elsewhere.

    Args:
        mutator: bound to the supernet, which is on ``device``.
        run: runs the supernet once.
        device: where.
        seconds: for each.
        follow: told how many of them are measured, and how many there are.

    Returns:
        key -> name of the candidate -> median, milliseconds.
    """
    choices = [one for one in mutator.undedup_mutables if isinstance(one, LayerChoice)]
    table = {choice.key: dict.fromkeys(choice.names, 0.0) for choice in choices}
    with untouched(mutator.model, mutator), torch.no_grad():
        mutator.model.eval()
        given = _inputs_of(choices, mutator, run)
        total, done = sum(map(len, choices)), 0
        for choice in choices:
            for name, candidate in zip(choice.names, choice.candidates, strict=True):
                if choice in given and candidate is not None:
                    args, kwargs = given[choice]
                    call = functools.partial(candidate, *args, **kwargs)
                    table[choice.key][name] += measure_latency(call, device, seconds).median
                done += 1
                follow(done, total)
    return table


def _inputs_of(
    choices: list[LayerChoice], mutator: Mutator, run: Callable[[], object]
) -> Mapping[LayerChoice, tuple[tuple[object, ...], dict[str, object]]]:
    """What the choices are given in passes in which each one is called, as far as it ever is."""
    given: dict[LayerChoice, tuple[tuple[object, ...], dict[str, object]]] = {}

    def keep(module: Any, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        given.setdefault(module, (args, kwargs))

    handles = [choice.register_forward_pre_hook(keep, with_kwargs=True) for choice in choices]
    try:
        for architecture in mutator.space.covering():
            mutator.apply_architecture(architecture)
            run()
            if len(given) == len(choices):
                break
    finally:
        for handle in handles:
            handle.remove()
        for choice in choices:
            choice.take_the_short_way()
    return given
