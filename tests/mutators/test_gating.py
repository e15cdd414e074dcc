"""Candidates that only serve a gradient leave no trace, and what a gate cannot serve is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnas_core import LayerChoice
from nnas_core.errors import UserCodeError
from nnas_core.mutators.proxyless import ProxylessMutator
from tests.mutables.sample_models import OneInput, OneLayer, Times, times
from tests.mutables.tried_candidates import try_all

MODES = ["full", "full_v2", "two"]


def first_chosen(model: nn.Module, mode: str = "full_v2") -> ProxylessMutator:
    """A mutator that (all but) always runs the first candidate."""
    mutator = ProxylessMutator(model, torch.Generator().manual_seed(0), mode=mode)
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([30.0, *[0.0] * (mutator.logits.shape[1] - 1)]))
    mutator.reset()
    return mutator


def gradient_of(mutator: ProxylessMutator, loss: Tensor) -> Tensor:
    return torch.autograd.grad(loss, [mutator.logits])[0][0] * torch.tensor(30.0).exp()


@pytest.mark.parametrize("mode", MODES)
def test_random_numbers_are_those_of_the_call_and_the_state_is_put_back(mode: str) -> None:
    model = OneLayer([nn.Sequential(Times(1), nn.Dropout(0.5)), nn.Sequential(Times(3), nn.Dropout(0.5))], key="op")
    mutator = first_chosen(model, mode)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    start = torch.get_rng_state()
    output = model(x)
    after_forward = torch.get_rng_state()
    found = gradient_of(mutator, (output * x).sum())
    assert torch.equal(torch.get_rng_state(), after_forward)
    torch.set_rng_state(start)
    alone = nn.functional.dropout(x, 0.5)
    assert torch.equal(alone, output)
    assert torch.equal(torch.get_rng_state(), after_forward)
    # two gates, p of the second all but zero: its gradient is p (dL/dg_2 - dL/dg_1), and both saw one noise
    expected = (3 * alone * x).sum() - (alone * x).sum()
    assert found[1].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_a_candidate_that_draws_more_leaves_the_random_state_alone(mode: str) -> None:
    model = OneLayer([nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))], key="op")
    mutator = first_chosen(model, mode)
    start = torch.get_rng_state()
    x = torch.ones(100)
    loss = model(x).sum()
    gradient_of(mutator, loss)
    after = torch.get_rng_state()
    torch.set_rng_state(start)
    nn.functional.dropout(x, 0.5)
    assert torch.equal(torch.get_rng_state(), after)


class Counting(nn.Module):
    """Any buffer counts, not only those of BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.norm = nn.BatchNorm1d(3, momentum=None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(x)


@pytest.mark.parametrize("mode", MODES)
def test_buffers_of_candidates_that_were_not_chosen_stay_as_they_are(mode: str) -> None:
    chosen, other = Counting(), Counting()
    model = OneLayer([chosen, other], key="op")
    mutator = first_chosen(model, mode)
    before = dict(other.named_buffers())
    values = {name: buffer.clone() for name, buffer in before.items()}
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    gradient_of(mutator, model(x).square().sum())
    assert chosen.calls == 1
    assert chosen.norm.num_batches_tracked == 1
    for name, buffer in other.named_buffers():
        assert buffer is before[name]
        assert torch.equal(buffer, values[name])


@pytest.mark.parametrize("mode", MODES)
def test_a_module_may_be_a_candidate_of_several_choices(mode: str) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            norm = nn.BatchNorm1d(3)
            self.one = LayerChoice([norm, nn.Tanh()], key="one")
            self.other = LayerChoice([nn.Tanh(), norm], key="other")  # what runs at one is not chosen at the other

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.one(x))

    model = Shared()
    mutator = first_chosen(model, mode)
    gradient_of(mutator, model(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).square().sum())
    assert model.one[0].num_batches_tracked == 1


@pytest.mark.parametrize("mode", MODES)
def test_autocast_is_that_of_the_call(mode: str) -> None:
    seen: list[torch.dtype] = []

    class Noting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            output = super().forward(x)
            seen.append(output.dtype)
            return output

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OneLayer([Noting(16, 16), Noting(16, 16)], key="op")
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for enabled in (False, True):
        mutator = first_chosen(model, mode)
        try_all(model, x)
        del seen[2 * len(found) :]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = model(x)
        found.append(gradient_of(mutator, output.float().square().sum()))
        mutator.unbind()
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=0.02, atol=0.0)


def test_arguments_of_any_kind_reach_candidates_that_run_later() -> None:
    class Takes(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, x: Tensor, times: int, extra: list[Tensor], *, shift: Tensor | None = None) -> Tensor:
            return self.factor * x * times + extra[0] + (0 if shift is None else shift)

    model = OneLayer([Takes(1), Takes(3)], key="op")
    mutator = first_chosen(model)
    x = torch.arange(1.0, 4.0)
    found = gradient_of(mutator, model(x, 2, [x], shift=x).sum())
    assert found[1].item() == pytest.approx((3 - 1) * 2 * 6, rel=1e-5)


def test_what_follows_may_change_the_output_in_place() -> None:
    model = OneLayer(times(1, 3), key="op")
    mutator = first_chosen(model)
    x = torch.tensor([-1.0, 2.0])
    found = gradient_of(mutator, model(x).relu_().sum())
    assert found[1].item() == pytest.approx(2 * 2, rel=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("mode", MODES)
def test_a_candidate_that_changes_its_input_has_its_own(mode: str, order: tuple[int, int]) -> None:
    x = torch.tensor([-1.0, 3.0])
    found = []
    for inplace in (False, True):
        candidates = [nn.ReLU(inplace=inplace), Times(2)]
        model = OneLayer([candidates[index] for index in order], key="op")
        mutator = first_chosen(model, mode)
        for _ in range(2):  # the first pass finds out
            found.append(gradient_of(mutator, (model(x.clone()) * torch.tensor([1.0, 10.0])).sum()))
            mutator.reset()
    of_gates = [10 * 3.0, -2 + 10 * 6.0]
    first, second = (of_gates[index] for index in order)
    for one in found:
        assert one[1].item() == pytest.approx(second - first, rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_a_candidate_that_gives_no_tensor_is_refused(mode: str) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    model = OneLayer([Times(1), Pair()], key="op")
    mutator = first_chosen(model, mode)
    with pytest.raises(UserCodeError, match=r"'1' of 'op' gives \(\[2\], \[2\]\), a gate needs a tensor") as caught:
        gradient_of(mutator, model(torch.ones(2)).sum())
    assert "use another mutator: enas, fairnas, gdas, random, spos" in (caught.value.hint or "")


def test_unequal_shapes_are_refused() -> None:
    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1]

    x = torch.ones(2, 3)
    model = OneLayer([Times(1), Narrow()], key="op")
    with pytest.raises(UserCodeError, match=r"'op' chooses among has unequal shapes, \[2, 1\] and \[2, 3\]"):
        gradient_of(first_chosen(model), model(x).sum())
    inputs = OneInput(2, n_chosen=1, key="pick")
    with pytest.raises(UserCodeError, match=r"'pick' chooses among has unequal shapes, \[2, 1\] and \[2, 3\]"):
        gradient_of(first_chosen(inputs), inputs([x, x[:, :1]]).sum())
