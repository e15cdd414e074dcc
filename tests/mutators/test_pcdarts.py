"""PC-DARTS: its forward pass and its derivation against numbers worked out here, and against DARTS where they agree."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnas_core import InputChoice, LayerChoice
from nnas_core.errors import BindingError, UsageError, UserCodeError
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.pcdarts import PcdartsMutator, PcdartsTrainer, shuffle_channels
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.trainer import Callback
from tests.mutables.sample_models import OneInput, OneLayer
from tests.mutators.darts_variant_searches import different, run, searcher


def block(channels: int, key: str, stride: int = 1) -> LayerChoice:
    candidates = OrderedDict(
        conv=nn.Conv2d(channels, channels, 3, stride, padding=1),
        pool=nn.AvgPool2d(3, stride, padding=1),
        point=nn.Conv2d(channels, channels, 1, stride),
    )
    return LayerChoice(candidates, key=key)


class Nodes(nn.Module):
    """Points ``[N, 4]`` become images ``[N, width, 2, 2]``; two operations and an edge between them.

    Args:
        divided: the candidates are built for ``width // divided`` channels.
    """

    def __init__(self, divided: int = 1, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4 * width)
        self.a = block(width // divided, "a")
        self.b = block(width // divided, "b")
        self.pick = InputChoice(choose_from=["a", "b"], n_chosen=1, key="pick")
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).unflatten(1, (-1, 2, 2))
        a = self.a(stem)
        return self.head(self.norm(self.pick([a, self.b(a)])).mean((2, 3)))


def model_for(divided: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Nodes(divided)


# ---- where it is DARTS


@pytest.mark.parametrize("order", [1, 2])
def test_on_all_channels_without_edge_weights_and_warm_up_it_is_darts_to_the_bit(order: Any) -> None:
    both = {"learning_rate": 0.1, "order": order}
    alike = {"k": 1, "edge_normalization": False, "warmup_epochs": 0}
    plain = run(searcher(partial(DartsMutator, **both), model_for(1)))
    trainer = searcher(partial(PcdartsMutator, **both, **alike), model_for(1))
    assert different(plain, run(trainer)) == []
    assert trainer.step == 12
    assert trainer.mutator.final_architecture().masks()["pick"] in ([True, False], [False, True])


# ---- channels


def test_channels_are_shuffled_as_in_a_table_of_their_numbers() -> None:
    x = torch.arange(12.0).view(1, 12, 1).expand(2, 12, 3)
    assert shuffle_channels(x, 3)[1, :, 2].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert shuffle_channels(torch.arange(8.0).view(1, 8), 4)[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize(("k", "stride"), [(4, 1), (2, 2), (4, 2)])
def test_a_layer_choice_is_what_the_paper_writes(k: int, stride: int) -> None:
    """Equation 2, channel by channel: the mixture of candidates on some channels, the others as they are."""
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    choice = block(8 // k, "a", stride).double()
    mutator = PcdartsMutator(model := nn.Sequential(choice), torch.Generator().manual_seed(0), k=k, zero=True)
    planted = torch.tensor([[0.3, -1.0, 0.5, 0.1]], dtype=torch.float64)
    mutator.logits.data.copy_(planted)
    mutator.reset()
    output = model(x)

    p = (planted[0].exp() / planted[0].exp().sum())[:3]
    part = 8 // k
    conv, pool, point = (one(x[:, :part]) for one in choice.candidates)
    expected = torch.empty_like(output)
    for channel in range(8):
        if channel < part:
            value = p[0] * conv[:, channel] + p[1] * pool[:, channel] + p[2] * point[:, channel]
        else:
            value = x[:, channel]
            if stride == 2:
                value = value.unflatten(2, (3, 2)).unflatten(1, (3, 2)).amax((2, 4))
        group, number = divmod(channel, 8 // k)
        expected[:, number * k + group] = value
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)

    direction = torch.randn_like(output)
    gradient = torch.autograd.grad((output * direction).sum(), mutator.logits)[0][0]
    inner = direction[:, [number * k for number in range(part)]]
    products = torch.stack([(inner * one).sum() for one in (conv, pool, point)] + [torch.zeros(()).double()])
    softmax = planted[0].softmax(0)
    torch.testing.assert_close(gradient, softmax * (products - (softmax * products).sum()), rtol=1e-10, atol=1e-12)


def test_sizes_that_the_stride_does_not_divide_are_pooled_too() -> None:
    model = nn.Sequential(block(2, "a", 2))
    PcdartsMutator(model, k=4).reset()
    x = torch.rand(1, 8, 5, 7)
    output = model(x)
    assert output.shape == (1, 8, 3, 4)
    assert output[0, 1, 0, 0] == x[0, 2, :2, :2].max()  # the second group's first channel, in its first window


@pytest.mark.parametrize("dims", [0, 1, 3])
def test_inputs_of_other_dimensions(dims: int) -> None:
    make = {0: nn.Linear, 1: lambda a, b: nn.Conv1d(a, b, 1), 3: lambda a, b: nn.Conv3d(a, b, 1)}[dims]
    model = OneLayer([make(2, 2), nn.Identity()], return_mask=True)
    PcdartsMutator(model, k=2).reset()
    output, mask = model(x := torch.randn(2, 4, *[3] * dims))
    assert output.shape == x.shape
    assert torch.equal(output[:, 1], x[:, 2])
    assert mask.shape == (2,)


def test_further_arguments_reach_the_candidates() -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor, shift: float, *, factor: float) -> Tensor:
            return (x + shift) * factor

    model = OneLayer([Shifted()])
    PcdartsMutator(model, k=2, zero=False).reset()
    assert model(torch.tensor([[1.0, 2.0]]), 3.0, factor=10.0).tolist() == [[40.0, 2.0]]


def test_a_hard_architecture_runs_on_its_part_of_the_channels_too() -> None:
    model = model_for()
    mutator = PcdartsMutator(model)
    mutator.apply_architecture(mutator.space.parse({"a": "conv", "b": "pool", "pick": "b"}))
    x = torch.randn(2, 8, 2, 2)
    joined = torch.cat([model.a[0](x[:, :2]), x[:, 2:]], dim=1)
    assert torch.equal(model.a(x), joined[:, [0, 2, 4, 6, 1, 3, 5, 7]])


def test_nothing_chosen_gives_nothing() -> None:
    model = model_for()
    mutator = PcdartsMutator(model)
    mutator.binding.decide({"a": [False] * 3, "b": [True] * 3, "pick": [True, True]}, lambda: "the test")
    assert model.a(torch.zeros(1, 8, 2, 2)) is None


def test_the_architecture_fits_the_final_model_of_full_width() -> None:
    trainer = searcher(PcdartsMutator, model_for())
    trainer.train()
    final = Nodes(divided=1)
    space = SearchSpace.from_model(final)
    assert space == trainer.mutator.space
    space.validate(trainer.mutator.final_architecture())


def test_choices_that_need_all_channels_are_named() -> None:
    model = OneLayer([nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)], key="stem")
    PcdartsMutator(model, k=4, whole=["stem"]).reset()
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    ("candidates", "shape", "message"),
    [
        (
            lambda: [nn.Conv2d(1, 1, 1)],
            (2, 6, 4, 4),
            r"^op: the candidates of 'op' cannot run on 1/4 of the channels of an input of shape \[2, 6, 4, 4\]$",
        ),
        (
            lambda: [nn.Conv2d(8, 8, 1)],
            (2, 8, 4, 4),
            r"^op: the candidates of 'op' do not take 2 channels, 1/4 of the 8 given: .* to have 8 channels",
        ),
        (
            lambda: [nn.Conv2d(2, 8, 1)],
            (2, 8, 4, 4),
            r"turn 2 channels, 1/4 of the 8 given, into the shape \[2, 8, 4, 4\]; they must keep the number",
        ),
        (lambda: [nn.Identity()], (8,), r"of an input of shape \[8\]$"),
    ],
)
def test_candidates_that_do_not_fit_their_part_are_named_in_the_first_pass(
    candidates: Callable[[], list[nn.Module]], shape: tuple[int, ...], message: str
) -> None:
    model = OneLayer(candidates(), key="op")
    PcdartsMutator(model).reset()
    with pytest.raises(UserCodeError, match=message) as caught:
        model(torch.zeros(shape))
    assert caught.value.hint is not None
    assert "channels // 4" in caught.value.hint
    assert "whole=['op']" in caught.value.hint


def test_an_input_that_is_no_tensor_is_refused() -> None:
    model = OneLayer([nn.Identity()], key="op")
    PcdartsMutator(model).reset()
    with pytest.raises(UserCodeError, match=r"of an input of type list$"):
        model([1.0])


# ---- edges


def test_inputs_are_weighted_by_a_softmax_of_their_own_logits() -> None:
    model = OneInput(n_candidates=3, n_chosen=2, return_mask=True, key="pick")
    mutator = PcdartsMutator(model, k=4)
    mutator.logits.data[0, :3] = torch.tensor([0.0, 1.0, -1.0])
    mutator.reset()
    output, mask = model([torch.tensor([1.0]), torch.tensor([10.0]), torch.tensor([100.0])])
    e = 2.718281828459045
    expected = [weight / (1 + e + 1 / e) for weight in (1, e, 1 / e)]
    torch.testing.assert_close(mask, torch.tensor(expected))
    torch.testing.assert_close(output, torch.tensor([expected[0] + 10 * expected[1] + 100 * expected[2]]))


@pytest.mark.parametrize(("n_chosen", "normalize"), [(None, True), (1, False)])
def test_inputs_without_weights_are_added_as_in_darts(n_chosen: int | None, normalize: bool) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Identity()], key="op")
            self.pick = InputChoice(n_candidates=2, n_chosen=n_chosen, key="pick")

        def forward(self, x: Tensor) -> Tensor:
            return self.pick([self.op(x), x])

    mutator = PcdartsMutator(model := Both(), k=1, zero=False, edge_normalization=normalize)
    assert [row.key for row in mutator.rows] == ["op"]
    mutator.reset()
    assert model(torch.tensor([[3.0]])).tolist() == [[6.0]]
    if n_chosen is None:
        assert mutator.final_architecture().masks()["pick"] == [True, True]


def planted(edges: list[float], **options: Any) -> PcdartsMutator:
    """Operations with the largest weights 0.5 (a) and 0.4 (b), without a slot for zero; then edges."""
    mutator = PcdartsMutator(Nodes(), k=1, zero=False, **options)
    rows = {row.key: row.index for row in mutator.rows}
    mutator.logits.data[rows["a"]] = torch.tensor([0.3, 0.5, 0.2]).log()
    mutator.logits.data[rows["b"]] = torch.tensor([0.4, 0.35, 0.25]).log()
    if "pick" in rows:
        mutator.logits.data[rows["pick"], :2] = torch.tensor(edges).log()
    return mutator


@pytest.mark.parametrize(
    ("edges", "chosen"),
    [
        ([0.50, 0.50], "a"),  # 0.250 against 0.200
        ([0.46, 0.54], "a"),  # 0.230 against 0.216: the weaker edge, with the stronger operation
        ([0.43, 0.57], "b"),  # 0.215 against 0.228
    ],
)
def test_the_final_inputs_have_the_largest_product_of_both_weights(edges: list[float], chosen: str) -> None:
    final = planted(edges).final_architecture().masks()
    assert final == {"a": [False, True, False], "b": [True, False, False], "pick": [chosen == "a", chosen == "b"]}


def test_without_edge_weights_the_final_inputs_have_the_strongest_operations() -> None:
    assert planted([], edge_normalization=False).final_architecture().masks()["pick"] == [True, False]


def test_an_input_without_operation_counts_with_its_edge_alone() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice([nn.Identity(), nn.Tanh()], key="op")
            self.pick = InputChoice(choose_from=["op", InputChoice.NO_KEY], n_chosen=1, key="pick")

    mutator = PcdartsMutator(Direct(), k=1, zero=False)
    mutator.logits.data.copy_(torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log())
    assert mutator.final_architecture().masks()["pick"] == [False, True]  # 0.6 * 0.6 against 0.4 * 1
    mutator.logits.data[1] = torch.tensor([0.7, 0.3]).log()
    assert mutator.final_architecture().masks()["pick"] == [True, False]  # 0.7 * 0.6 against 0.3 * 1


# ---- the loop


def test_the_architecture_stays_during_the_warm_up() -> None:
    seen: list[Tensor] = []

    class Watch(Callback):
        def on_epoch_end(self, epoch: int) -> None:
            seen.append(self.trainer.mutator.logits.detach().clone())

    trainer = searcher(partial(PcdartsMutator, warmup_epochs=2), model_for(), callbacks=[Watch()])
    before = trainer.mutator.logits.detach().clone()
    trainer.train()
    assert [torch.equal(one, before) for one in seen] == [True, True, False]


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (3, 0), (4, 1), (10, 3), (50, 15)])
def test_by_default_the_warm_up_takes_the_papers_part_of_the_epochs(epochs: int, expected: int) -> None:
    assert searcher(PcdartsMutator, model_for(), epochs=epochs).warmup == expected


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions(precision: str) -> None:
    model = model_for().to(torch.float64 if precision == "float64" else torch.float32)
    trainer = searcher(PcdartsMutator, model, precision=precision, epochs=1)
    before = trainer.mutator.logits.detach().clone()
    trainer.train()
    assert trainer.mutator.logits.dtype == next(model.parameters()).dtype
    assert not torch.equal(before, trainer.mutator.logits)


@pytest.mark.parametrize("step", [2, 4, 7])
def test_it_goes_on_from_any_step_to_the_bit(step: int) -> None:
    def begun(stop: int | None) -> PcdartsTrainer:
        return searcher(partial(PcdartsMutator, warmup_epochs=1), model_for(), stop=stop)

    first, second = begun(step), begun(None)
    run(first)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert different(run(begun(None)), run(second)) == []


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "^k=0 is out of range$"),
        ({"warmup_epochs": -1}, "^warmup_epochs=-1 is out of range$"),
        ({"whole": ["aa"]}, "^whole names 'aa', which is no LayerChoice of the model$"),
        ({"whole": ["pick"]}, "^whole names 'pick', which is no LayerChoice of the model$"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    model = Nodes()
    with pytest.raises(UsageError, match=message) as caught:
        PcdartsMutator(model, **options)
    assert caught.value.hint
    PcdartsMutator(model)  # the model is free again


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^warmup_epochs=3 leaves none of 3 epochs to train the architecture$"):
        searcher(partial(PcdartsMutator, warmup_epochs=3), model_for())


def test_its_loop_needs_its_mutator() -> None:
    class Other(DartsMutator):
        trainer = PcdartsTrainer

    with pytest.raises(BindingError, match=r"PcdartsTrainer needs a PcdartsMutator, not an Other$"):
        searcher(Other, model_for(1))
