"""What P-DARTS refuses: options that contradict each other or the model, and models that change their space."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from nnas_core import LayerChoice
from nnas_core.errors import BindingError, UsageError, UserCodeError
from nnas_core.mutators.darts import DartsMutator
from nnas_core.mutators.pdarts import PdartsMutator, PdartsTrainer
from tests.mutators.darts_variant_searches import searcher
from tests.mutators.pdarts_search import DEEP, Layers, layered, progressive


class Own(nn.Module):
    """As many keys as layers: another space for each depth."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.ops = nn.Sequential(
            *(LayerChoice([nn.Linear(4, 4), nn.Tanh()], key=f"op{number}") for number in range(layers))
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.ops(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [1, 2]}, r"^layers needs depth_arg$"),
        ({"depth_arg": "layers"}, r"^depth_arg needs layers$"),
        ({"depth_arg": "layers", "layers": [0, 2]}, r"^layers=0 is out of range$"),
        ({"drop": []}, r"^drop=\[\] has 0 entries, it must have one for each of 1 stages$"),
        ({"drop": [1, -1]}, r"^drop=-1 is out of range$"),
        ({"drop": [1, 1], **DEEP}, r"^layers=\[1, 2, 3\] has 3 entries, it must have one for each of 2 stages$"),
        ({"drop": [2, 1]}, r"^drop=\[2, 1\] takes 3 of the 2 candidates of 'narrow', it may take 1$"),
        ({"skip_dropout": [0.1]}, r"^skip_dropout=\[0.1\] has 1 entries, it must have one for each of 3 stages$"),
        ({"skip_dropout": [0.1, 1.0, 0.2]}, r"^skip_dropout=1.0 is out of range$"),
        ({"max_skips": -1}, r"^max_skips=-1 is out of range$"),
        ({"warmup_epochs": -1}, r"^warmup_epochs=-1 is out of range$"),
        ({"skip": ["skp"]}, r"^skip names 'skp', which is no candidate of the model$"),
        ({"skip_groups": ["x"]}, r"^skip_groups has 'x', and no LayerChoice and no scope has a key that begins so$"),
        (
            {"drop": [1, 0], "skip": ["1"], "max_skips": 0},
            r"^max_skips=0 cannot be kept: there may be nothing but skip connections left of 'narrow'$",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    model = Layers()
    with pytest.raises(UsageError, match=message) as caught:
        PdartsMutator(model, **options)
    assert caught.value.hint
    PdartsMutator(model)  # the model is free again


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^2 epochs are too few for 3 stages$"):
        progressive(epochs=2)
    with pytest.raises(UsageError, match=r"^warmup_epochs=2 leaves none of 2 epochs to train the architecture$"):
        progressive(epochs=8, warmup_epochs=2)


def test_a_depth_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(BindingError, match=r"^PdartsTrainer needs another model with \{'layers': 1\}, and cannot"):
        progressive(rebuild=None, **DEEP)


def test_a_deeper_model_of_another_space_is_refused() -> None:
    with pytest.raises(
        UserCodeError, match=r"^task.py: with \{'layers': 2\} the model has another search space"
    ) as caught:
        progressive(model=Own(), rebuild=lambda arguments: Own(**arguments), **DEEP).train()
    assert caught.value.problems == ("op1: only in this one",)


def test_its_loop_needs_its_mutator() -> None:
    class Other(DartsMutator):
        trainer = PdartsTrainer

    with pytest.raises(BindingError, match=r"PdartsTrainer needs a PdartsMutator, not an Other$"):
        searcher(Other, layered({}))


def test_its_mutator_cannot_be_replaced_by_another_kind() -> None:
    trainer = progressive()
    trainer.mutator = DartsMutator(layered({}))
    with pytest.raises(BindingError, match=r"needs a PdartsMutator, not a DartsMutator$"):
        trainer.train()
