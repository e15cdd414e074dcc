"""Metrics of a whole data set: as a function, as an object, and where batches have no value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nnas_core import LayerChoice
from nnas_core.errors import NoResultError, UserCodeError
from nnas_core.mutators import EnasMutator
from nnas_core.training.data import build_batches
from nnas_core.training.evaluation import first_metric, measure, require_finite
from nnas_core.training.metrics import Averages
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import numbers, task_of

X = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
Y = torch.tensor([0, 1, 0, 1, 1])
# guesses 0 1 1 0 1 of labels 0 1 0 1 1: precision 2/3 and recall 2/3 of class 1, so F1 is 2/3; means of batches of two
# would be those of (1, 0, 1)


def f1(guesses, labels):
    hits = ((guesses == 1) & (labels == 1)).sum().item()
    return 2 * hits / ((guesses == 1).sum().item() + (labels == 1).sum().item())


class F1:
    """The interface of torchmetrics."""

    def __init__(self):
        self.guesses, self.labels = [], []

    def update(self, output, target):
        """Take in a batch."""
        self.guesses.append(output.argmax(1))
        self.labels.append(target)

    def compute(self):
        """F1 of all."""
        return torch.tensor(f1(torch.cat(self.guesses), torch.cat(self.labels)))


def epoch_metrics(outputs, targets):
    return {"f1": f1(outputs.argmax(1), targets), "rows": len(targets)}


def batches(size=2):
    return iter([(X[at : at + size], Y[at : at + size]) for at in range(0, len(X), size)])


def measured(**functions):
    return measure(nn.Identity(), task_of(**functions), batches(), torch.device("cpu"))


class TestWholeSets:
    @pytest.mark.parametrize("metrics", [F1(), F1, lambda: F1()], ids=["object", "class", "function"])
    def test_an_object_measures_all_batches_together(self, metrics):
        found = measured(metrics=metrics)
        assert first_metric(found) == ("F1", pytest.approx(2 / 3))
        assert measured(metrics=metrics) == found  # nothing is left of the first measurement

    def test_several_numbers_of_one_object_have_names(self):
        class Both(F1):
            def compute(self):
                return {"f1": super().compute(), "rows": 5}

        assert list(measured(metrics=Both())) == ["loss", "f1", "rows"]

    def test_a_function_gets_all_outputs_and_targets(self):
        found = measured(epoch_metrics=epoch_metrics)
        assert (first_metric(found), found["rows"]) == (("f1", pytest.approx(2 / 3)), 5.0)

    def test_means_over_batches_may_stand_beside_it(self):
        found = measured(epoch_metrics=epoch_metrics, metrics=lambda output, target: {"first": output[0, 0]})
        assert (list(found), found["first"]) == (["loss", "f1", "rows", "first"], pytest.approx((2 * 2 + 0 + 0) / 5))

    def test_nested_outputs_are_joined_and_unequal_ones_are_lists(self):
        seen = []

        def look(outputs, targets):
            seen.extend([outputs["logits"].shape, [len(one) for one in outputs["boxes"]], targets])
            return {"n": 1}

        task = task_of(epoch_metrics=look)
        whole = task.whole_set()
        whole.update({"logits": X[:2], "boxes": torch.zeros(2, 3)}, ["a", "b"])
        whole.update({"logits": X[2:], "boxes": torch.zeros(3, 4)}, ["c"])
        assert whole.compute() == {"n": 1.0}
        assert seen == [(5, 2), [2, 3], [["a", "b"], ["c"]]]

    def test_outputs_of_autocast_come_as_floats(self):
        whole = task_of(epoch_metrics=lambda outputs, targets: {"sum": outputs.numpy().sum()}).whole_set()
        whole.update(X.bfloat16(), Y)
        assert whole.compute() == {"sum": 8.0}

    def test_one_batch_alone_is_measured_as_a_whole(self):
        assert task_of(metrics=F1()).metrics(X, Y) == {"F1": pytest.approx(2 / 3)}
        assert task_of(metrics=F1()).batch_metrics(X, Y) == {}

    @pytest.mark.parametrize(
        ("functions", "message"),
        [
            ({"metrics": F1(), "epoch_metrics": epoch_metrics}, "both measure whole sets"),
            (
                {"metrics": type("Macro", (F1,), {"__init__": lambda self, classes: None})},
                r"metrics\(\) failed: TypeError",
            ),
            ({"metrics": lambda: 3}, r"metrics\(\) returned an int \(3\), it must return an object with update\(\)"),
            ({"epoch_metrics": lambda outputs, targets: 0.5}, r"epoch_metrics\(\) returned a float \(0\.5\)"),
            ({"epoch_metrics": max}, r"epoch_metrics\(\) failed: \w+Error"),
        ],
    )
    def test_what_is_none_is_refused(self, functions, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: .*{message}"):
            measured(**functions)

    def test_an_object_of_other_arguments_is_named(self):
        class Other(F1):
            def update(self, output):
                """Take too little."""

        with pytest.raises(UserCodeError, match=r"update\(\) of Other failed: TypeError"):
            measured(metrics=Other())


def recall_of_class_0(output, target):
    return {"recall": (output.argmax(1) == target)[target == 0].float().mean()}


class TestBatchesWithoutAValue:
    def test_they_do_not_count(self):
        # batches of two: one of class 0 and right, one of class 0 and wrong, none of class 0
        assert measured(metrics=recall_of_class_0)["recall"] == pytest.approx((2 * 1.0 + 2 * 0.0) / 4)

    def test_a_loss_that_is_nan_does(self):
        means = Averages()
        means.update({"loss": math.nan, "recall": math.nan}, 2)
        means.update({"loss": 1.0, "recall": 0.5}, 2)
        assert (math.isnan(means.means()["loss"]), means.means()["recall"]) == (True, 0.5)

    def test_a_metric_without_any_value_says_so(self):
        found = measured(metrics=lambda output, target: {"recall": (output[:, 0] > 0)[target == 5].float().mean()})
        with pytest.raises(NoResultError, match="the recall has a value in no batch of the test data"):
            require_finite(found, "test")

    def test_enas_learns_from_the_batches_that_have_one(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.op = LayerChoice([nn.Linear(4, 2), nn.Linear(4, 2)], key="op")

            def forward(self, x):
                return self.op(x)

        values = iter([math.nan, 0.5] * 100)
        task = task_of(train_dataset=lambda: numbers(16), metrics=lambda output, target: {"recall": next(values)})
        train, valid = build_batches(task, DataSettings(batch_size=4))
        mutator = EnasMutator(Net(), mutator_steps=2, aggregate=2)
        trainer = mutator.trainer(mutator.binding.model, task, train, valid, 1, mutator=mutator)
        trainer.train()
        assert trainer.history[0].train["controller_reward"] == 0.5
