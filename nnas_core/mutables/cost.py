"""The cost of an architecture, and the part of it that each candidate brings: parameters and FLOPs.

FLOPs are those of one forward pass as ``torch.utils.flop_counter.FlopCounterMode`` counts them: matrix products,
convolutions and attention, a multiply-add being two operations; all else (bias, normalisation, activation, pooling)
counts nothing. Papers that give multiply-adds as "FLOPs", as most do, have half of these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from nnas_core.errors import UserCodeError
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.dispatch_modes import uncompiled
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.tree import parse
from nnas_core.mutables.untouched import untouched
from nnas_core.randomness import generator
from nnas_core.space.choice import Decision
from nnas_core.space.costs import Candidate, CostTable

__all__ = ["FlopMeter", "count_flops", "parameter_table"]

_CHECKS = 16
"""Random architectures that are measured before costs are believed to add up."""


def parameter_table(model: nn.Module) -> CostTable:
    """The number of parameters of every architecture, as ``extract`` would leave them; exact.

    A parameter that several modules share counts once, and one that anything but candidates has counts always.

    Args:
        model: a supernet, bound or not.

    Raises:
        UserCodeError: a parameter has no shape yet.
    """
    choices = [one for one in parse(model).traverse(deduplicate=False) if isinstance(one, LayerChoice)]
    live = set(choices)
    fixed: set[nn.Parameter] = set()
    users: dict[nn.Parameter, set[Candidate]] = {}
    seen: set[nn.Module] = set()
    queue: list[nn.Module] = [model]
    while queue:
        module = queue.pop()
        if module in seen:
            continue
        seen.add(module)
        fixed.update(parameter for parameter in module._parameters.values() if parameter is not None)
        names = module.names if isinstance(module, LayerChoice) and module in live else []
        for name, child in module._modules.items():
            if child is None:
                continue
            if name not in names:
                queue.append(child)
                continue
            for parameter in child.parameters():
                users.setdefault(parameter, set()).add((module.key, names.index(name)))  # type: ignore[arg-type]
    for path, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise UserCodeError(
                f"the parameter {path} has no shape yet",
                hint="give lazy modules their sizes, or run the model once before it is returned",
            )
    own = {choice.key: [0] * len(choice) for choice in choices}
    shared: Counter[frozenset[Candidate]] = Counter()
    for parameter, group in users.items():
        if parameter in fixed:
            continue
        if len(group) > 1:
            shared[frozenset(group)] += parameter.numel()
        else:
            ((key, index),) = group
            own[key][index] += parameter.numel()
    return CostTable(
        sum(parameter.numel() for parameter in fixed),
        {key: tuple(costs) for key, costs in own.items()},
        tuple(shared.items()),
    )


def count_flops(forward: Callable[[], Any]) -> int:
    """The FLOPs of what ``forward`` does, whichever kernels it would use otherwise."""
    with _counting() as counter:
        forward()
    return counter.get_total_flops()


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Count, with kernels of which the counter sees inside: it does not know those that fuse attention or an LSTM."""
    backends = torch.backends
    fast, one_dnn, cudnn = backends.mha.get_fastpath_enabled(), backends.mkldnn.enabled, backends.cudnn.enabled
    try:
        backends.mha.set_fastpath_enabled(False)
        backends.mkldnn.enabled = False  # type: ignore[assignment]  # a property of the module
        backends.cudnn.enabled = False
        with (
            sdpa_kernel(SDPBackend.MATH),
            uncompiled(_FlopCounterMode),
            FlopCounterMode(display=False) as counter,
        ):
            yield counter
    finally:
        backends.mha.set_fastpath_enabled(fast)
        backends.mkldnn.enabled, backends.cudnn.enabled = one_dnn, cudnn


@dataclass(frozen=True)
class _Pass:
    """The FLOPs and shapes that one forward pass showed.

    Attributes:
        total: FLOPs.
        inside: those within LayerChoices, by key.
        shapes: of what went in and out of each choice, in the order of the calls; None if inputs of one InputChoice
            differed.
    """

    total: int
    inside: Mapping[str, int]
    shapes: list[Any] | None

    @property
    def outside(self) -> int:
        return self.total - sum(self.inside.values())


class FlopMeter:
    """Counts the FLOPs of architectures by running them, and leaves no trace in model, mutator or random state.

    Args:
        mutator: bound to the supernet.
        forward: runs the supernet once, on whatever the FLOPs are to be counted for; one sample as a rule.
    """

    def __init__(self, mutator: Mutator, forward: Callable[[], Any]) -> None:
        self._mutator = mutator
        self._forward = forward

    def measure(self, decisions: Mapping[str, Decision]) -> int:
        """The FLOPs of one architecture.

        Args:
            decisions: key -> chosen indices, of every key.
        """
        with _undisturbed(self._mutator):
            self._mutator.decide(decisions)
            return count_flops(self._forward)

    def table(self) -> CostTable | None:
        """The FLOPs of every architecture from those of a few; None where they do not add up.

        They add up if no decision changes the shape of anything that a choice is given or returns, nor what is done
        outside of choices. That is seen in as many passes as the largest LayerChoice has candidates, and one more for
        each InputChoice that may choose nothing; then some random architectures must cost what was computed.
        """
        choices = self._mutator.choices
        costs = {choice.key: [0] * len(choice) for choice in choices if isinstance(choice, LayerChoice)}
        known: set[Candidate] = set()
        first: _Pass | None = None
        with _undisturbed(self._mutator):
            for decisions in _rounds(choices):
                run = self._run(decisions)
                first = first or run
                if run.shapes is None or (run.outside, run.shapes) != (first.outside, first.shapes):
                    return None
                for key in costs:
                    (index,) = decisions[key]
                    flops = run.inside.get(key, 0)
                    if (key, index) in known and costs[key][index] != flops:
                        return None
                    known.add((key, index))
                    costs[key][index] = flops
            table = CostTable(first.outside if first else 0, {key: tuple(row) for key, row in costs.items()})
            rng = generator(0, "cost", "additivity")
            for _ in range(_CHECKS):
                decisions = {choice.key: choice.choice.sample(rng) for choice in choices}
                run = self._run(decisions)
                if first is None or run.shapes != first.shapes or run.total != table.of(decisions):
                    return None
        return table

    def _run(self, decisions: Mapping[str, Decision]) -> _Pass:
        self._mutator.decide(decisions)
        inside: Counter[str] = Counter()
        shapes: list[Any] = []
        alike = True
        before: list[int] = []

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            before.append(counter.get_total_flops())

        def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            nonlocal alike
            flops = counter.get_total_flops() - before.pop()
            given = _shape([*args, kwargs])
            if isinstance(module, LayerChoice):
                inside[module.key] += flops
                shapes.append((module.name, given, _shape(output)))
            elif isinstance(module, InputChoice):
                inputs = list(args[0].values()) if isinstance(args[0], Mapping) else list(args[0])
                alike = alike and len({repr(_shape(one)) for one in inputs}) == 1
                shapes.append((module.name, given))

        modules = [one for one in self._mutator.undedup_mutables if isinstance(one, LayerChoice | InputChoice)]
        handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in modules]
        handles += [module.register_forward_hook(leave, with_kwargs=True) for module in modules]
        try:
            with _counting() as counter:
                self._forward()
        finally:
            for handle in handles:
                handle.remove()
            for module in modules:
                if isinstance(module, LayerChoice):
                    module.take_the_short_way()
        varies = any(
            isinstance(one, InputChoice) and one.n_chosen is None and one.reduction in ("concat", "none")
            for one in modules
        )
        return _Pass(counter.get_total_flops(), inside, shapes if alike and not varies else None)


def _rounds(choices: list[LayerChoice | InputChoice]) -> Iterator[dict[str, Decision]]:
    """Architectures in which every candidate has its turn, and every InputChoice that may be empty is."""
    layers = [len(choice) for choice in choices if isinstance(choice, LayerChoice)]
    base = {choice.key: _turn(choice, 0) for choice in choices}
    for turn in range(max(layers, default=1)):
        yield {choice.key: _turn(choice, turn) for choice in choices}
    empty = [choice.key for choice in choices if isinstance(choice, InputChoice) and choice.n_chosen is None]
    for key in empty:
        yield {**base, key: ()}
    if len(empty) > 1:
        yield {**base, **dict.fromkeys(empty, ())}


def _turn(choice: LayerChoice | InputChoice, turn: int) -> Decision:
    count = len(choice)
    if isinstance(choice, LayerChoice):
        return (turn % count,)
    taken = count if choice.n_chosen is None else choice.n_chosen
    return tuple(sorted((turn + step) % count for step in range(taken)))


def _shape(value: Any) -> Any:
    """Return all of a value that FLOPs can depend on; numbers that were computed are not part of it."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return [(name, _shape(entry)) for name, entry in value.items()]
    if isinstance(value, (list, tuple)):
        return [_shape(entry) for entry in value]
    return value if value is None or isinstance(value, (bool, int, str)) else type(value).__name__


@contextmanager
def _undisturbed(mutator: Mutator) -> Iterator[None]:
    """Evaluation mode without gradients; everything that a forward pass or a decision may change comes back."""
    with untouched(mutator.model, mutator), torch.no_grad():
        mutator.model.eval()
        yield
