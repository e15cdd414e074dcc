"""What is tried before a training begins, and that nothing of it remains."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nnas_core import InputChoice, LayerChoice
from nnas_core.errors import NnasWarning, UserCodeError
from nnas_core.training.data import build_batches
from nnas_core.training.first_batches import FirstBatch, has_lazy_layers, initialize_lazy_layers, try_first_batches
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import Net, numbers, task_of


def images(count=20):
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, 1, 6, 6, generator=generator), torch.zeros(count, dtype=torch.long))


def wide():
    """Targets of another shape."""
    return TensorDataset(torch.zeros(9, 4), torch.zeros(9, 2))


class Lazy(nn.Module):
    """Three candidates that wait for their input."""

    def __init__(self):
        super().__init__()
        block = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d())
        self.op = LayerChoice([nn.LazyConv2d(4, 3, padding=1), nn.LazyConv2d(4, 5, padding=2), block], key="op")
        self.pick = InputChoice(2, key="pick")
        self.head = nn.LazyLinear(2)

    def forward(self, x):
        y = self.op(x)
        return self.head(self.pick([y, y.relu()]).flatten(1))


def try_all(model, task, size=16):
    train, valid = build_batches(task, DataSettings(batch_size=size, valid_fraction=0.25))
    data = [FirstBatch("training", train, training=True), FirstBatch("validation", valid)]
    try_first_batches(model, task, data, lambda batch: batch)


class TestLazyLayers:
    def test_every_candidate_gets_its_sizes(self):
        model, task = Lazy().train(), task_of(train_dataset=images)
        initialize_lazy_layers(model, task, build_batches(task, DataSettings(batch_size=8))[0])
        shapes = [tuple(one.shape) for one in (model.op[0].weight, model.op[1].weight, model.op[2][0].weight)]
        assert shapes == [(4, 1, 3, 3), (4, 1, 5, 5), (4, 1, 1, 1)]
        assert (tuple(model.head.weight.shape), has_lazy_layers(model), model.op[2][1].training) == (
            (2, 144),
            False,
            True,
        )
        assert model.op[2][1].running_mean.tolist() == [0.0] * 4  # no statistics of these passes

    def test_one_that_is_never_reached_is_named(self):
        class Unused(Lazy):
            def forward(self, x):
                return self.op(x)

        task = task_of(train_dataset=images)
        with pytest.raises(UserCodeError, match="no pass of a batch came to the lazy layers head"):
            initialize_lazy_layers(Unused(), task, build_batches(task, DataSettings())[0])

    def test_a_model_without_them_needs_no_data(self):
        initialize_lazy_layers(Net(), task_of(), None)  # type: ignore[arg-type]


class TestFirstBatches:
    def test_nothing_of_them_remains(self):
        torch.manual_seed(0)
        model = Net().train()
        before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        try_all(model, task_of(train_dataset=numbers))
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)
        assert model.training
        try_all(model, task_of(train_dataset=numbers))  # and it can be bound again

    @pytest.mark.parametrize(
        "functions",
        [
            {"train_dataset": lambda: TensorDataset(torch.zeros(40, 4), torch.zeros(40))},
            {"train_dataset": lambda: TensorDataset(torch.zeros(40, 3), torch.zeros(40, dtype=torch.long))},
            {"loss": lambda output, target: None, "metrics": lambda output, target: None, "valid_dataset": wide},
            {"valid_dataset": lambda: TensorDataset(torch.zeros(9, 4), torch.full((9,), 5))},
        ],
        ids=["targets", "inputs", "validation of another look", "labels"],
    )
    def test_what_would_fail_later_fails_here(self, functions):
        with pytest.raises((UserCodeError, RuntimeError)):
            try_all(Net(), task_of(**{"train_dataset": numbers, **functions}))

    def test_own_functions_are_not_called_with_what_they_get_in_the_first_step(self):
        try_all(Net(), task_of(train_dataset=numbers, loss=lambda output, target: None))

    def test_data_without_a_batch_is_named(self):
        task = task_of(build_dataloaders=lambda batch_size, workers: {"train": [next(iter(numbers()))], "valid": []})
        with pytest.raises(UserCodeError, match="the validation data has no batches"):
            try_all(
                nn.Linear(4, 2),
                task_of(**vars(task.user.module), forward_batch=lambda m, b: (m(b[0][None]), b[1][None])),
            )

    def test_a_last_batch_of_one_sample_is_refused_where_there_is_batch_norm(self):
        # 40 samples, of which 30 are trained on: batches of 29 leave one
        with pytest.raises(UserCodeError, match="a training batch has one sample, and BatchNorm needs at least two"):
            try_all(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), task_of(train_dataset=numbers), 29)
        try_all(nn.Linear(4, 2), task_of(train_dataset=numbers), 29)
        try_all(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), task_of(train_dataset=numbers), 28)

    def test_a_pair_is_said_once_to_have_auxiliary_logits(self):
        class Two(nn.Linear):
            def forward(self, x):
                return super().forward(x), super().forward(x)

        with pytest.warns(NnasWarning, match=r"\[16, 2\], counts as auxiliary logits, with weight 0\.4") as told:
            try_all(Two(4, 2), task_of(train_dataset=numbers))
        assert len(told) == 1
        try_all(Two(4, 2), task_of(train_dataset=numbers, loss=lambda output, target: output[0].sum()))
