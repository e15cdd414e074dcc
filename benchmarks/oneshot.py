"""Rows 10 to 13, 15 and 17: steps of one-shot algorithms, against plain eager PyTorch, and against one another.

The base is a supernet written by hand, ``sum(w * op(x))`` with ``w = softmax(alpha)``, one alpha a key, plain SGD and
Adam, and NNI's order of work: in both halves the loss is differentiated in weights and architecture alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from harness import Line, Turn, compare, ratios, shown
from nets import Cells, PlainMixture, Tiny, batch_for, mixture, supernet
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import RandomMutator, Trainer
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.mutators.proxyless import ProxylessMutator
from nnas_core.plugins.loading import UserModule
from nnas_core.training.acceleration import CompiledNetwork
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.data import build_batches
from nnas_core.training.memory_format import set_memory_format
from nnas_core.training.settings import DataSettings, OptimizerSettings
from nnas_core.training.task import Task

MUTABLES = 1000

SETTINGS = OptimizerSettings(learning_rate=1e-3)


def trainer_for(net: Any, make: Callable[[nn.Module], Mutator], *, compiled: bool = False, **options: Any) -> Trainer:
    """Our loop with our defaults, on random images; one step at a time is taken of it."""
    x, y = batch_for(net)
    module = ModuleType("benchmark")
    vars(module)["train_dataset"] = vars(module)["valid_dataset"] = lambda: TensorDataset(x, y)
    task = Task(UserModule("benchmark", module, None), SETTINGS)
    train, valid = build_batches(task, DataSettings(batch_size=len(x)))
    torch.manual_seed(0)
    model = net(supernet)
    set_memory_format(model, torch.channels_last)  # what --memory-format auto chooses here
    mutator = make(model)

    def compile_it(model: nn.Module, mutator: Mutator | None) -> Callable[..., Any]:
        return CompiledNetwork(model, [(tuple(x.shape),)])

    accelerate = compile_it if compiled else None
    trainer = (mutator.trainer or Trainer)(
        model, task, train, valid, 1, mutator=mutator, accelerate=accelerate, **options
    )
    trainer.model.train()
    return trainer


class ByHand:
    """The supernet written by hand, with the weights and alphas of a trainer of ours."""

    def __init__(self, net: Any, trainer: Trainer) -> None:
        mixtures: dict[str, list[PlainMixture]] = {}
        torch.manual_seed(0)
        self.model = net(mixture(mixtures)).train()
        self._mixtures = mixtures
        logits = trainer.mutator.logits.detach()  # type: ignore[union-attr]
        self.alphas = {key: logits[index].clone().requires_grad_() for index, key in enumerate(mixtures)}
        numbers = SETTINGS.learning_rate, SETTINGS.momentum
        self.optimizer = torch.optim.SGD(self.model.parameters(), *numbers, weight_decay=SETTINGS.weight_decay)
        self.adam = torch.optim.Adam(self.alphas.values(), 3e-4, (0.5, 0.999), weight_decay=1e-3)

    def loss(self, batch: Any) -> Tensor:
        """Of one batch, with weights of now."""
        for key, group in self._mixtures.items():
            weights = self.alphas[key].softmax(dim=0)
            for one in group:
                one.weights = weights
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def weight_step(self, batch: Any) -> None:
        """The weights' half."""
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()

    def search_step(self, batch: Any) -> None:
        """Both halves, in NNI's order."""
        self.adam.zero_grad()
        self.loss(batch).backward()
        self.adam.step()
        self.weight_step(batch)


def require_equal(trainer: BilevelTrainer, plain: ByHand, batch: Any) -> None:
    """Both sides compute the same: the loss, and its gradients in weights and alphas; compared in float64.

    Raises:
        RuntimeError: they do not.
    """
    x, y = batch
    everything = [trainer.model, trainer.searching, plain.model]
    for module in everything:
        module.double()
    alphas = {key: alpha.detach().double().requires_grad_() for key, alpha in plain.alphas.items()}
    alphas, plain.alphas = plain.alphas, alphas
    trainer.searching.reset()
    ours = F.cross_entropy(trainer.model(x.double()), y)
    theirs = plain.loss((x.double(), y))
    mine = torch.autograd.grad(ours, [*trainer.searching.parameters(), *trainer.model.parameters()])
    by_hand = torch.autograd.grad(theirs, [*plain.alphas.values(), *plain.model.parameters()])
    count = len(plain.alphas)
    logits = mine[0][:, : len(by_hand[0])]
    pairs = [(logits, torch.stack(by_hand[:count])), *zip(mine[1:], by_hand[count:], strict=True)]
    for one, other in [(ours.detach(), theirs.detach()), *pairs]:
        if float((one - other).norm()) > 1e-9 * float(other.norm()) + 1e-12:
            raise RuntimeError(f"the two sides do not compute the same: {one.norm()} and {other.norm()}")
    plain.alphas = alphas
    for module in everything:
        module.float()
    set_memory_format(trainer.model, torch.channels_last)


def against_hand(compiled: bool) -> tuple[BilevelTrainer, ByHand, Any]:
    """First-order DARTS on the cell network, and the same by hand."""
    trainer = trainer_for(Cells, DartsMutator, compiled=compiled)
    if not isinstance(trainer, BilevelTrainer):
        raise TypeError("DARTS trains an architecture")
    plain, batch = ByHand(Cells, trainer), batch_for(Cells)
    require_equal(trainer, plain, batch)
    return trainer, plain, batch


def _sides(**turns: Turn) -> Callable[[int], Mapping[str, Turn]]:
    return lambda number: turns


def _weight_line(row: int, what: str, target: float, compiled: bool, rounds: int) -> Line:
    trainer, plain, batch = against_hand(compiled)
    sides = _sides(nnas=lambda: trainer.weight_step(batch), plain=lambda: plain.weight_step(batch))
    seconds = compare(sides, rounds, turns=3)
    return Line(row, what, "x", target, ratios(seconds, "nnas", "plain"), note=shown(seconds))


def _search_line(row: int, what: str, target: float, compiled: bool, rounds: int) -> Line:
    trainer, plain, batch = against_hand(compiled)

    def step() -> None:
        trainer.architecture_step(batch, batch)
        trainer.weight_step(batch)

    seconds = compare(_sides(nnas=step, plain=lambda: plain.search_step(batch)), rounds, turns=3)
    return Line(row, what, "x", target, ratios(seconds, "nnas", "plain"), note=shown(seconds))


def row_10(rounds: int) -> Iterator[Line]:
    """The weights' half of DARTS."""
    yield _weight_line(10, "DARTS weight step, cell network, against sum(w * op(x))", 0.65, False, rounds)


def row_11(rounds: int) -> Iterator[Line]:
    """The same, compiled."""
    yield _weight_line(11, "DARTS weight step, compiled, against sum(w * op(x))", 0.45, True, rounds)


def row_12(rounds: int) -> Iterator[Line]:
    """Both halves."""
    yield _search_line(12, "DARTS first-order search step, against NNI's order of work", 0.60, False, rounds)
    yield _search_line(12, "DARTS first-order search step, compiled, likewise", 0.42, True, rounds)


def row_13(rounds: int) -> Iterator[Line]:
    """The second order, against the first; contiguous, because a second derivative gains nothing by channels-last."""
    batch = batch_for(Cells)

    def search_step(options: dict[str, Any]) -> Turn:
        trainer = trainer_for(Cells, lambda model: DartsMutator(model, **options))
        set_memory_format(trainer.model, torch.contiguous_format)

        def step() -> None:
            trainer.architecture_step(batch, batch)  # type: ignore[attr-defined]
            trainer.weight_step(batch)

        return step

    turns = {
        "first": search_step({}),
        "exact": search_step({"order": 2}),
        "finite": search_step({"order": 2, "hypergradient": "finite"}),
    }
    seconds = compare(_sides(**turns), min(rounds, 7), turns=3)
    for what, ours, base, target in (
        ("DARTS second order (exact) against its first order", "exact", "first", 2.6),
        ("DARTS second order (finite differences) against its first order", "finite", "first", 2.6),
        ("exact second order against finite differences", "exact", "finite", 1.35),
    ):
        yield Line(13, what, "x", target, ratios(seconds, ours, base), note=shown(seconds))


def row_15(rounds: int) -> Iterator[Line]:
    """Algorithms of one path, against random paths: everything that a training batch brings about."""
    batch = batch_for(Cells)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    random = trainer_for(Cells, lambda model: RandomMutator(model, generator()))
    gdas = trainer_for(Cells, lambda model: GdasMutator(model, generator()))
    proxyless = trainer_for(Cells, lambda model: ProxylessMutator(model, generator(), warmup_epochs=0))

    def plain_steps() -> None:
        for _ in range(10):
            random.weight_step(batch)

    def gdas_steps() -> None:
        for _ in range(5):
            gdas.architecture_step(batch, batch)  # type: ignore[attr-defined]
            gdas.weight_step(batch)

    def proxyless_steps() -> None:
        for number in range(10):
            if number % 5 == 0:
                proxyless.architecture_step(batch, batch)  # type: ignore[attr-defined]
            proxyless.weight_step(batch)

    seconds = compare(_sides(random=plain_steps, gdas=gdas_steps, proxyless=proxyless_steps), rounds, turns=3)
    what = "{} against as many steps of random paths"
    gdas_what = what.format("5 architecture and 5 weight steps of GDAS")
    proxyless_what = what.format("10 batches of ProxylessNAS (2 architecture steps among them)")
    yield Line(15, gdas_what, "x", 1.3, ratios(seconds, "gdas", "random"), note=shown(seconds))
    yield Line(15, proxyless_what, "x", 1.6, ratios(seconds, "proxyless", "random"), note=shown(seconds))


def row_17(rounds: int) -> Iterator[Line]:
    """Resets of many mutables; and with the matrix taken apart, which the first LayerChoice of a forward pass does."""
    mutator = DartsMutator(Tiny(supernet, depth=MUTABLES))
    alphas = {row.key: nn.Parameter(mutator.logits.detach()[row.index].clone()) for row in mutator.rows}

    def with_rows() -> None:
        mutator.reset()
        mutator.mixture.weights[0]

    def plain() -> dict[str, Tensor]:
        return {key: alpha.softmax(dim=0)[:-1] for key, alpha in alphas.items()}  # without the slot of zero

    turns = {"nnas": mutator.reset, "with rows": with_rows, "plain": plain}
    seconds = compare(_sides(**turns), rounds)
    what = f"reset of DARTS, {MUTABLES:,} mutables, against a softmax each"
    yield Line(17, what, "x", 0.125, ratios(seconds, "nnas", "plain"), note=shown(seconds))
