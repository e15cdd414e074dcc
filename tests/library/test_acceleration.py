"""Memory format and compiler: what is chosen, that numbers stay, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice, RandomMutator
from nnas_core.acceleration import Acceleration, CompiledNetwork, Rehearsal, require_compiler
from nnas_core.data import DataSettings, build_batches
from nnas_core.errors import EnvironmentFailure, UsageError
from nnas_core.mutator import Mutator
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.task import Task
from tests.library.training import task_of

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format


class Images(nn.Module):
    """Two mixed convolutions; ``flatten`` makes one row an image of the second one's output."""

    def __init__(self, flatten: str = "reshape") -> None:
        super().__init__()
        self.first = LayerChoice([nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1)], key="first")
        self.norm = nn.BatchNorm2d(4)
        self.second = LayerChoice([nn.Conv2d(4, 4, 3, padding=1), nn.Identity()], key="second")
        self.flatten = flatten
        self.head = nn.Linear(4 * 5 * 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.norm(self.first(x))))
        rows = x.view(len(x), -1) if self.flatten == "view" else x.reshape(len(x), -1)
        return self.head(rows)


def images(count: int = 20) -> TensorDataset:
    x = torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, torch.arange(count) % 3)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def built(flatten: str = "reshape") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Images(flatten)


def rehearsal(mutator: Mutator, task: Task | None = None, precision: str = "float32", **generators: Any) -> Rehearsal:
    task = task or task_of(train_dataset=images)
    train, valid = build_batches(task, DataSettings(batch_size=4))
    return Rehearsal(mutator, task, [train], [valid], torch.device("cpu"), precision, generators)


def chosen(mutator: Mutator, option: str = "auto", **others: Any) -> tuple[torch.memory_format, list[str]]:
    warnings: list[str] = []
    return Acceleration(option).choose(rehearsal(mutator, **others), warnings.append), warnings


# ---- memory format


def test_channels_last_is_chosen_where_every_candidate_runs_in_each_pass() -> None:
    assert chosen(DartsMutator(built(), seeded())) == (CHANNELS_LAST, [])


@pytest.mark.parametrize("make", [GdasMutator, RandomMutator])
def test_a_mutator_of_one_path_leaves_the_model_as_it_is(make: type[Any]) -> None:
    assert chosen(make(built(), seeded())) == (None, [])


def test_double_precision_and_models_without_images_stay_as_they_are() -> None:
    assert chosen(DartsMutator(built().double(), seeded()), precision="float64") == (None, [])
    net = nn.Sequential(LayerChoice([nn.Linear(4, 2), nn.Linear(4, 2)], key="op"))
    assert chosen(DartsMutator(net, seeded())) == (None, [])


def test_a_model_that_fails_in_channels_last_stays_contiguous_and_says_why() -> None:
    model = built("view")
    found, warnings = chosen(DartsMutator(model, seeded()))
    assert found is CONTIGUOUS
    assert len(warnings) == 1
    assert warnings[0].startswith("the model fails in the memory format channels-last (view size is not compatible")
    assert warnings[0].endswith("use reshape() instead of view()")
    assert model.first[0].weight.is_contiguous()


def test_what_is_asked_for_is_taken() -> None:
    assert chosen(RandomMutator(built(), seeded()), "channels-last") == (CHANNELS_LAST, [])
    assert chosen(DartsMutator(built(), seeded()), "contiguous") == (CONTIGUOUS, [])


def test_the_rehearsal_leaves_nothing_behind() -> None:
    generator = seeded()
    mutator = DartsMutator(built(), generator)
    before = {name: value.clone() for name, value in mutator.model.state_dict().items()}
    states = torch.get_rng_state(), generator.get_state()
    mutator.model.head.eval()
    modes = [module.training for module in mutator.model.modules()]
    chosen(mutator)
    assert all(torch.equal(value, before[name]) for name, value in mutator.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])
    assert [module.training for module in mutator.model.modules()] == modes


def test_channels_last_changes_strides_and_no_value() -> None:
    model = built()
    mutator = DartsMutator(model, seeded())
    mutator.reset()
    x = images().tensors[0]
    contiguous = model(x)
    accelerate = Acceleration("channels-last").prepare(rehearsal(mutator), lambda line: None)
    assert accelerate(model, mutator) is model
    assert model.first[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), contiguous, rtol=1e-4, atol=1e-5)


# ---- compiler


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # the compiler imports what uses it
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at it
def test_a_compiled_supernet_computes_the_same_and_is_compiled_once_for_all_resets() -> None:
    model = built()
    mutator = DartsMutator(model, seeded())
    x, y = images().tensors
    compiled = CompiledNetwork(model, [(tuple(x.shape),)])
    parameters = [mutator.logits, *model.parameters()]
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in range(3):
            with torch.no_grad():
                mutator.logits.add_(number)
                mutator.logits[0, 0] += 1
            gradients = []
            for network in (compiled, model):
                mutator.reset()
                gradients.append(torch.autograd.grad(F.cross_entropy(network(x), y), parameters))
            for ours, expected in zip(*gradients, strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # the compiler imports what uses it
def test_inputs_of_other_shapes_run_uncompiled() -> None:
    model = built().eval()
    mutator = DartsMutator(model, seeded())
    mutator.reset()
    x = images().tensors[0]
    compiled = CompiledNetwork(model, [])
    assert torch.equal(compiled(x), model(x))
    assert compiled.flatten == "reshape"
    compiled.flatten = "other"
    assert model.flatten == "other"


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "make", "message"),
    [
        ({"compile": True, "recompute": True}, DartsMutator, "--compile and --recompute exclude each other"),
        ({"compile": True}, GdasMutator, "--compile needs a mutator that weights all candidates"),
        ({"recompute": True}, RandomMutator, "--recompute needs a mutator that weights all candidates"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, bool], make: type[Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        Acceleration(**options).check(make(built(), seeded()))


def test_channels_last_without_images_would_do_nothing() -> None:
    net = nn.Sequential(LayerChoice([nn.Linear(4, 2), nn.Linear(4, 2)], key="op"))
    with pytest.raises(UsageError, match=r"^--memory-format channels-last does nothing: the model has no weights of"):
        Acceleration("channels-last").check(DartsMutator(net, seeded()))


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EnvironmentFailure, match=r"needs a C\+\+ compiler, and 'no-such-compiler' is not on the PATH"):
        require_compiler()
