"""Every mutator passes these tests, to inherit: ``class TestMine(MutatorConformance): mutator = Mine``."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import TensorDataset

from nnas_core.errors import BindingError
from nnas_core.mutables import InputChoice, LayerChoice, MutableScope, Mutator
from nnas_core.plugins.loading import UserModule
from nnas_core.runs.checkpoint import read_checkpoint, write_checkpoint
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback, Trainer

__all__ = ["MODELS", "MutatorConformance"]

_WIDTH = 8


class _Layers(nn.Module):
    """LayerChoices of unequal sizes: two share a key, two return their masks in scopes, one has one candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LayerChoice([_linear(), _linear(), nn.Sequential(_linear(), nn.Tanh())], key="first")
        self.cells = nn.ModuleList(_Scope(f"cell{number}") for number in range(2))
        tied = (LayerChoice([_linear(), nn.Identity()], reduction="mean", key="tied") for _ in range(2))
        self.tied = nn.Sequential(*tied)
        self.only = LayerChoice([_linear()], key="only")
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(_WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] -> [N, 2]."""
        x = self.first(x)
        for cell in self.cells:
            x = cell(x)
        logits: Tensor = self.head(self.drop(self.only(self.tied(x))))
        return logits


class _Scope(MutableScope):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        candidates = OrderedDict(linear=_linear(), relu=nn.ReLU(), tanh=nn.Tanh(), skip=nn.Identity())
        self.op = LayerChoice(candidates, return_mask=True, key=f"{key}_op")
        self.norm = nn.BatchNorm1d(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y, mask = self.op(x)
        if mask.shape != (4,):
            raise AssertionError(f"return_mask must give one entry a candidate, got the shape {list(mask.shape)}")
        y = self.norm(y)
        if not isinstance(y, Tensor):
            raise AssertionError(f"a choice of tensors gave a {type(y).__name__}")
        return y


class _Inputs(nn.Module):
    """A LayerChoice, and an InputChoice of ``n_chosen`` among three inputs."""

    def __init__(self, n_chosen: int | None) -> None:
        super().__init__()
        self.a = LayerChoice([_linear(), _linear()], key="a")
        self.b = LayerChoice([_linear(), nn.Tanh()], key="b")
        self.pick = InputChoice(choose_from=["a", "b", InputChoice.NO_KEY], n_chosen=n_chosen, key="pick")
        self.head = nn.Linear(_WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] -> [N, 2]."""
        a = self.a(x)
        b = self.b(a)
        picked = self.pick([a, b, x])
        logits: Tensor = self.head(a if picked is None else picked)
        return logits


class _Concatenated(nn.Module):
    """A LayerChoice with the reduction ``"concat"``: right for algorithms that run one candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([_linear(), _linear()], reduction="concat", key="op")
        self.head = nn.Linear(_WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8] -> [N, 2]."""
        logits: Tensor = self.head(self.op(x))
        return logits


def _linear() -> nn.Module:
    return nn.Linear(_WIDTH, _WIDTH)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "layers": _Layers,
    "inputs: any": lambda: _Inputs(None),
    "inputs: one": lambda: _Inputs(1),
    "inputs: two": lambda: _Inputs(2),
    "concat": _Concatenated,
}
"""Small models that a mutator serves, or refuses when it is bound; inputs are ``[N, 8]``, outputs ``[N, 2]``."""


class MutatorConformance:
    """Tests of a mutator and its trainer, for pytest; set ``mutator``, and what else differs.

    They check that all randomness comes from the given generator; that training is finite, changes the weights, and
    continues to the bit from a checkpoint written in the middle of an epoch; that float64, float32 and bfloat16
    autocast work; that exported architectures fit the space and leave the mutator as it was; that copies work; and
    that each of ``MODELS`` is served or refused at binding, with an error that names the mutable.
    """

    mutator: ClassVar[type[Mutator]]
    """The class to test."""

    arguments: ClassVar[Mapping[str, object]] = {}
    """For its constructor, besides the model and the generator."""

    trainer: ClassVar[type[Trainer] | None] = None
    """The loop to test it in; None: the mutator's own, or the plain one."""

    refuses: ClassVar[frozenset[str]] = frozenset()
    """Names of ``MODELS`` that it refuses at binding."""

    epochs: ClassVar[int] = 3
    """To train; algorithms of several stages need several."""

    last_state: Mapping[str, Any]
    """Holds the state that the trainer of the last ``train`` would have put into a checkpoint at its end."""

    # ---- building

    def make(self, model: nn.Module, generator: torch.Generator) -> Mutator:
        """Binds a new mutator to ``model``."""
        arguments = dict(self.arguments)
        if "generator" in inspect.signature(self.mutator).parameters:
            arguments["generator"] = generator
        return self.mutator(model, **arguments)

    def train(
        self, name: str, precision: str = "float32", stop_at: int | None = None, state: Mapping[str, Any] | None = None
    ) -> Trainer:
        """Trains a model of ``MODELS``, all of it or to a step, from its beginning or from a state."""

        def build(_: Mapping[str, object]) -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(7)
                return MODELS[name]().to(torch.float64 if precision == "float64" else torch.float32)

        task = _task()
        settings = DataSettings(batch_size=8, seed=3)
        train, valid = build_batches(task, settings)
        model = build({})
        generator = torch.Generator().manual_seed(5)
        mutator = self.make(model, generator)
        if precision == "float64":
            mutator.double()
        loop = self.trainer or mutator.trainer or Trainer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(11)
            trainer = loop(
                model,
                task,
                train,
                valid,
                self.epochs,
                mutator=mutator,
                generators={"mutator": generator},
                callbacks=[_StopAt(stop_at)],
                architecture_batches=architecture_batches(task, settings),
                rebuild=build,
                precision=precision,
            )
            if state is not None:
                trainer.prepare_for(state)
                trainer.load_state_dict(state)
            with contextlib.suppress(_Stopped):
                trainer.train()
            self.last_state = trainer.state_dict()  # here: it holds torch's global random state too
        return trainer

    def bound(self, name: str = "layers", seed: int = 5) -> Mutator:
        """Returns a mutator that was trained for one epoch less a bit, on one of ``MODELS``, and is ready to sample."""
        trainer = self.train(name, stop_at=3)
        for generator in trainer.generators.values():
            generator.manual_seed(seed)
        if trainer.mutator is None:
            raise AssertionError("the trainer lost its mutator")
        return trainer.mutator

    # ---- what must hold

    def test_it_serves_each_model_or_refuses_it_by_name(self) -> None:
        """Binding either works, and then training and exporting do, or it names a mutable and what can serve it."""
        refused = set()
        for name, build in MODELS.items():
            model = build()
            refusal = self._refusal(model)
            if refusal is not None:
                refused.add(name)
                keys = [one.key for one in model.modules() if isinstance(one, LayerChoice | InputChoice)]
                assert any(repr(key) in str(refusal) for key in keys), f"{name}: the refusal names no key: {refusal}"
                assert refusal.hint, f"{name}: the refusal does not say what can serve it: {refusal}"
                assert not any(getattr(one, "is_bound", False) for one in model.modules()), f"{name} was left bound"
                continue
            trainer = self.train(name)
            assert trainer.epoch == self.epochs, name
            assert trainer.mutator is not None
            space = trainer.mutator.space
            space.validate(trainer.mutator.final_architecture())
        assert refused == self.refuses

    def _refusal(self, model: nn.Module) -> BindingError | None:
        try:
            self.make(model, torch.Generator().manual_seed(0))
        except BindingError as error:
            return error
        return None

    def test_training_changes_the_weights(self) -> None:
        """The weights after training are other ones, and finite."""
        after = dict(self.train("layers").model.named_parameters())
        before = dict(self.train("layers", stop_at=0).model.named_parameters())
        same = [name for name in after if name in before and torch.equal(after[name], before[name])]
        assert "head.weight" not in same
        assert all(bool(torch.isfinite(one).all()) for one in after.values())

    def test_float64_and_bfloat16_autocast(self) -> None:
        """Training runs in both, and architecture parameters keep a floating type of their own."""
        for precision in ("float64", "bfloat16"):
            trainer = self.train("layers", precision)
            assert trainer.mutator is not None
            expected = torch.float64 if precision == "float64" else torch.float32
            for module in (trainer.model, trainer.mutator):
                for name, parameter in module.named_parameters():
                    assert parameter.dtype == expected, f"{name} is {parameter.dtype} in {precision}"
                    assert bool(torch.isfinite(parameter).all()), name

    def test_training_goes_on_from_a_checkpoint_to_the_bit(self) -> None:
        """Stopped at any step, saved, and loaded into new objects, it ends where an uninterrupted training ends."""
        steps = self.train("layers").step
        expected = self.last_state
        for step in (1, steps // 2, steps - 1):
            self.train("layers", stop_at=step)
            self.train("layers", state=_through_a_file(self.last_state))
            different = list(_differences(expected, self.last_state, ""))
            assert not different, f"stopped after step {step}, these differ: {different[:5]}"

    def test_equal_seeds_give_equal_trainings(self) -> None:
        """Twice the same training gives the same bits."""
        self.train("layers")
        first = self.last_state
        self.train("layers")
        different = list(_differences(first, self.last_state, ""))
        assert not different, different[:5]

    def test_all_randomness_comes_from_the_generator(self) -> None:
        """Sampling depends on the generator's seed alone, and leaves torch's global state as it was."""
        mutator = self.bound()
        before = torch.get_rng_state()
        drawn = [self._samples(self.bound(seed=seed)) for seed in (1, 1)]
        mutator.reset()
        mutator.export()
        assert drawn[0] == drawn[1]
        assert torch.equal(before, torch.get_rng_state())

    def _samples(self, mutator: Mutator, count: int = 3) -> list[dict[str, list[float]]]:
        samples = []
        for _ in range(count):
            mutator.reset()
            samples.append(mutator.status())
        return samples

    def test_exporting_leaves_the_mutator_as_it_was(self) -> None:
        """``export`` gives a hard architecture of the space and changes no state."""
        mutator = self.bound()
        before = copy.deepcopy(mutator.state_dict())
        architecture = mutator.final_architecture()
        mutator.space.validate(architecture)
        assert architecture.is_hard
        assert not list(_differences(before, mutator.state_dict(), ""))

    def test_the_exported_architecture_can_be_applied(self) -> None:
        """The model runs as its final architecture, and the next reset takes over again."""
        mutator = self.bound()
        mutator.apply_architecture(mutator.final_architecture())
        x = torch.zeros(4, _WIDTH)
        mutator.model.eval()
        first, second = mutator.model(x), mutator.model(x)
        assert torch.equal(first, second)
        mutator.reset()
        assert mutator.model(x).shape == first.shape

    def test_equal_keys_share_a_decision(self) -> None:
        """One entry a key, in every sample and in the export."""
        mutator = self.bound()
        mutator.reset()
        keys = [choice.key for choice in mutator.choices]
        assert len(keys) == len(set(keys))
        assert list(mutator.status()) == keys
        assert set(mutator.export()) == set(keys)

    def test_copies_are_independent(self) -> None:
        """A deep copy, and one through pickle, work alone and do as the original does."""
        mutator = self.bound()
        twins = [copy.deepcopy(mutator), pickle.load(io.BytesIO(pickle.dumps(mutator)))]
        for twin in twins:
            twin.reset()
            twin.model.eval()
            assert twin.model(torch.zeros(4, _WIDTH)).shape == (4, 2)
            assert twin.model is not mutator.model
            assert not list(_differences(mutator.state_dict(), twin.state_dict(), ""))

    def test_a_model_is_bound_once(self) -> None:
        """A second mutator is refused until the first has let go."""
        model = MODELS["layers"]()
        first = self.make(model, torch.Generator())
        assert self._refusal(model) is not None, "a second mutator was bound to the model"
        first.unbind()
        self.make(model, torch.Generator())


class _Stopped(Exception):
    pass


class _StopAt(Callback):
    def __init__(self, step: int | None) -> None:
        self._step = step

    def on_epoch_begin(self, epoch: int) -> None:
        if self._step == 0:
            raise _Stopped

    def on_batch_end(self, epoch: int) -> None:
        if self.trainer.step == self._step:
            raise _Stopped


def _task() -> Task:
    module = ModuleType("conformance")
    x = torch.randn(40, _WIDTH, generator=torch.Generator().manual_seed(1))
    vars(module)["train_dataset"] = lambda: TensorDataset(x, (x[:, 0] > 0).long())
    return Task(UserModule("conformance", module, None))


def _through_a_file(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` as it comes back from a checkpoint, which takes tensors and plain data only."""
    header = {
        "nnas": "0",
        "torch": "0",
        "threads": 1,
        "command": "search",
        "model": "conformance",
        "model_arg": {},
        "mutator": "conformance",
        "seed": 0,
        "progress": {"epoch": 0, "epochs": 1, "batch": 0, "step": 0},
        "metrics": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        write_checkpoint(path, header, {"state": dict(state)})
        return read_checkpoint(path)["state"]


def _differences(one: object, other: object, path: str) -> Iterator[str]:
    """Returns the paths at which two nested states differ; wall times are no part of a state."""
    if path.endswith(("/seconds", "/elapsed")):
        return
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype != other.dtype or not torch.equal(one, other):
            yield path
    elif isinstance(one, Mapping) and isinstance(other, Mapping) and set(one) == set(other):
        for key in one:
            yield from _differences(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _differences(left, right, f"{path}/{index}")
    elif one != other:
        yield path
