"""The loop: what it feeds, measures, and when it stops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nnas_core import Trainer
from nnas_core.errors import ExitCode, NoResultError
from nnas_core.training.data import build_batches
from nnas_core.training.metrics import Averages
from nnas_core.training.settings import DataSettings, OptimizerSettings
from nnas_core.training.trainer import Callback
from tests.training.sample_trainings import build_trainer, numbers, task_of


def linear_trainer(task, epochs=1, batch_size=8, **options):
    train, valid = build_batches(task, DataSettings(batch_size=batch_size))
    torch_model = nn.Linear(4, 2)
    return Trainer(torch_model, task, train, valid, epochs, **options)


class Log(Callback):
    def __init__(self):
        self.calls = []

    def on_epoch_begin(self, epoch):
        self.calls.append(f"epoch {epoch}")

    def on_batch_begin(self, epoch):
        self.calls.append("(")

    def on_batch_end(self, epoch):
        self.calls.append(f"{self.trainer.step})")

    def on_epoch_end(self, epoch):
        self.calls.append(f"end {epoch}, {len(self.trainer.history)} in history")


class TestLoop:
    def test_a_plain_model_is_trained_as_a_loop_in_pytorch_trains_it(self):
        task = task_of(train_dataset=lambda: numbers(40), valid_dataset=lambda: numbers(8, 1))
        trainer = linear_trainer(task, epochs=2, clip_grad=0.5)
        model = nn.Linear(4, 2)
        model.load_state_dict(trainer.model.state_dict())
        trainer.train()
        optimizer = torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        batches, _ = build_batches(task, DataSettings(batch_size=8))
        step = 0
        for epoch in range(2):
            for x, y in batches.epoch(epoch):
                optimizer.param_groups[0]["lr"] = 1e-3 + (0.025 - 1e-3) * (1 + math.cos(math.pi * step / 10)) / 2
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                step += 1
        torch.testing.assert_close(trainer.model.state_dict(), model.state_dict(), rtol=1e-6, atol=1e-7)

    def test_callbacks_see_every_epoch_and_step(self):
        log = Log()
        task = task_of(train_dataset=lambda: numbers(16), valid_dataset=lambda: numbers(8))
        linear_trainer(task, epochs=2, callbacks=[log]).train()
        assert log.calls == [
            "epoch 0", "(", "1)", "(", "2)", "end 0, 1 in history",
            "epoch 1", "(", "3)", "(", "4)", "end 1, 2 in history",
        ]  # fmt: skip

    def test_a_mutator_decides_anew_every_step_and_every_validation_batch(self):
        trainer = build_trainer(task_of(train_dataset=lambda: numbers(40)), DataSettings(batch_size=8), epochs=2)
        seen = []
        original = trainer.mutator.reset
        trainer.mutator.reset = lambda: (original(), seen.append(1))[0]
        trainer.train()
        # 32 training and 8 validation samples an epoch
        assert len(seen) == 2 * (4 + 1)

    def test_training_is_in_training_mode_and_validation_is_not(self):
        modes = []

        def forward_batch(model, batch):
            modes.append((model.training, torch.is_grad_enabled()))
            return model(batch[0]), batch[1]

        task = task_of(train_dataset=lambda: numbers(8), valid_dataset=lambda: numbers(8), forward_batch=forward_batch)
        linear_trainer(task).train()
        assert modes == [(True, True), (False, False)]

    @pytest.mark.parametrize(("limit", "expected"), [(0, 1000.0), (2.0, 2.0)])
    def test_gradients_are_clipped_to_the_limit(self, limit, expected):
        norms = []

        class Watch(torch.optim.SGD):
            def step(self, closure=None):
                norms.append(
                    torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]]).norm().item()
                )

        task = task_of(
            train_dataset=lambda: numbers(8),
            valid_dataset=lambda: numbers(8),
            build_optimizer=lambda parameters: Watch(parameters, 0.1),
            loss=lambda output, target: output[0, 0] * 1000 / math.sqrt(1 + target.new_tensor(0.0)),
            metrics=lambda output, target: {"zero": 0},
            forward_batch=lambda model, batch: (model(torch.zeros(1, 4)), batch[1]),
        )
        linear_trainer(task, clip_grad=limit).train()
        assert norms == [pytest.approx(expected, rel=1e-5)]

    def test_parameters_that_require_no_gradient_stay(self):
        task = task_of(train_dataset=lambda: numbers(8), valid_dataset=lambda: numbers(8))
        train, valid = build_batches(task, DataSettings(batch_size=8))
        model = nn.Linear(4, 2)
        model.weight.requires_grad_(False)
        before = model.weight.clone()
        Trainer(model, task, train, valid, 2).train()
        assert torch.equal(model.weight, before)


class TestNonFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(self, value):
        steps = []

        def loss(output, target):
            steps.append(1)
            return nn.functional.cross_entropy(output, target) * (value if len(steps) == 3 else 1.0)

        task = task_of(train_dataset=lambda: numbers(40), valid_dataset=lambda: numbers(8), loss=loss)
        trainer = linear_trainer(task)
        kept = {}

        class Keep(Callback):
            def on_batch_end(self, epoch):
                kept.update({name: tensor.clone() for name, tensor in self.trainer.model.state_dict().items()})

        keep = Keep()
        keep.build(trainer.model, None, trainer)
        trainer.callbacks = [keep]
        with pytest.raises(NoResultError, match=rf"the loss is not finite \({value}\) at step 3, epoch 1") as caught:
            trainer.train()
        assert caught.value.exit_code == ExitCode.NO_RESULT
        assert all(torch.equal(tensor, kept[name]) for name, tensor in trainer.model.state_dict().items())


class TestMetrics:
    def test_means_are_weighted_by_the_size_of_the_batches(self):
        # 10 samples in batches of 4, 4 and 2: the mean over samples is not the mean over batches
        x = torch.zeros(10, 4)
        y = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
        task = task_of(
            train_dataset=lambda: numbers(4),
            valid_dataset=lambda: TensorDataset(x, y),
            forward_batch=lambda model, batch: (torch.tensor([[1.0, 0.0]]).repeat(len(batch[1]), 1), batch[1]),
        )
        values = linear_trainer(task, batch_size=4).validate_one_epoch(0)
        right, wrong = -math.log(math.e / (math.e + 1)), -math.log(1 / (math.e + 1))
        assert values == {"loss": pytest.approx(0.8 * right + 0.2 * wrong), "accuracy": pytest.approx(0.8)}

    def test_the_training_metrics_of_an_epoch_are_means_over_its_samples(self):
        y = torch.arange(10.0)
        task = task_of(
            train_dataset=lambda: TensorDataset(torch.zeros(10, 4), y),
            valid_dataset=lambda: TensorDataset(torch.zeros(10, 4), y),
            loss=lambda output, target: output.sum() * 0 + target.mean(),
            metrics=lambda output, target: {"largest": target.max(), "mean": target.mean()},
        )
        trainer = linear_trainer(task, batch_size=4)
        trainer.train()
        (record,) = trainer.history
        assert (record.samples, record.train["loss"], record.train["mean"]) == (10, 4.5, 4.5)
        assert record.valid == {"loss": 4.5, "largest": pytest.approx((3 * 4 + 7 * 4 + 9 * 2) / 10), "mean": 4.5}
        assert list(record.train) == ["loss", "largest", "mean"]

    def test_averages_go_on_after_their_state_was_saved(self):
        first = Averages()
        first.update({"a": 1.0}, 3)
        second = Averages()
        second.load_state_dict(first.state_dict())
        second.update({"a": 5.0}, 1)
        assert (second.means(), first.means()) == ({"a": 2.0}, {"a": 1.0})

    def test_an_empty_average_is_empty(self):
        assert Averages().means() == {}


def test_the_learning_rate_follows_the_schedule_of_the_whole_training():
    rates = []

    class Watch(Callback):
        def on_batch_begin(self, epoch):
            rates.append(self.trainer.optimizer.param_groups[0]["lr"])

    task = task_of(
        OptimizerSettings(learning_rate=0.1, min_learning_rate=0.01),
        train_dataset=lambda: numbers(40),
        valid_dataset=lambda: numbers(8),
    )
    linear_trainer(task, epochs=4, callbacks=[Watch()]).train()
    assert rates == pytest.approx([0.01 + 0.09 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(20)])
