"""What a user's functions return: what it may be, and what is said where it is something else."""

from __future__ import annotations

import functools
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset

from nnas_core.errors import UserCodeError
from nnas_core.training.data import build_batches, held_out_batches
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import Stream, numbers, task_of

WEIGHT = nn.Parameter(torch.ones(2))
LOGITS, LABELS = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])


def nothing():
    """Takes nothing."""
    return {}


class TestFunctions:
    @pytest.mark.parametrize(
        ("functions", "message"),
        [
            ({"loss": lambda output: 0}, r"loss\(\) takes output; it is called as loss\(output, target\)"),
            ({"loss": "mse"}, r"loss is a str \('mse'\), it must be a function"),
            ({"loss": nn.CrossEntropyLoss}, "loss is the class CrossEntropyLoss, it must be a function"),
            ({"metrics": {}}, "metrics is an empty dict, it must be a function"),
            ({"forward_batch": lambda model: 0}, r"forward_batch\(\) takes model; it is called as"),
            ({"build_optimizer": lambda: 0}, r"build_optimizer\(\) takes nothing; it is called as"),
            ({"train_dataset": numbers(3)}, "train_dataset is a TensorDataset, it must be a function"),
            ({"train_dataset": lambda path: 0}, r"train_dataset\(\) takes path; it is called as train_dataset\(\)"),
            ({"build_dataloaders": nothing}, r"build_dataloaders\(\) takes nothing"),
            ({"epoch_metrics": nothing}, r"epoch_metrics\(\) takes nothing"),
        ],
    )
    def test_one_that_cannot_be_called_is_refused_at_once(self, functions, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: {message}"):
            task_of(**functions)

    def test_a_module_of_that_name_is_none(self):
        assert task_of(metrics=ModuleType("metrics")).metrics(LOGITS, LABELS) == {"accuracy": 1.0}

    def test_an_object_that_can_be_called_is_one(self):
        assert task_of(loss=nn.CrossEntropyLoss()).loss(LOGITS, LABELS).dim() == 0

    @pytest.mark.parametrize(
        ("functions", "call", "message"),
        [
            (
                {"loss": nn.BCEWithLogitsLoss()},
                lambda task: task.loss(LOGITS, LOGITS[:1]),
                "loss",
            ),
            ({"metrics": max}, lambda task: task.metrics(LOGITS, LABELS), "metrics"),
            (
                {"build_optimizer": functools.partial(torch.optim.SGD, lr=-1)},
                lambda task: task.build_optimizer([WEIGHT]),
                "build_optimizer",
            ),
        ],
    )
    def test_an_error_without_a_line_of_the_users_names_the_function(self, functions, call, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: {message}\(\) failed: \w+Error: "):
            call(task_of(**functions))


class TestLoss:
    @pytest.mark.parametrize(
        ("value", "message", "hint"),
        [
            (LOGITS, r"a tensor \[2, 2\]", ".mean()"),
            ({"ce": LOGITS, "reg": LOGITS}, "a dict with 'ce', 'reg'", "sum of its parts"),
            ((LOGITS.sum(), LOGITS), "a tuple of 2", "sum of its parts"),
            (0.5, r"a float \(0\.5\)", "without .item()"),
            (None, "None", "return the loss at its end"),
            (LABELS.sum(), "a tensor of int64 of one number", None),
            ("low", r"a str \('low'\)", None),
        ],
    )
    def test_it_must_be_one_number(self, value, message, hint):
        with pytest.raises(
            UserCodeError, match=rf"task\.py: loss\(\) returned {message}, it must return one"
        ) as caught:
            task_of(loss=lambda output, target: value).loss(LOGITS, LABELS)
        assert (hint or "") in (caught.value.hint or "")

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    def test_one_number_may_have_any_shape(self, shape):
        loss = task_of(loss=lambda output, target: torch.full(shape, 3.0)).loss(LOGITS, LABELS)
        assert (loss.item(), loss.dim()) == (3.0, 0)


class TestMetrics:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"a": None}, "None as 'a'"),
            ({"a": LOGITS}, r"a tensor \[2, 2\] as 'a'"),
            ({"a": "0.5"}, r"a str \('0\.5'\) as 'a'"),
            ({"a": [1.0, 2.0]}, "a list of 2 as 'a'"),
            ({"a": 10**5000}, "an int of more than 20 digits as 'a'"),
            (LOGITS, r"a tensor \[2, 2\]"),
            (None, "None"),
            ({}, "an empty dict"),
        ],
    )
    def test_they_must_be_numbers_by_name(self, value, message):
        task = task_of(metrics=lambda output, target: value)
        with pytest.raises(UserCodeError, match=rf"metrics\(\) returned {message}, it must return a dictionary"):
            task.metrics(LOGITS, LABELS)

    def test_what_float_takes_is_a_number(self):
        values = {"a": torch.tensor([0.5]), "b": np.float32(2), "c": True, 4: 1, "e": math.nan}
        found = task_of(metrics=lambda output, target: values).metrics(LOGITS, LABELS)
        assert (list(found), list(found.values())[:4]) == (["a", "b", "c", "4", "e"], [0.5, 2.0, 1.0, 1.0])


class TestForwardBatch:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (LOGITS, r"a tensor \[2, 2\]"),  # two rows are no output and target
            ((LOGITS, LABELS, 1), "a tuple of 3"),
            (None, "None"),
            ({"output": LOGITS, "target": LABELS}, "a dict with 'output', 'target'"),
        ],
    )
    def test_it_must_give_output_and_target(self, value, message):
        task = task_of(forward_batch=lambda model, batch: value)
        with pytest.raises(UserCodeError, match=rf"forward_batch\(\) returned {message}, it must return two things"):
            task.forward_batch(nn.Identity(), (LOGITS, LABELS))

    def test_a_batch_that_is_no_pair_needs_one(self):
        with pytest.raises(UserCodeError, match="a batch has 3 entries, not an input and a target"):
            task_of().forward_batch(nn.Identity(), [LOGITS, LABELS, LABELS])
        with pytest.raises(UserCodeError, match="a batch is a dict with 'x', not an input and a target"):
            task_of().forward_batch(nn.Identity(), {"x": LOGITS})

    def test_one_sample_for_batch_norm_names_what_leaves_it_out(self):
        with pytest.raises(UserCodeError, match="a training batch has one sample, and BatchNorm needs") as caught:
            task_of().forward_batch(nn.BatchNorm1d(2), (LOGITS[:1], LABELS[:1]))
        assert "`drop_last`" in (caught.value.hint or "")


class Apart:
    """A schedule of nobody's class."""

    def step(self) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Nothing."""


class TestOptimizers:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "returned None, it must return one torch.optim.Optimizer"),
            ([torch.optim.SGD([WEIGHT])], "returned a list of 1"),
            (torch.optim.Adam, "returned the class Adam"),
            ({"lr": 1}, "returned a dict with 'lr'"),
            (torch.optim.LBFGS([WEIGHT]), r"returned a LBFGS, whose step\(\) needs a function"),
            (torch.optim.SGD([nn.Parameter(torch.ones(1))]), "returned a SGD with none of the parameters"),
        ],
    )
    def test_the_optimizer_must_be_one_that_steps_by_gradients(self, value, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: build_optimizer\(\) {message}"):
            task_of(build_optimizer=lambda parameters: value).build_optimizer(iter([WEIGHT]))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([LambdaLR(torch.optim.SGD([WEIGHT]), lambda step: 1)], "a list of 1"),
            (LambdaLR, "the class LambdaLR"),
            (0.1, r"a float \(0\.1\)"),
            (ReduceLROnPlateau(torch.optim.SGD([WEIGHT])), "a ReduceLROnPlateau, which needs a metric"),
        ],
    )
    def test_the_schedule_must_be_one_of_steps(self, value, message):
        task = task_of(build_scheduler=lambda optimizer, total_steps: value)
        with pytest.raises(UserCodeError, match=rf"task\.py: build_scheduler\(\) returned {message}"):
            task.build_scheduler(torch.optim.SGD([WEIGHT]), 5)

    def test_a_schedule_may_be_of_any_class_that_steps(self):
        own = Apart()
        task = task_of(build_scheduler=lambda optimizer, total_steps: own)
        assert task.build_scheduler(torch.optim.SGD([WEIGHT]), 5) is own


class NoLength(Dataset[Tensor]):
    """Samples without a number of them."""

    def __getitem__(self, index: int) -> Tensor:
        return LOGITS


class Odd(NoLength):
    """A length that is none."""

    __len__ = functools.partialmethod(lambda self: 2.5)


class TestData:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (DataLoader(numbers(4)), "a DataLoader, it must return one dataset"),
            ((numbers(4), numbers(4)), "a tuple of 2, it must return one dataset"),
            ([numbers(4), numbers(4)], "a list of 2, it must return one dataset"),
            ((torch.randn(4, 3), torch.zeros(4)), "a tuple of 2, it must return one dataset"),
            ({"train": numbers(4)}, "a dict with 'train', it must return one dataset"),
            (object(), "an object, it must return one dataset"),
            (TensorDataset, "the class TensorDataset, it must return one dataset, an object"),
            (iter([1, 2]), "a list_iterator, it must return one dataset"),
            (NoLength(), "a NoLength, it must return a dataset with __len__"),
            ("train.csv", r"a str \('train\.csv'\), it must return one dataset"),
        ],
    )
    def test_a_dataset_is_one_dataset(self, value, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: train_dataset\(\) returned {message}"):
            build_batches(task_of(train_dataset=lambda: value), DataSettings())

    def test_a_length_that_is_none_is_named(self):
        with pytest.raises(UserCodeError, match=r"len\(\) of what train_dataset\(\) returned is 2\.5"):
            build_batches(task_of(train_dataset=Odd), DataSettings())

    @pytest.mark.parametrize("value", [[(torch.zeros(4), 0)] * 10, tuple((torch.zeros(4), 0) for _ in range(10))])
    def test_a_list_of_samples_is_a_dataset(self, value):
        train, valid = build_batches(task_of(train_dataset=lambda: value), DataSettings())
        assert (len(next(train.epoch(0))[1]), len(next(valid.epoch(0))[1])) == (8, 2)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (numbers(3), "a TensorDataset as 'valid', it must be a loader"),
            (iter([1]), "a list_iterator as 'valid', which can be gone through once"),
            (None, "None as 'valid', it must be a loader"),
            (DataLoader, "the class DataLoader as 'valid', it must be a loader"),
        ],
    )
    def test_loaders_can_be_gone_through_again_and_again(self, value, message):
        task = task_of(build_dataloaders=lambda batch_size, workers: {"train": [1], "valid": value})
        with pytest.raises(UserCodeError, match=rf"build_dataloaders\(\) returned {message}"):
            build_batches(task, DataSettings())

    def test_the_test_loader_is_used(self):
        loaders = {"train": [1], "valid": [2], "test": [3]}
        task = task_of(build_dataloaders=lambda batch_size, workers: loaders, test_dataset=lambda: numbers(4))
        batches, which = held_out_batches(task, DataSettings())
        assert (list(batches.epoch(0)), which) == ([3], "test")
        del loaders["test"]
        batches, which = held_out_batches(task, DataSettings())
        assert (len(next(batches.epoch(0))[1]), which) == (4, "test")

    def test_own_samplers_are_for_datasets_that_can_be_chosen_from(self):
        task = task_of(train_dataset=Stream, valid_dataset=Stream, train_sampler=lambda dataset: [0])
        with pytest.raises(UserCodeError, match=r"train_sampler\(\) cannot choose from an IterableDataset"):
            build_batches(task, DataSettings())
