"""Models with mutables, bound or not, and mutators are copied and pickled; state_dicts have NNI's names."""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice, RandomMutator, SearchSpace
from nnas_core.errors import BindingError
from tests.mutables.sample_models import Always, Everything, OneLayer, times

X = torch.ones(2, 1, 4, 4)


def saved_whole(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


CLONES = pytest.mark.parametrize(
    "clone",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)), saved_whole],
    ids=["deepcopy", "pickle", "torch.save"],
)


@CLONES
class TestModels:
    def test_an_unbound_model(self, clone):
        model = Everything()
        assert SearchSpace.from_model(clone(model)) == SearchSpace.from_model(model)

    def test_the_copy_of_a_bound_model_is_free_and_has_its_weights(self, clone):
        model = Everything().eval()
        mutator = Always(model)
        mutator.reset()
        twin = clone(model)
        with pytest.raises(BindingError, match="Mutator not set"):
            twin(X)
        Always(twin).reset()
        assert torch.equal(twin(X), model(X))

    def test_the_original_stays_bound_and_decided(self, clone):
        model = OneLayer(times(2, 3), key="k")
        Always(model, {"k": [False, True]}).reset()
        clone(model)
        assert model(torch.ones(1)).tolist() == [3.0]

    def test_the_copy_shares_no_weights(self, clone):
        model = OneLayer([nn.Linear(1, 1)], key="k")
        twin = clone(model)
        with torch.no_grad():
            twin.op[0].weight.fill_(123.0)
        assert model.op[0].weight.item() != 123.0


@CLONES
class TestMutators:
    def test_the_copy_of_a_mutator_is_bound_to_a_copy_of_its_model(self, clone):
        model = OneLayer(times(2, 3), key="k")
        mutator = Always(model, {"k": [False, True]})
        twin = clone(mutator)
        twin.decisions = {"k": [True, False]}
        mutator.reset()
        twin.reset()
        x = torch.ones(1)
        assert (twin.model is not model, twin.model(x).tolist(), model(x).tolist()) == (True, [2.0], [3.0])

    def test_the_generator_goes_on_alike_in_the_copy(self, clone):
        mutator = RandomMutator(Everything(), torch.Generator().manual_seed(3))
        mutator.reset()
        twin = clone(mutator)
        assert [twin.final_architecture() for _ in range(4)] == [mutator.final_architecture() for _ in range(4)]

    def test_parameters_and_buffers_come_along(self, clone):
        class Learned(Always):
            def __init__(self, model):
                super().__init__(model)
                self.alpha = nn.Parameter(torch.tensor([1.0, 2.0]))

        # pickle needs to find the class
        globals()["Learned"] = Learned
        Learned.__qualname__ = "Learned"
        assert clone(Learned(OneLayer(times(2, 3)))).alpha.tolist() == [1.0, 2.0]

    def test_model_and_mutator_copied_together_stay_together(self, clone):
        model = OneLayer(times(2, 3), key="k")
        both = clone({"model": model, "mutator": Always(model, {"k": [False, True]})})
        both["mutator"].reset()
        assert both["mutator"].model is both["model"]
        assert both["model"](torch.ones(1)).tolist() == [3.0]

    def test_an_unbound_mutator_stays_unbound(self, clone):
        mutator = RandomMutator(OneLayer(times(2, 3)))
        mutator.unbind()
        with pytest.raises(BindingError, match="bound to no model"):
            clone(mutator).reset()


class TestStateDict:
    def model(self):
        return nn.ModuleDict(
            {
                "op": LayerChoice(OrderedDict(conv=nn.Linear(2, 2, bias=False), skip=nn.Identity()), key="k"),
                "more": LayerChoice([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)]),
            }
        )

    def test_names_are_those_of_nni_with_candidates_directly_below_their_choice(self):
        assert list(self.model().state_dict()) == ["op.conv.weight", "more.0.weight", "more.1.weight"]

    def test_binding_and_deciding_change_nothing(self):
        model = self.model()
        before = list(model.state_dict())
        RandomMutator(model).reset()
        assert (list(model.state_dict()), [name for name, _ in model.named_buffers()]) == (before, [])

    def test_weights_of_one_build_fit_the_next(self):
        first, second = self.model(), self.model()
        RandomMutator(first).reset()
        second.load_state_dict(first.state_dict())
        assert torch.equal(second["more"][1].weight, first["more"][1].weight)

    def test_loading_weights_keeps_the_decision(self):
        model = OneLayer([nn.Linear(1, 1), nn.Linear(1, 1)], key="k")
        Always(model, {"k": [False, True]}).reset()
        model.load_state_dict({name: torch.full_like(value, 2.0) for name, value in model.state_dict().items()})
        assert model(torch.ones(1, 1)).item() == 4.0

    def test_a_conversion_of_the_model_reaches_the_decided_candidates(self):
        model = OneLayer([nn.Linear(1, 1)], key="k")
        Always(model).reset()
        assert model.double()(torch.ones(1, 1).double()).dtype == torch.float64

    def test_the_mask_follows_the_model_to_its_dtype_and_device_at_the_next_reset(self):
        model = OneLayer([nn.Linear(1, 1)], return_mask=True, key="k").to("meta")
        Always(model).reset()
        _, mask = model(torch.ones(1, 1, device="meta"))
        assert mask.device.type == "meta"
