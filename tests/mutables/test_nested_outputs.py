"""Candidates that give several tensors are weighted element by element, or refused with what each of them gives."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice
from nnas_core.errors import UserCodeError
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.gdas import GdasMutator
from nnas_core.mutators.pcdarts import PcdartsMutator
from tests.mutables.sample_models import OneLayer, decided

Pair = namedtuple("Pair", "first second")
X = torch.tensor([[1.0, -2.0]])


class Gives(nn.Module):
    """Gives ``make(x * factor)``."""

    def __init__(self, factor, make):
        super().__init__()
        self.factor = factor
        self.make = make

    def forward(self, x):
        return self.make(x * self.factor)


def weighted(make, other=None, **options):
    weights = torch.tensor([0.25, 0.75], requires_grad=True)
    model = OneLayer([Gives(1, make), Gives(3, make if other is None else other)], key="op", **options)
    return decided(model, {"op": weights}), weights


MIXED = X * (0.25 + 0.75 * 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: (x, x + 1), (MIXED, MIXED + 1)),
        (lambda x: [x, (x, None)], [MIXED, (MIXED, None)]),
        (lambda x: {"out": x, "size": 2}, {"out": MIXED, "size": 2}),
        (lambda x: Pair(x, torch.tensor([3])), Pair(MIXED, torch.tensor([3]))),
    ],
)
def test_elements_are_mixed(make, expected):
    model, _ = weighted(make)
    found = model(X)
    assert type(found) is type(expected)
    torch.testing.assert_close(dict(found) if isinstance(found, dict) else list(found), type_free(expected))


def type_free(value):
    return dict(value) if isinstance(value, dict) else list(value)


def test_gradients_reach_the_weights_from_every_element():
    model, weights = weighted(lambda x: (x, 2 * x))
    one, two = model(X)
    (found,) = torch.autograd.grad(one.sum() + two.sum(), weights)
    torch.testing.assert_close(found, 3 * X.sum() * torch.tensor([1.0, 3.0]))


def test_other_reductions_are_element_by_element_too():
    concatenated = weighted(lambda x: (x, x + 1), reduction="concat")[0](X)
    torch.testing.assert_close(concatenated[0], torch.cat([0.25 * X, 0.75 * 3 * X], dim=1))
    listed = weighted(lambda x: (x, 7), reduction="none")[0](X)
    torch.testing.assert_close(listed[1][0], 0.75 * 3 * X)
    assert [one[1] for one in listed] == [7, 7]


@pytest.mark.parametrize(
    ("make", "other", "shown"),
    [
        (lambda x: (x, x), lambda x: (x, x[:, :1]), r"'0' gives .*\[1, 2\]\), '1' gives \(\[1, 2\], \[1, 1\]\)"),
        (lambda x: (x, (x, x)), lambda x: (x, x), r"'0' gives .*, \(\[1, 2\], \[1, 2\]\)\), '1' gives \(\[1, 2\], \["),
        (lambda x: x, lambda x: (x, x), r"'0' gives \[1, 2\], '1' gives \(\[1, 2\], \[1, 2\]\)"),
        (lambda x: {"a": x}, lambda x: {"b": x}, r"'0' gives \{a: \[1, 2\]\}, '1' gives \{b: \[1, 2\]\}"),
        (lambda x: x, lambda x: torch.cat([x, x], 1), r"'0' gives \[1, 2\], '1' gives \[1, 4\]"),
        (lambda x: (x, 1), lambda x: (x, 2), r"'0' gives \(\[1, 2\], int\), '1' gives \(\[1, 2\], int\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_named_with_shapes(make, other, shown):
    with pytest.raises(UserCodeError, match=rf"op: the outputs of the candidates of 'op' cannot be mixed: {shown}"):
        weighted(make, other)[0](X)


def rnns(*layers):
    return LayerChoice([nn.GRU(2, 2, one, batch_first=True) for one in layers], key="rnn")


def test_algorithms_that_can_are_named():
    model = nn.Sequential(rnns(1, 2))
    mutator = DartsMutator(model)
    mutator.reset()
    with pytest.raises(UserCodeError, match=r"'1' gives \(\[3, 4, 2\], \[2, 3, 2\]\)") as caught:
        model(torch.randn(3, 4, 2))
    assert caught.value.hint.endswith("runs what is chosen only: enas, fairnas, gdas, random, spos")


def test_gdas_learns_from_every_element():
    model = nn.Sequential(rnns(1, 2))
    mutator = GdasMutator(model, torch.Generator().manual_seed(0))
    mutator.reset()
    output, state = model(torch.randn(3, 4, 2))
    of_output, of_both = (
        torch.autograd.grad(one, mutator.logits, retain_graph=True)[0][0]
        for one in (output.sum(), output.sum() + state.sum())
    )
    assert of_output.abs().sum() > 0
    assert not torch.equal(of_output, of_both)


def test_part_of_the_channels_takes_tensors_only():
    model = nn.Sequential(LayerChoice([Gives(1, lambda x: (x, x)), Gives(2, lambda x: (x, x))], key="op"))
    PcdartsMutator(model, k=2).reset()
    with pytest.raises(UserCodeError, match="0: the candidates of 'op' give a tuple, where part of the"):
        model(torch.randn(2, 4))


def test_several_chosen_candidates_that_give_tuples_are_refused():
    model = OneLayer([Gives(1, lambda x: (x, x)), Gives(2, lambda x: (x, x))], key="op")
    decided(model, {"op": [True, True]})
    with pytest.raises(UserCodeError, match=r"cannot be mixed: '0' gives \(\[1, 2\], \[1, 2\]\)") as caught:
        model(X)
    assert caught.value.hint == "choose one of them, or use reduction 'none'"
