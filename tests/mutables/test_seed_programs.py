"""The programs of SPEC 4, as they stand there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nnas_core import InputChoice, LayerChoice, Mutator

pytestmark = pytest.mark.global_random


class RandomMutator(Mutator):
    def __init__(self, model):
        super().__init__(model)

    def sample_search(self):
        result = dict()  # noqa: C408  (the text of SPEC 4)
        for mutable in self.mutables:  # equal keys once
            if isinstance(mutable, LayerChoice):
                gen_index = np.random.randint(mutable.length)
                result[mutable.key] = torch.tensor([i == gen_index for i in range(mutable.length)], dtype=torch.bool)
            elif isinstance(mutable, InputChoice):  # noqa: SIM102  (the text of SPEC 4)
                if mutable.n_chosen is None:
                    result[mutable.key] = torch.randint(high=2, size=(mutable.n_candidates,)).view(-1).bool()
        return result

    def sample_final(self):
        return self.sample_search()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = LayerChoice([nn.Linear(4, 4), nn.Linear(4, 4), nn.Identity()])
        self.skip = InputChoice(n_candidates=2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        y = self.first(x)
        skipped = self.skip([x, y])
        return self.head(y if skipped is None else skipped)


def data_loader():
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=4)


def test_the_training_loop_runs_and_changes_the_weights_that_were_on_the_path():
    criterion = nn.CrossEntropyLoss()
    model = Model()
    mutator = RandomMutator(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    used = set()
    for x, y in data_loader():
        mutator.reset()  # valid until the next reset
        loss = criterion(model(x), y)
        loss.backward()
        used |= {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"head.weight", "head.bias"} < changed <= used


def test_export_returns_key_to_tensor_and_leaves_the_decision_of_the_search():
    model = Model()
    mutator = RandomMutator(model)
    mutator.reset()
    x = torch.ones(3, 4)
    before = model(x)
    architecture = mutator.export()  # key -> tensor
    assert {key: (mask.dtype, tuple(mask.shape)) for key, mask in architecture.items()} == {
        "LayerChoice1": (torch.bool, (3,)),
        "InputChoice2": (torch.bool, (2,)),
    }
    assert torch.equal(model(x), before)


def test_numpy_and_torch_seeds_decide_what_it_samples():
    def sampled():
        np.random.seed(5)
        torch.manual_seed(5)
        mutator = RandomMutator(Model())
        return [{key: mask.tolist() for key, mask in mutator.sample_search().items()} for _ in range(5)]

    assert sampled() == sampled()


def test_a_decision_is_valid_until_the_next_reset():
    model = Model()
    mutator = RandomMutator(model)
    x = torch.randn(2, 4)
    np.random.seed(0)
    mutator.reset()
    first = model(x)
    assert torch.equal(model(x), first)
    np.random.seed(1)  # randint(3) after seed 0 is 0, after seed 1 it is 1
    mutator.reset()
    assert not torch.equal(model(x), first)
