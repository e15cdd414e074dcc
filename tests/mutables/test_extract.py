"""extract: the supernet's outputs to the bit, in a module that is free of nnas and of unused weights."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from nnas_core import InputChoice, LayerChoice, Mutable, RandomMutator, SearchSpace, extract, transfer_weights
from nnas_core.errors import ArchitectureError, InputError, SpaceError, UserCodeError
from nnas_core.mutables.keys import AutoKey
from tests.mutables.sample_models import Always, Cell, Everything, Noisy, OneInput, OneLayer, Times, times

X = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def seeded_model():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Everything()


SPACE = SearchSpace.from_model(Everything())
HARD = [SPACE.sample(np.random.default_rng(seed)) for seed in range(12)]
SEVERAL = [
    SPACE.parse(
        {**HARD[0].masks(), "sum": [True, False, True], "mean": [True] * 3, "none": [False] * 3, "concat": [0, 2]}
    ),
    SPACE.parse({**HARD[1].masks(), "sum": [], "mean": [], "none": ["0", "2"], "concat": [], "cell0_op": []}),
    SPACE.parse({**HARD[2].masks(), "cell0_op": ["noisy", "skip"], "cell1_op": [True] * 3, "any": [], "tied": [0, 1]}),
]
SOFT = [
    SPACE.parse({**HARD[3].masks(), "sum": [0.1, 0.0, 0.7], "mean": [0.3, 0.3, 0.4], "tied": [0.2, 0.5, 0.3]}),
    SPACE.parse({**HARD[4].masks(), "none": [0.1, 0.9, 0.0], "concat": [0.6, 0.0, 0.4], "any": [0.2, 0.3, 0.5]}),
    SPACE.parse({**HARD[5].masks(), "cell0_op": [0.1, 0.2, 0.7], "sum": [0.0, 1.0, 0.0], "mean": [0.0, 0.0, 0.0]}),
]
CASES = [
    *(pytest.param(one, id=f"hard{index}") for index, one in enumerate(HARD)),
    *(pytest.param(one, id=f"several{index}") for index, one in enumerate(SEVERAL)),
    *(pytest.param(one, id=f"soft{index}") for index, one in enumerate(SOFT)),
]


def run(model, x=X):
    """Output in training mode, all gradients, output in evaluation mode after it."""
    model.train()
    output = model(x)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(output.square().sum(), parameters, allow_unused=True)
    with torch.no_grad():
        evaluated = model.eval()(x)
    return output.detach(), [one for one in gradients if one is not None], evaluated


def same_values(mine, theirs):
    """Whether two lists of tensors hold the same, in whatever order."""
    return sorted(one.flatten().tolist() for one in mine) == sorted(one.flatten().tolist() for one in theirs)


@pytest.mark.parametrize("architecture", CASES)
class TestEverything:
    def test_outputs_and_gradients_are_the_supernets_to_the_bit(self, architecture):
        model = seeded_model()
        child = extract(model, architecture)
        mutator = Always(model)
        mutator.apply_architecture(architecture)
        output, gradients, evaluated = run(model)
        child_output, child_gradients, child_evaluated = run(child)
        assert torch.equal(child_output, output)
        assert torch.equal(child_evaluated, evaluated)
        assert same_values(child_gradients, gradients)

    def test_nothing_of_nnas_is_inside(self, architecture):
        child = extract(seeded_model(), architecture)
        classes = {type(module) for module in child.modules()}
        assert [one for one in classes if one.__module__.startswith("nnas_core")] == []
        assert [one for one in classes if issubclass(one, LayerChoice | InputChoice)] == []

    def test_its_weights_are_those_of_the_modules_that_the_supernet_runs(self, architecture):
        model = seeded_model()
        Always(model).apply_architecture(architecture)
        ran = {}
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            if own:
                module.register_forward_hook(lambda *_, own=own: ran.update({id(one): one for one in own}))
        model(X)
        child = extract(model, architecture)
        assert same_values(list(child.parameters()), list(ran.values()))

    @pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_are_equal_to_the_bit(self, architecture, clone):
        model = seeded_model()
        once = Always(model)
        once.apply_architecture(architecture)
        with torch.no_grad():
            model.eval()(X)  # the input choices have seen that they take dictionaries
        once.unbind()
        child = extract(model, architecture).eval()
        again = clone(child)
        assert torch.equal(again(X), child(X))
        assert list(again.state_dict()) == list(child.state_dict())

    def test_weights_are_transferred_in_either_order(self, architecture):
        trained, untrained = seeded_model(), Everything()
        before = extract(trained, architecture)  # load, then extract
        after = extract(untrained, architecture)  # extract, then load
        after.load_state_dict(transfer_weights(untrained, architecture, trained.state_dict()))
        assert {name: value.tolist() for name, value in before.state_dict().items()} == {
            name: value.tolist() for name, value in after.state_dict().items()
        }
        assert torch.equal(before(X), after(X))

    def test_the_supernet_is_not_touched(self, architecture):
        model = seeded_model()
        mutator = RandomMutator(model, torch.Generator().manual_seed(2))
        mutator.reset()
        model.eval()
        state, output = copy.deepcopy(model.state_dict()), model(X)
        child = extract(model, architecture)
        with torch.no_grad():
            for parameter in child.parameters():
                parameter.zero_()
        assert torch.equal(model(X), output)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert (child.training, mutator.mutables is not None) == (False, True)


class TestStructure:
    def test_one_layer_becomes_its_candidate_with_its_weight(self):
        model = OneLayer([nn.Linear(2, 3), nn.Linear(2, 3)], key="k")
        child = extract(model, {"k": 1})
        assert (type(child.op), list(child.state_dict())) == (nn.Linear, ["op.weight", "op.bias"])
        assert torch.equal(child.op.weight, model.op[1].weight)

    def test_a_choice_that_is_the_model_becomes_its_candidate(self):
        model = LayerChoice([nn.Linear(2, 3), nn.Linear(2, 3)], key="k")
        assert isinstance(extract(model, {"k": 0}), nn.Linear)

    def test_a_choice_with_several_that_is_the_model_is_extracted(self):
        model = LayerChoice(times(2, 3, 5), key="k")
        assert extract(model, {"k": [0, 2]})(torch.ones(1)).tolist() == [7.0]

    def test_an_input_choice_that_is_the_model_is_extracted(self):
        child = extract(InputChoice(2, key="k"), {"k": [False, True]})
        assert child([1, 2]) == 2

    def test_shared_choices_stay_shared(self):
        choice = LayerChoice([nn.Linear(2, 2), nn.Linear(2, 2)], key="k")
        child = extract(nn.ModuleDict({"a": choice, "b": choice, "c": nn.ModuleList([choice])}), {"k": 0})
        assert child["a"] is child["b"] is child["c"][0]

    def test_a_candidate_that_two_choices_share_stays_shared(self):
        shared = nn.Linear(2, 2)
        choices = [LayerChoice([shared, nn.Identity()], key=f"k{index}", return_mask=bool(index)) for index in range(2)]
        child = extract(nn.ModuleList(choices), {"k0": 0, "k1": 0})
        assert len(list(child.parameters())) == 2

    def test_shared_weights_stay_shared(self):
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        second.weight = first.weight
        model = nn.ModuleList(
            [LayerChoice([first, nn.Identity()], key="a"), LayerChoice([second, nn.Identity()], key="b")]
        )
        child = extract(model, {"a": 0, "b": 0})
        assert child[0].weight is child[1].weight

    def test_a_choice_kept_in_a_list_attribute_is_replaced_there_too(self):
        model = OneLayer([nn.Linear(2, 2), nn.Linear(2, 2)], key="k")
        model.kept = [model.op]
        child = extract(model, {"k": 0})
        assert child.kept[0] is child.op

    def test_scopes_run_without_a_mutator(self):
        model = Cell("c", 2, ["", ""])
        child = extract(model, {"c_op": "skip", "c_pick": [0]})
        x = torch.ones(1, 2, 3, 3)
        assert child([x, x]).shape == x.shape

    def test_the_training_mode_is_kept(self):
        model = OneLayer([nn.Dropout(), nn.Identity()], return_mask=True, key="k").eval()
        child = extract(model, {"k": [True, True]})
        assert [module.training for module in child.modules()] == [False] * len(list(child.modules()))

    def test_buffers_and_requires_grad_are_kept(self):
        model = OneLayer([Noisy(2), nn.Identity()], key="k")
        model.op[0].conv.weight.requires_grad_(False)
        child = extract(model, {"k": 0})
        assert (child.op.conv.weight.requires_grad, "op.norm.running_mean" in child.state_dict()) == (False, True)

    def test_stored_automatic_keys_become_plain_texts(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = LayerChoice(times(2, 3))
                self.stored = {self.a.key: 1}
                self.pick = InputChoice(choose_from=[self.a.key], n_chosen=1)

            def forward(self, x):
                return self.pick({key: self.a(x) for key in self.stored})

        LayerChoice([])  # so that the number at construction is another
        child = extract(Model(), {"LayerChoice1": 1, "InputChoice2": [0]})
        assert [type(key) for key in child.stored] == [str]
        assert AutoKey not in {type(key) for key in child.stored}
        assert child(torch.ones(1)).item() == 3

    def test_an_extracted_model_is_unpickled_where_nnas_is_not_installed(self, tmp_path):
        model = nn.Sequential(
            LayerChoice([nn.Linear(2, 2), nn.Identity(), nn.ReLU()], key="a"),
            LayerChoice([nn.Linear(2, 2), nn.Identity(), nn.ReLU()], reduction="mean", key="b"),
        )
        child = extract(model, {"a": 0, "b": [0.25, 0.5, 0.0]})
        x = torch.ones(1, 2)
        torch.save((child, x, child(x)), tmp_path / "child.pt")
        program = (
            "import sys; sys.modules['nnas_core'] = None; import torch;"
            f"child, x, y = torch.load({str(tmp_path / 'child.pt')!r}, weights_only=False);"
            "assert torch.equal(child(x), y)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_is_exported_by_torch(self):
        model = nn.Sequential(
            LayerChoice([nn.Linear(2, 2), nn.ReLU()], key="a"), LayerChoice([nn.ReLU(), nn.Tanh()], key="b")
        )
        child = extract(model, {"a": 0, "b": [True, True]}).eval()
        x = torch.randn(3, 2)
        assert torch.equal(torch.export.export(child, (x,)).module()(x), child(x))


class TestInputs:
    @pytest.mark.parametrize("mask", [[True, False], [False, True], [True, True], [0.5, 0.25]])
    def test_lists_tuples_and_dictionaries(self, mask):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = LayerChoice([nn.Identity()], key="a")
                self.b = LayerChoice([nn.Identity()], key="b")
                self.pick = InputChoice(choose_from=["a", "b"], key="k")

        child = extract(Model(), {"a": 0, "b": 0, "k": mask})
        a, b = torch.tensor([1.0]), torch.tensor([10.0])
        expected = [1.0 * mask[0] + 10.0 * mask[1]]
        given = [[a, b], (a, b), {"b": b, "a": a}, OrderedDict(a=a, b=b)]
        assert [child.pick(inputs).tolist() for inputs in given] == [expected] * 4

    def test_an_entry_that_is_not_chosen_may_be_none(self):
        x = torch.ones(1)
        assert extract(OneInput(2, key="k"), {"k": [False, True]})([None, x]) is x

    @pytest.mark.parametrize(("reduction", "expected"), [("sum", None), ("mean", None), ("concat", None), ("none", [])])
    def test_an_empty_selection(self, reduction, expected):
        child = extract(OneInput(2, reduction=reduction, key="k"), {"k": []})
        assert child([torch.ones(1), torch.ones(1)]) == expected

    @pytest.mark.parametrize(("reduction", "expected"), [("sum", None), ("mean", None), ("concat", None), ("none", [])])
    def test_an_empty_selection_of_layers(self, reduction, expected):
        child = extract(OneLayer(times(2, 3), reduction=reduction, key="k"), {"k": []})
        assert child(torch.ones(1)) == expected

    def test_return_mask(self):
        y, mask = extract(OneLayer(times(2, 3), return_mask=True, key="k"), {"k": [0.25, 0.0]})(torch.ones(1))
        assert (y.tolist(), mask.tolist(), mask.dtype) == ([0.5], [0.25, 0.0], torch.float32)

    def test_return_mask_of_an_empty_selection(self):
        y, mask = extract(OneLayer(times(2, 3), return_mask=True, key="k"), {"k": []})(torch.ones(1))
        assert (y, mask.tolist(), mask.dtype) == (None, [False, False], torch.bool)


class TestArguments:
    class Shift(nn.Module):
        def forward(self, x, by=1.0, *, times=1.0):
            return x * times + by

    def test_optional_and_keyword_arguments_reach_every_candidate(self):
        child = extract(OneLayer([self.Shift(), self.Shift()], key="k"), {"k": [True, True]})
        x = torch.ones(1)
        assert [child(x).item(), child(x, 5.0).item(), child(x, by=2.0, times=3.0).item()] == [4.0, 12.0, 10.0]

    def test_candidates_of_different_signatures_are_called_with_what_all_take(self):
        candidates = [self.Shift(), nn.Identity(), nn.ReLU()]
        child = extract(OneLayer(candidates, key="k"), {"k": [True, True, True]})
        assert child(torch.ones(1)).item() == 4.0

    def test_candidates_that_take_anything_take_one_input(self):
        class Anything(nn.Module):
            def forward(self, *arguments, **keywords):
                return arguments[0] * 2

        child = extract(OneLayer([Anything(), nn.Identity()], key="k"), {"k": [True, True]})
        assert child(torch.ones(1)).item() == 3.0

    @pytest.mark.parametrize("name", ["graph", "code", "meta", "recompile", "to_folder"])
    def test_a_candidate_may_have_a_name_that_graph_modules_use(self, name):
        candidates = OrderedDict([(name, nn.Linear(2, 2)), ("other", nn.Linear(2, 2))])
        model = OneLayer(candidates, return_mask=True, key="k")
        child = extract(model, {"k": [True, True]})
        child.load_state_dict(transfer_weights(model, {"k": [True, True]}, model.state_dict()))
        x = torch.ones(1, 2)
        assert torch.equal(pickle.loads(pickle.dumps(child))(x)[0], model.op[0](x) + model.op[1](x))


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
    def test_weights_are_rounded_as_the_supernet_rounds_them(self, dtype):
        model = OneLayer([nn.Linear(3, 3), nn.Linear(3, 3)], return_mask=True, key="k").to(dtype)
        child = extract(model, {"k": [0.3, 0.7]})
        mutator = Always(model, {"k": [0.3, 0.7]})
        mutator.reset()
        x = torch.randn(4, 3).to(dtype)
        (y, mask), (child_y, child_mask) = model(x), child(x)
        assert torch.equal(child_y, y)
        assert (child_mask.tolist(), child_mask.dtype) == (mask.tolist(), mask.dtype)

    def test_outputs_of_different_shapes(self):
        class Mean(nn.Module):
            def forward(self, x):
                return x.mean(0, keepdim=True)

        model = OneLayer([nn.Linear(3, 3), Mean(), nn.Linear(3, 3)], key="k")
        child = extract(model, {"k": [0.3, 0.7, 0.21]})
        Always(model, {"k": [0.3, 0.7, 0.21]}).reset()
        x = torch.randn(64, 3)
        assert torch.equal(child(x), model(x))


class TestErrors:
    def test_an_architecture_that_does_not_fit_lists_all_problems(self):
        model = nn.ModuleDict({"a": LayerChoice(times(1, 2), key="a"), "b": InputChoice(2, n_chosen=1, key="b")})
        with pytest.raises(ArchitectureError, match="missing keys: 'b'\n  a: index 5 is out of range"):
            extract(model, {"a": 5})

    def test_n_chosen_is_kept(self):
        with pytest.raises(ArchitectureError, match="k: chooses 2 candidates, n_chosen is 1"):
            extract(OneInput(2, n_chosen=1, key="k"), {"k": [True, True]})

    def test_a_model_without_mutables_is_refused(self):
        with pytest.raises(SpaceError, match="Linear contains no mutables"):
            extract(nn.Linear(1, 1), {})

    def test_a_choice_with_a_forward_pass_of_its_own_is_refused(self):
        class Doubling(LayerChoice):
            def forward(self, x):
                return 2 * super().forward(x)

        with pytest.raises(
            UserCodeError, match=r"0: Doubling has a forward\(\) of its own, which an extracted model would lose"
        ):
            extract(nn.Sequential(Doubling(times(1, 2), key="k")), {"k": 0})

    def test_missing_weights_are_named(self):
        model = OneLayer([nn.Linear(1, 1), nn.Linear(1, 1)], key="k")
        state = {name: value for name, value in model.state_dict().items() if "bias" not in name}
        with pytest.raises(
            InputError, match=r"the weights lack 1 of the tensors that the model needs\n  op\.1\.bias: missing"
        ):
            transfer_weights(model, {"k": 1}, state)

    def test_weights_of_candidates_that_are_not_chosen_need_not_be_there(self):
        model = OneLayer([nn.Linear(1, 1), nn.Linear(1, 1)], key="k")
        state = {name: value for name, value in model.state_dict().items() if ".1." in name}
        assert list(transfer_weights(model, {"k": 1}, state)) == ["op.weight", "op.bias"]


def test_a_mutable_counts_as_left_only_while_it_decides():
    child = extract(Cell("c", 2, ["", ""]), {"c_op": "skip", "c_pick": [0]})
    deciding = [module for module in child.modules() if isinstance(module, Mutable) and type(module) is not Cell]
    assert deciding == []
    assert Times not in {type(module) for module in child.modules()}
