"""DARTS against closed forms, and NNI's rules for the final architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from nnas_core import InputChoice, LayerChoice
from nnas_core.errors import UsageError
from nnas_core.mutators.darts import DartsMutator
from tests.mutators.float64_supernet import SECOND, Net, gradient_of, trainer_of

# ---- closed forms


class Plain(DartsMutator):
    """The weights are the logits."""

    def relaxed(self) -> Tensor:
        return self.logits * 1.0


class Parabola(nn.Module):
    """``w - a c - t``, where the batch says what c and t are."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([2.0]))
        self.op = LayerChoice([nn.Identity()], key="a")

    def forward(self, x: Tensor) -> Tensor:
        return self.w - self.op(x[:, 0]) - x[:, 1]


@pytest.mark.parametrize("options", SECOND.values(), ids=SECOND)
def test_the_closed_form(options: dict[str, Any]) -> None:
    """L_train = (w - a)^2 / 2, L_val = (w - t)^2 / 2, w = 2, a = 0.5, t = -1, rate 0.1.

    w' = 2 - 0.1 * 1.5 = 1.85, and dL_val/da = (w' - t) * dw'/da = 2.85 * 0.1.
    """
    model = Parabola()
    trainer = trainer_of(
        model,
        Plain(model, zero=False, **options),
        lambda weights: SGD(weights, lr=0.1),
        loss=lambda output, target: (output**2).mean() / 2,
    )
    with torch.no_grad():
        trainer.mutator.logits.fill_(0.5)
    target = torch.zeros(1)
    batch, held_out = ([torch.tensor([row], dtype=torch.float64), target] for row in ((1.0, 0.0), (0.0, -1.0)))
    assert gradient_of(trainer, (batch, held_out)).item() == pytest.approx(0.285, rel=1e-9)
    assert model.w.item() == 2.0


@pytest.mark.parametrize("options", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize(
    ("training", "held_out", "rate", "expected"),
    [
        # L_train = w^2 / 2 knows nothing of a: w' = 2 - 0.1 * 2, and L_val = (w' - a)^2 / 2
        (lambda w, a: w, lambda w, a: w - a(), 0.1, -(1.8 - 0.5)),
        # L_val = a^2 / 2 knows nothing of w
        (lambda w, a: w - a(), lambda w, a: a(), 0.1, 0.5),
        # no step: what is left is the first order, at w = 2
        (lambda w, a: w - a(), lambda w, a: w - a(), 0.0, -(2 - 0.5)),
    ],
    ids=["training without architecture", "held-out loss without weights", "rate 0"],
)
def test_where_the_second_order_has_nothing_to_add(
    options: dict[str, Any], training: Any, held_out: Any, rate: float, expected: float
) -> None:
    class Either(Parabola):
        def forward(self, x: Tensor) -> Tensor:
            one = torch.ones(1, dtype=torch.float64)
            return (held_out if x.item() else training)(self.w, lambda: self.op(one))

    model = Either()
    trainer = trainer_of(
        model,
        Plain(model, zero=False, **options),
        lambda weights: SGD(weights, lr=rate),
        loss=lambda output, target: (output**2).mean() / 2,
    )
    with torch.no_grad():
        trainer.mutator.logits.fill_(0.5)
    batches = [[torch.tensor([which], dtype=torch.float64), torch.zeros(1)] for which in (0.0, 1.0)]
    assert gradient_of(trainer, batches).item() == pytest.approx(expected, rel=1e-12)


def test_the_first_order_by_hand() -> None:
    """Logits (0, ln 2, 0), the last for no candidate, are weights (1/4, 1/2, 1/4); candidates give 3 and 5."""
    model = nn.Sequential(LayerChoice([Constant(3.0), Constant(5.0)], key="op"))
    mutator = DartsMutator(model)
    trainer = trainer_of(model, mutator, loss=lambda output, target: (output.squeeze(1) - target).pow(2).mean() / 2)
    with torch.no_grad():
        mutator.logits.copy_(torch.tensor([[0.0, 2.0, 1.0]]).log().masked_fill(torch.tensor([[True, False, False]]), 0))
    held_out = [torch.ones(1, 1, dtype=torch.float64), torch.tensor([1.25], dtype=torch.float64)]
    # the output is 13/4, the residual 2; dL/dlogit_j = residual * p_j * (value_j - output)
    expected = [2 * 0.25 * (3 - 3.25), 2 * 0.5 * (5 - 3.25), 2 * 0.25 * (0 - 3.25)]
    assert gradient_of(trainer, (None, held_out)).tolist() == [pytest.approx(expected)]


class Constant(nn.Module):
    """A number times the input, and a weight to be trained."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.value * x


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"order": 3}, "order=3 is neither 1 nor 2", None),
        ({"order": 2, "hypergradient": "near"}, "hypergradient='near' is neither 'exact' nor 'finite'", None),
        ({"hypergradient": "finite"}, "hypergradient=finite has no effect with order=1", "give order=2 too"),
        (
            {"order": 2, "epsilon": 0.1},
            "epsilon=0.1 has no effect without finite differences",
            "give order=2 and hypergradient=finite too",
        ),
        ({**SECOND["finite"], "epsilon": 0.0}, "epsilon=0.0 is no length, it must be above 0", "the paper has 0.01"),
        ({**SECOND["finite"], "epsilon": float("nan")}, "epsilon=nan is no length", "the paper has 0.01"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        DartsMutator(Net(), **options)
    assert raised.value.hint == hint


# ---- the final architecture


class Edges(nn.Module):
    """Three LayerChoices of unequal sizes, and InputChoices over them."""

    def __init__(self) -> None:
        super().__init__()
        for name, count in (("a", 2), ("b", 3), ("c", 2)):
            setattr(self, name, LayerChoice([nn.Linear(2, 2) for _ in range(count)], key=name))
        self.one = InputChoice(choose_from=["a", "b", "c"], n_chosen=1, key="one")
        self.two = InputChoice(choose_from=["c", "", "a", "b"], n_chosen=2, key="two")
        self.other = InputChoice(choose_from=["one", "", "two"], n_chosen=1, key="other")
        self.any = InputChoice(n_candidates=2, key="any")


def final_of(*rows: tuple[float, ...], zero: bool = True) -> dict[str, list[bool]]:
    """The final masks of ``Edges`` for weights of candidates (and of none, if ``zero``)."""
    mutator = DartsMutator(Edges(), zero=zero)
    with torch.no_grad():
        for row, weights in zip(mutator.rows, rows, strict=True):
            mutator.logits[row.index, mutator.valid[row.index]] = torch.tensor(weights).log()
    return {key: mask.tolist() for key, mask in mutator.export().items()}


def test_inputs_come_from_the_strongest_layer_choices() -> None:
    final = final_of((0.2, 0.1, 0.7), (0.1, 0.6, 0.1, 0.2), (0.05, 0.4, 0.55))
    assert final["one"] == [False, True, False]  # 0.2, 0.6, 0.4; no candidate's 0.7 makes no edge strong
    assert final["two"] == [True, False, False, True]
    assert final["any"] == [True, True]  # it takes any number: all
    # That of no candidate never wins, and what no InputChoice takes keeps its best candidate.
    assert (final["a"], final["b"], final["c"]) == ([True, False], [False, True, False], [False, True])


def test_equal_strengths_go_to_the_first_and_tags_of_no_layer_choice_have_none() -> None:
    final = final_of((0.4, 0.4, 0.2), (0.1, 0.4, 0.4, 0.1), (0.4, 0.2, 0.4))
    assert final["one"] == [True, False, False]
    assert final["two"] == [True, False, True, False]  # c and a, not "" between them
    assert final["other"] == [True, False, False]  # all of strength 0
    assert (final["a"], final["b"]) == ([True, False], [False, True, False])


def test_without_zero_there_is_no_further_weight() -> None:
    assert DartsMutator(Edges(), zero=False).logits.shape == (3, 3)
    assert DartsMutator(Edges()).logits.shape == (3, 4)
    assert final_of((0.3, 0.7), (0.1, 0.6, 0.3), (0.2, 0.8), zero=False)["one"] == [False, False, True]
