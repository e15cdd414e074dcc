"""InheritedWeights: an architecture is measured in the supernet, with BatchNorm statistics of its own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nnas_core import LayerChoice, extract
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import InheritedWeights, measure
from nnas_core.training.settings import DataSettings
from tests.mutables.sample_models import Always
from tests.training.sample_trainings import numbers, task_of


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 3), nn.Linear(4, 3)], key="op")
        self.norm = nn.BatchNorm1d(3, momentum=0.3)
        self.drop = nn.Dropout(0.5)
        self.plain = nn.BatchNorm1d(3, track_running_stats=False)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.op(x))))


TASK = task_of(train_dataset=lambda: numbers(40), valid_dataset=lambda: numbers(20, 1))
CPU = torch.device("cpu")


def setting(recalibrate, model=None):
    model = model or Net()
    with torch.no_grad():
        model.norm.running_mean.fill_(7.0)
        model.norm.running_var.fill_(9.0)
        model.norm.num_batches_tracked.fill_(3)
    train, valid = build_batches(TASK, DataSettings(batch_size=8))
    mutator = Always(model)
    return mutator, InheritedWeights(mutator, TASK, train, valid, CPU, recalibrate)


def architecture(mutator, index):
    return mutator.space.parse({"op": index})


def closed_form(model, index, batches, recalibrate):
    """Loss and accuracy with statistics that are the mean over the first training batches."""
    child = copy.deepcopy(extract(model, {"op": index})).eval()
    features = [child.op(x) for x, _ in list(batches.epoch(0))[:recalibrate]]
    child.norm.running_mean = torch.stack([one.mean(0) for one in features]).mean(0).detach()
    child.norm.running_var = torch.stack([one.var(0) for one in features]).mean(0).detach()
    x, y = numbers(20, 1).tensors
    output = child(x)
    return nn.functional.cross_entropy(output, y).item(), (output.argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("recalibrate", [1, 3, 5])
@pytest.mark.parametrize("index", [0, 1])
def test_recalibrated_statistics_are_means_over_the_batches(recalibrate, index):
    mutator, evaluator = setting(recalibrate)
    train, _ = build_batches(TASK, DataSettings(batch_size=8))
    loss, accuracy = closed_form(mutator.model, index, train, recalibrate)
    result = evaluator.evaluate(architecture(mutator, index))
    assert result.metrics == {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy)}


def test_before_is_the_metric_with_the_supernets_statistics():
    mutator, evaluator = setting(3)
    child = extract(mutator.model, {"op": 1})
    x, y = numbers(20, 1).tensors
    result = evaluator.evaluate(architecture(mutator, 1))
    expected = nn.functional.cross_entropy(child.eval()(x), y).item()
    assert result.before["loss"] == pytest.approx(expected, rel=1e-5)
    assert result.before != result.metrics


def test_without_recalibration_there_is_no_before():
    mutator, evaluator = setting(0)
    result = evaluator.evaluate(architecture(mutator, 0))
    expected = measure(extract(mutator.model, {"op": 0}), TASK, iter([numbers(20, 1).tensors]), CPU)
    assert (result.before, result.metrics) == (None, {name: pytest.approx(value) for name, value in expected.items()})


@pytest.mark.parametrize("recalibrate", [0, 3])
def test_nothing_of_the_supernet_is_left_changed(recalibrate):
    mutator, evaluator = setting(recalibrate)
    state = copy.deepcopy(mutator.model.state_dict())
    evaluator.evaluate(architecture(mutator, 1))
    assert all(torch.equal(value, state[name]) for name, value in mutator.model.state_dict().items())
    assert (mutator.model.norm.momentum, mutator.model.norm.running_mean.tolist()) == (0.3, [7.0] * 3)


def test_the_result_does_not_depend_on_what_was_evaluated_before():
    mutator, evaluator = setting(3)
    alone = setting(3, copy.deepcopy(mutator.model))
    evaluator.evaluate(architecture(mutator, 0))
    second = evaluator.evaluate(architecture(mutator, 1))
    assert alone[1].evaluate(architecture(alone[0], 1)).metrics == second.metrics


def test_the_same_architecture_gives_the_same_numbers_to_the_bit():
    mutator, evaluator = setting(3)
    results = [evaluator.evaluate(architecture(mutator, 1)) for _ in range(2)]
    assert (results[0].metrics, results[0].before) == (results[1].metrics, results[1].before)


@pytest.mark.parametrize("batch", range(9))
def test_an_interruption_at_any_batch_leaves_the_supernet_as_it_was(batch):
    class Stop(Exception):
        pass

    mutator, evaluator = setting(3)
    state = copy.deepcopy(mutator.model.state_dict())
    left = iter(range(batch))

    def poll():
        if next(left, None) is None:
            raise Stop

    with pytest.raises(Stop):
        evaluator.evaluate(architecture(mutator, 1), poll)
    assert all(torch.equal(value, state[name]) for name, value in mutator.model.state_dict().items())
    assert mutator.model.norm.momentum == 0.3


def test_weights_of_candidates_may_be_soft():
    mutator, evaluator = setting(0)
    result = evaluator.evaluate(mutator.space.parse({"op": [0.5, 0.5]}))
    model = mutator.model.eval()
    x, y = numbers(20, 1).tensors
    mixed = (model.op[0](x) + model.op[1](x)) / 2
    expected = nn.functional.cross_entropy(model.head(model.norm(mixed)), y).item()
    assert result.metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_batches_are_loaded_once():
    loads = []

    class Watched(TensorDataset):
        def __getitem__(self, index):
            loads.append(index)
            return super().__getitem__(index)

    task = task_of(train_dataset=lambda: numbers(8), valid_dataset=lambda: Watched(*numbers(20, 1).tensors))
    train, valid = build_batches(task, DataSettings(batch_size=8))
    mutator = Always(Net())
    evaluator = InheritedWeights(mutator, task, train, valid, CPU, 0)
    for index in (0, 1):
        evaluator.evaluate(architecture(mutator, index))
    assert loads == list(range(20))


def test_measure_is_in_evaluation_mode_without_gradients():
    seen = []

    def forward_batch(model, batch):
        seen.append((model.training, torch.is_grad_enabled()))
        return model(batch[0]), batch[1]

    measure(nn.Linear(4, 2), task_of(forward_batch=forward_batch), iter([numbers(4).tensors]), CPU)
    assert seen == [(False, False)]
