"""extract copies what deepcopy cannot, and tells when something of the copy goes on using the original."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from nnas_core import InputChoice, LayerChoice, extract
from nnas_core.errors import BindingError, UserCodeError
from tests.mutables.sample_models import OneInput, OneLayer, times

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def old_weight_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(module)


def traced(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(module, X)


WRAPPED = [
    old_weight_norm,
    spectral_norm,
    parametrizations.weight_norm,
    parametrizations.spectral_norm,
    parametrizations.orthogonal,
    scripted,
    traced,
]


@pytest.mark.parametrize("wrap", WRAPPED, ids=lambda one: f"{one.__module__}.{one.__name__}")
def test_candidates_that_deepcopy_cannot_copy(wrap):
    model = OneLayer([wrap(nn.Linear(4, 4)), nn.Identity()], key="op")
    with torch.no_grad():
        expected = model.op[0].eval()(X)
    child = extract(model, {"op": 0})
    torch.testing.assert_close(child.eval()(X), expected)
    parameters = list(child.parameters())
    assert parameters
    assert not {*map(id, parameters)} & {*map(id, model.parameters())}
    assert all(one.is_leaf and one.requires_grad for one in parameters)
    child.train()(X).sum().backward()
    assert all(one.grad is not None for one in parameters)
    assert all(one.grad is None for one in model.parameters())


def test_results_that_a_forward_pass_stored():
    class Storing(nn.Module):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice([nn.Linear(4, 4)], key="op")
            self.seen = {"last": [nn.Linear(4, 4)(X)]}

        def forward(self, x):
            return self.op(x)

    model = Storing()
    child = extract(model, {"op": 0})
    assert torch.equal(child.seen["last"][0], model.seen["last"][0])
    assert child.seen["last"][0].is_leaf


class Projecting(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="op")
        self.inner = nn.Sequential(nn.Linear(4, 4))
        self.project = lambda x: self.inner(x)

    def forward(self, x):
        return self.project(self.op(x))


def test_the_first_pass_names_the_module_of_the_original_that_it_uses():
    child = extract(Projecting(), {"op": 0})
    with torch.no_grad():
        child(X)  # says nothing of gradients
    for _ in range(2):
        with pytest.raises(UserCodeError, match=r"inner.0: the extracted model uses inner.0.(weight|bias) of"):
            child(X)


def test_a_function_that_closes_over_a_choice_of_the_original_says_so():
    model = Projecting()
    model.inner = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="inner")
    child = extract(model, {"op": 0, "inner": 1})
    with pytest.raises(BindingError, match="inner: Mutator not set for 'inner'") as caught:
        child(X)
    assert "closes over the one that it was extracted from" in caught.value.hint
    assert "in forward()" not in caught.value.hint


class Hooked(nn.Module):
    def __init__(self, hook):
        super().__init__()
        self.seen = {}
        self.stem = nn.Linear(4, 4)
        self.op = LayerChoice([nn.Linear(4, 4)], key="op")
        self.stem.register_forward_hook(hook(self))

    def forward(self, x):
        return self.op(self.stem(x)) + self.seen["stem"]

    def save(self, module, args, output):
        self.seen["stem"] = output


def over_self(model):
    return lambda module, args, output: model.seen.update(stem=output)


def over_a_container(model):
    seen = model.seen
    return lambda module, args, output: seen.update(stem=output)


def over_a_function(model):
    save = over_self(model)
    return lambda module, args, output: save(module, args, output)


def over_a_default(model):
    return lambda module, args, output, model=model: model.seen.update(stem=output)


@pytest.mark.parametrize("hook", [over_self, over_a_container, over_a_function, over_a_default])
def test_a_hook_that_closes_over_the_model_is_refused(hook):
    with pytest.raises(UserCodeError, match="stem: has a hook that closes over a part of the model") as caught:
        extract(Hooked(hook), {"op": 0})
    assert "apply_fixed_architecture()" in caught.value.hint


def test_hooks_that_are_methods_are_copied():
    model = Hooked(lambda model: model.save)
    child = extract(model, {"op": 0})
    child(X).sum().backward()
    assert model.seen == {}
    assert list(child.seen) == ["stem"]


def test_after_the_first_pass_nothing_is_left_of_the_check():
    child = extract(OneLayer([nn.Linear(4, 4)], key="op"), {"op": 0})
    again = copy.deepcopy(child)
    for one in (child, again):
        assert len(one._forward_hooks) == 1
        one(X)
        assert len(one._forward_hooks) == 0


def test_the_check_is_no_part_of_what_is_pickled():
    child = extract(nn.Sequential(LayerChoice([nn.Linear(4, 4)], key="op")), {"op": 0})
    code = (
        "import pickle, sys, torch\n"
        "model = pickle.loads(sys.stdin.buffer.read())\n"
        "print(model(torch.ones(1, 4)).shape, [one for one in sys.modules if one.startswith('nnas')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(child), capture_output=True, check=True, cwd="/"
    )
    assert done.stdout.decode().strip() == "torch.Size([1, 4]) []"


def test_an_input_choice_leaves_what_forward_passes_read():
    model = OneInput(choose_from=["", ""], n_chosen=1, reduction="mean", key="k")
    child = extract(model, {"k": [0]})
    for one in (child, copy.deepcopy(child), pickle.loads(pickle.dumps(child.pick))):
        pick = getattr(one, "pick", one)
        found = [getattr(pick, name) for name in ("key", "name", "n_candidates", "n_chosen", "choose_from")]
        assert found == ["k", "pick", 2, 1, ["", ""]]
        assert (pick.reduction, pick.return_mask) == ("mean", False)


def test_no_class_of_ours_or_of_fx_is_in_the_printed_model():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.op = LayerChoice(times(1, 2, 3), key="op")
            self.pick = InputChoice(2, key="pick")

        def forward(self, x):
            return self.pick([self.op(x), x])

    printed = str(extract(Model(), {"op": [0, 2], "pick": [True, True]}))
    assert [word for word in ("LayerChoice", "InputChoice", "GraphModule", "nnas") if word in printed] == []
