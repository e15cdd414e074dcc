"""Memory format, compiler and recomputation: what they are applied to, what they refuse, and that numbers stay."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from nnas_core import LayerChoice, RandomMutator
from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.mutators.pdarts import PdartsMutator
from nnas_core.training.acceleration import Acceleration, CompiledNetwork, Rehearsal, require_compiler
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.data import build_batches
from nnas_core.training.memory_format import has_images, set_memory_format
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from tests.training.sample_trainings import Net as Vectors
from tests.training.sample_trainings import task_of

AUTO = Acceleration()


class Images(nn.Module):
    """A choice of convolutions, and a ``view`` of what they return unless told otherwise."""

    def __init__(self, flatten: str = "reshape") -> None:
        super().__init__()
        self.op = LayerChoice(
            [nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)]
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4 * 9, 3)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.flatten == "fail":
            raise RuntimeError
        y = self.drop(self.op(x))
        return self.head(y.view(len(y), -1) if self.flatten == "view" else y.reshape(len(y), -1))


def images(count: int = 10) -> TensorDataset:
    x = torch.randn(count, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(count) % 3)


class Augmented(Dataset[tuple[Tensor, int]]):
    """Draws from all global random states for each sample."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(2, 3, 3) + random.random() + float(np.random.rand()), index % 3


def built(kind: Callable[..., nn.Module] = Images, **options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**options)


def rehearsal_of(mutator: Mutator, task: Task | None = None, precision: str = "float32") -> Rehearsal:
    task = task or task_of(train_dataset=images)
    train, valid = build_batches(task, DataSettings(batch_size=3))
    device = torch.device("cpu")
    return Rehearsal(mutator, task, [train], [valid], device, precision, {"mutator": mutator.generator})


def bound(make: Callable[..., Mutator] = DartsMutator, model: nn.Module | None = None) -> Mutator:
    return make(model or built(), torch.Generator().manual_seed(1))


def strides(model: nn.Module) -> set[tuple[int, ...]]:
    return {one.stride() for one in model.parameters() if one.dim() == 4 and one.shape[2] == 3}


LAST, FIRST = {(18, 1, 6, 2)}, {(18, 9, 3, 1)}


# ---- memory format


def test_a_memory_format_changes_strides_and_nothing_else() -> None:
    model = built()
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    model.register_buffer("image", torch.randn(1, 2, 3, 3))
    model.register_parameter("volume", nn.Parameter(torch.zeros(1, 2, 3, 3, 3)))
    set_memory_format(model, torch.channels_last)
    assert strides(model) == LAST
    assert model.image.stride() == (18, 1, 6, 2)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert [id(one) for one in parameters] == [id(one) for one in list(model.parameters()) if one is not model.volume]
    set_memory_format(model, torch.contiguous_format)
    assert strides(model) == FIRST


def test_only_weights_of_four_dimensions_mean_images() -> None:
    assert has_images(built())
    assert not has_images(built(Vectors))


@pytest.mark.parametrize(
    ("make", "model", "precision", "format_"),
    [
        (DartsMutator, Images, "float32", torch.channels_last),
        (DartsMutator, Images, "bfloat16", torch.channels_last),
        (DartsMutator, Images, "float64", None),
        (GdasMutator, Images, "float32", None),
        (RandomMutator, Images, "float32", None),
        (DartsMutator, Vectors, "float32", None),
    ],
)
def test_auto_is_channels_last_for_images_where_all_candidates_run(
    make: Any, model: Callable[..., nn.Module], precision: str, format_: torch.memory_format | None
) -> None:
    mutator = bound(make, built(model))
    warned: list[str] = []
    assert AUTO.choose(rehearsal_of(mutator, precision=precision), warned.append) == format_
    assert warned == []


def test_on_a_gpu_only_bfloat16_is_quicker_in_channels_last() -> None:
    task = task_of(train_dataset=images)
    batches = build_batches(task, DataSettings(batch_size=3))[0]
    mutator = bound()
    tries = [
        Rehearsal(mutator, task, [batches], [], torch.device("cuda"), precision, {}).may_try_channels_last
        for precision in ("float32", "float64", "bfloat16")
    ]
    assert tries == [False, False, True]


def test_a_model_that_needs_its_order_keeps_it_and_the_user_is_told() -> None:
    mutator = bound(model=built(flatten="view"))
    warned: list[str] = []
    assert AUTO.choose(rehearsal_of(mutator), warned.append) == torch.contiguous_format
    assert strides(mutator.model) == FIRST
    assert len(warned) == 1
    assert warned[0].startswith("the model fails in the memory format channels-last (view size is not compatible")


def test_a_model_that_fails_anyway_is_left_to_the_training() -> None:
    mutator = bound(model=built(flatten="fail"))
    warned: list[str] = []
    assert AUTO.choose(rehearsal_of(mutator), warned.append) == torch.contiguous_format
    assert warned == []


def test_what_the_user_asks_for_is_not_tried() -> None:
    mutator = bound(model=built(flatten="fail"))
    rehearsal = rehearsal_of(mutator)
    for name, expected in (("contiguous", torch.contiguous_format), ("channels-last", torch.channels_last)):
        assert Acceleration(name).choose(rehearsal, lambda line: None) == expected


def test_a_rehearsal_leaves_no_trace() -> None:
    mutator = bound()
    mutator.model.train()
    mutator.model.drop.eval()
    rehearsal = rehearsal_of(mutator, task_of(train_dataset=Augmented))
    state = copy.deepcopy(mutator.model.state_dict())
    buffers = [id(buffer) for buffer in mutator.model.buffers()]
    randomness = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    private = mutator.generator.get_state()
    assert rehearsal.failure() is None
    assert rehearsal.shapes() == {((3, 2, 3, 3),), ((2, 2, 3, 3),)}
    assert all(torch.equal(value, state[name]) for name, value in mutator.model.state_dict().items())
    assert buffers == [id(buffer) for buffer in mutator.model.buffers()]
    assert torch.equal(torch.get_rng_state(), randomness[0])
    assert torch.equal(mutator.generator.get_state(), private)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == randomness[1:]
    assert mutator.model.training
    assert not mutator.model.drop.training
    assert not mutator.model._forward_pre_hooks


def trainer_of(accelerate: Any = None, model: nn.Module | None = None, **options: Any) -> BilevelTrainer:
    task = task_of(train_dataset=images)
    train, valid = build_batches(task, DataSettings(batch_size=3, valid_fraction=0.4))
    mutator = bound(model=model)
    return BilevelTrainer(
        mutator.model, task, train, valid, 2, mutator=mutator, accelerate=accelerate,
        generators={"mutator": mutator.generator}, **options,
    )  # fmt: skip


def channels_last(model: nn.Module, mutator: Mutator | None) -> nn.Module:
    set_memory_format(model, torch.channels_last)
    return model


def test_a_run_goes_on_in_another_memory_format() -> None:
    states: list[dict[str, Tensor]] = []

    def undropped(accelerate: Any) -> BilevelTrainer:
        trainer = trainer_of(accelerate)
        trainer.model.drop.p = 0.0  # it draws its numbers in the order of memory
        return trainer

    for first, second in ((None, None), (None, channels_last), (channels_last, None), (channels_last, channels_last)):
        begun = undropped(first)
        batch = begun.to_device(next(iter(begun.train_batches.epoch(0))))
        begun.train_batch(batch)
        state = copy.deepcopy(begun.state_dict())
        other = undropped(second)
        other.load_state_dict(state)
        assert strides(other.model) == (FIRST if second is None else LAST)
        other.train_batch(batch)
        states.append(other.model.state_dict())
    for state in states[1:]:
        for name, value in states[0].items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


def test_momentum_starts_in_the_order_of_its_weights() -> None:
    trainer = trainer_of(channels_last)
    buffers = [trainer.optimizer.state[one]["momentum_buffer"] for one in trainer.model.parameters()]
    assert [one.stride() for one in buffers] == [one.stride() for one in trainer.model.parameters()]


# ---- compiler


class Graphs:
    """A backend that counts what it is given, and runs it as it is."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.count += 1
        return graph.forward


FULL = {((3, 2, 3, 3),)}


@pytest.fixture
def forget_programs() -> Any:
    """What was compiled is forgotten before and after the test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def halves(trainer: BilevelTrainer, batch: Any) -> list[Tensor]:
    """The gradients of both halves, and an evaluation."""
    trainer.model.train()
    of_architecture = trainer.architecture_gradients(batch, batch)
    loss = trainer.training_step(batch)[0]
    of_weights = torch.autograd.grad(loss, list(trainer.model.parameters()))
    trainer.model.eval()
    with torch.no_grad():
        trainer.searching.reset()
        output = trainer.network(batch[0])
    return [*of_architecture, *of_weights, output]


@pytest.mark.usefixtures("forget_programs")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own look at it
def test_one_graph_a_mode_and_none_for_a_reset() -> None:
    graphs = Graphs()
    compiled = trainer_of(lambda model, mutator: CompiledNetwork(model, FULL, graphs), built().double())
    plain = trainer_of(model=built().double())
    for trainer in (plain, compiled):
        trainer.model.drop.p = 0.0  # compiled, it draws other numbers
    batch = next(iter(plain.train_batches.epoch(0)))
    batch = [batch[0].double(), batch[1]]
    counts = []
    for number in range(3):
        shift = torch.randn(plain.searching.logits.shape, generator=torch.Generator().manual_seed(number))
        for trainer in (plain, compiled):
            with torch.no_grad():
                trainer.searching.logits.add_(shift)
        for ours, theirs in zip(halves(compiled, batch), halves(plain, batch), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        counts.append(graphs.count)
    assert counts == [3, 3, 3]  # architecture, weights, evaluation; no part of them runs uncompiled


class Told(nn.Module):
    """Says which of its inputs were compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.5

    def forward(self, x: Tensor, more: dict[str, list[Tensor]] | None = None) -> Tensor:
        return x + 1 if torch.compiler.is_compiling() else x


@pytest.mark.usefixtures("forget_programs")
def test_other_shapes_run_uncompiled() -> None:
    graphs = Graphs()
    network = CompiledNetwork(Told(), {((2,),), ((2,), (1,))}, graphs)
    assert network(torch.zeros(2)).tolist() == [1, 1]
    assert network(torch.zeros(3)).tolist() == [0, 0, 0]
    assert network(torch.zeros(2), more={"a": [torch.zeros(1)]}).tolist() == [1, 1]
    assert network(torch.zeros(2), more={"a": [torch.zeros(2)]}).tolist() == [0, 0]
    assert graphs.count == 1  # the dictionary is not used


def test_a_compiled_network_has_the_attributes_of_its_model() -> None:
    model = Told()
    network = CompiledNetwork(model, FULL, Graphs())
    network.rate = 0.25
    assert (network.rate, model.rate) == (0.25, 0.25)
    assert list(network.parameters()) == []


@pytest.mark.usefixtures("forget_programs")
def test_what_the_compiler_cannot_do_is_said() -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("C++ compile error\nmany lines")

    network = CompiledNetwork(Told(), {((2,),)}, broken)
    with pytest.raises(EnvironmentFailure, match=r"^torch.compile failed: C\+\+ compile error$"):
        network(torch.zeros(2))


def test_weights_rest_only_where_the_network_is_compiled() -> None:
    for accelerate, resting in ((None, False), (lambda model, mutator: Told(), True)):
        trainer = trainer_of(accelerate)
        frozen = trainer.model.head.bias.requires_grad_(False)
        with trainer.weights_at_rest():
            assert {one.requires_grad for one in trainer.model.parameters() if one is not frozen} == {not resting}
        assert [one for one in trainer.model.parameters() if not one.requires_grad] == [frozen]


def test_a_compiler_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentFailure, match=r"needs a C\+\+ compiler, and 'no-such-compiler' is not on the PATH$"):
        Acceleration(compile=True).check(bound())
    there = tmp_path / "c++"
    there.write_text("")
    there.chmod(0o755)
    monkeypatch.setenv("CXX", str(there))
    require_compiler()


# ---- refusals


@pytest.mark.parametrize(
    ("options", "make", "message"),
    [
        ({"compile": True, "recompute": True}, DartsMutator, "`compile` and `recompute` exclude each other"),
        ({"compile": True}, RandomMutator, "^`compile` needs a mutator that weights all .*, RandomMutator does not$"),
        ({"recompute": True}, GdasMutator, "^`recompute` needs a mutator that weights all .*, GdasMutator does not$"),
        ({"compile": True}, PdartsMutator, "^`compile` needs one fixed graph, that of PdartsMutator changes"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, bool], make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Acceleration(**options).check(bound(make))


def test_a_memory_format_without_images_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^`memory_format` channels-last does nothing: the model has no weights of"):
        Acceleration("channels-last").check(bound(model=built(Vectors)))


def test_recomputation_follows_the_trainer_to_its_mutator() -> None:
    mutator = bound()
    accelerate = Acceleration(recompute=True).prepare(rehearsal_of(mutator), lambda line: None)
    assert accelerate(mutator.model, mutator) is mutator.model
    assert mutator.recomputes
