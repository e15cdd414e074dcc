"""Defaults of SPEC 3: loss, metrics, optimizer and schedule, against plain PyTorch and closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nnas_core.errors import UserCodeError
from nnas_core.training.classification import AUXILIARY_WEIGHT
from nnas_core.training.optimizers import default_optimizer
from nnas_core.training.settings import OptimizerSettings
from tests.training.sample_trainings import task_of

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
AUXILIARY = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
TARGET = torch.tensor([0, 1, 1])


class TestLossAndMetrics:
    def test_the_loss_is_cross_entropy(self):
        expected = (
            -(math.log(1 / (1 + math.exp(-2))) + math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.exp(2)))) / 3
        )
        assert task_of().loss(LOGITS, TARGET).item() == pytest.approx(expected)

    @pytest.mark.parametrize("wrap", [tuple, list])
    def test_an_auxiliary_output_adds_its_weighted_loss(self, wrap):
        expected = F.cross_entropy(LOGITS, TARGET) + 0.4 * F.cross_entropy(AUXILIARY, TARGET)
        assert AUXILIARY_WEIGHT == 0.4
        assert task_of().loss(wrap([LOGITS, AUXILIARY]), TARGET).item() == pytest.approx(expected.item())

    def test_an_auxiliary_output_may_be_missing(self):
        assert task_of().loss((LOGITS, None), TARGET).item() == F.cross_entropy(LOGITS, TARGET).item()

    @pytest.mark.parametrize("output", [LOGITS, (LOGITS, AUXILIARY)])
    def test_the_metric_is_the_accuracy_of_the_logits(self, output):
        assert task_of().metrics(output, TARGET) == {"accuracy": pytest.approx(2 / 3)}

    def test_an_output_that_cannot_be_compared_is_explained_with_shapes(self):
        with pytest.raises(UserCodeError, match=r"cross entropy cannot compare output \[3, 2\] and target \[4\]"):
            task_of().loss(LOGITS, torch.zeros(4, dtype=torch.long))

    def test_metrics_of_tensors_become_numbers(self):
        task = task_of(metrics=lambda output, target: {"top": torch.tensor(0.5), "n": 3})
        assert task.metrics(LOGITS, TARGET) == {"top": 0.5, "n": 3.0}

    @pytest.mark.parametrize("value", [0.5, {}, None, [("a", 1)]])
    def test_metrics_must_be_numbers_by_name(self, value):
        with pytest.raises(
            UserCodeError, match=r"task.py: metrics\(\) returned .* must return a dictionary of numbers"
        ):
            task_of(metrics=lambda output, target: value).metrics(LOGITS, TARGET)

    def test_metric_mode_is_max_unless_the_module_says_min(self):
        assert (task_of().metric_mode, task_of(metric_mode="min").metric_mode) == ("max", "min")

    def test_another_metric_mode_is_refused(self):
        with pytest.raises(UserCodeError, match="metric_mode is 'best', it must be 'max' or 'min'"):
            task_of(metric_mode="best")

    def test_the_batch_is_unpacked_into_input_and_target(self):
        output, target = task_of().forward_batch(nn.Flatten(), (LOGITS, TARGET))
        assert (output.shape, target is TARGET) == ((3, 2), True)

    def test_what_the_module_lacks_is_named(self):
        with pytest.raises(UserCodeError, match=r"task.py: it defines no train_dataset\(\)") as caught:
            task_of().call("train_dataset")
        assert caught.value.hint == "define train_dataset() there, or name the file that does with `task` FILE"


def trained(make, steps=12, seed=0):
    """Two layers, of which the second gets no gradient before step 5, as in a single-path supernet."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(3, 3), nn.Linear(3, 3)]
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = make([parameter for layer in layers for parameter in layer.parameters()])
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn(5, 3, generator=generator)
        layers[1 if step >= 5 and step % 2 else 0](x).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for layer in layers for parameter in layer.parameters()]


class TestOptimizer:
    @pytest.mark.parametrize("momentum", [0.9, 0.0])
    @pytest.mark.parametrize("weight_decay", [3e-4, 0.0])
    def test_it_is_plain_sgd_also_where_gradients_come_late(self, momentum, weight_decay):
        settings = OptimizerSettings(learning_rate=0.1, momentum=momentum, weight_decay=weight_decay)
        ours = trained(lambda parameters: default_optimizer(parameters, settings))
        theirs = trained(
            lambda parameters: torch.optim.SGD(
                parameters, 0.1, momentum=momentum, weight_decay=weight_decay, fused=False, foreach=False
            )
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

    def test_two_steps_in_closed_form(self):
        parameter = nn.Parameter(torch.tensor([1.0]))
        optimizer = default_optimizer([parameter], OptimizerSettings(learning_rate=0.1, momentum=0.5, weight_decay=0.2))
        for _ in range(2):
            optimizer.zero_grad()
            (3 * parameter).sum().backward()
            optimizer.step()
        # v1 = 3 + 0.2 * 1 = 3.2, w1 = 1 - 0.32 = 0.68; v2 = 0.5 * 3.2 + 3 + 0.2 * 0.68 = 4.736, w2 = 0.68 - 0.4736
        assert parameter.item() == pytest.approx(0.2064)

    def test_the_defaults_are_those_of_the_contract(self):
        (group,) = default_optimizer([nn.Parameter(torch.ones(1))], OptimizerSettings()).param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.025, 0.9, 3e-4, False)

    def test_it_is_one_kernel_on_the_cpu(self):
        (group,) = default_optimizer([nn.Parameter(torch.ones(1))], OptimizerSettings()).param_groups
        assert group["fused"] is True

    def test_a_parameter_without_a_gradient_stays_as_it_is(self):
        first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        optimizer = default_optimizer([first, second], OptimizerSettings())
        first.sum().backward()
        optimizer.step()
        assert (second.tolist(), first.tolist() == [1.0, 1.0]) == ([1.0, 1.0], False)

    def test_its_state_is_saved_and_loaded(self):
        def build():
            parameter = nn.Parameter(torch.ones(2))
            return parameter, default_optimizer([parameter], OptimizerSettings())

        (first, optimizer), (second, again) = build(), build()
        first.sum().backward()
        optimizer.step()
        again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        with torch.no_grad():
            second.copy_(first)
        for parameter, one in ((first, optimizer), (second, again)):
            one.zero_grad()
            parameter.sum().backward()
            one.step()
        assert torch.equal(first, second)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_floating_dtypes_are_trained(self, dtype):
        parameter = nn.Parameter(torch.ones(1, dtype=dtype))
        optimizer = default_optimizer([parameter], OptimizerSettings(learning_rate=0.5, weight_decay=0.0))
        parameter.sum().backward()
        optimizer.step()
        assert parameter.item() == 0.5

    def test_the_modules_own_optimizer_is_taken(self):
        task = task_of(build_optimizer=lambda parameters: torch.optim.Adam(parameters, 0.5))
        assert isinstance(task.build_optimizer([nn.Parameter(torch.ones(1))]), torch.optim.Adam)


class TestSchedule:
    def rates(self, task, steps):
        optimizer = task.build_optimizer([nn.Parameter(torch.ones(1))])
        scheduler = task.build_scheduler(optimizer, steps)
        rates = []
        for _ in range(steps + 1):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        return rates

    @pytest.mark.parametrize("steps", [1, 2, 7, 1000])
    def test_cosine_from_the_first_rate_to_the_last_in_closed_form(self, steps):
        expected = [1e-3 + (0.025 - 1e-3) * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps + 1)]
        assert self.rates(task_of(), steps) == pytest.approx(expected, rel=1e-6)

    def test_none_is_constant(self):
        assert self.rates(task_of(OptimizerSettings(schedule="none")), 5) == [0.025] * 6

    def test_a_training_of_unknown_length_has_a_constant_rate(self):
        task = task_of()
        assert task.build_scheduler(task.build_optimizer([nn.Parameter(torch.ones(1))]), 0) is None

    def test_the_modules_own_schedule_is_taken_with_the_number_of_steps(self):
        seen = []

        def build_scheduler(optimizer, total_steps):
            seen.append(total_steps)

        assert task_of(build_scheduler=build_scheduler).build_scheduler(None, 17) is None
        assert seen == [17]


def test_the_default_optimizer_heeds_a_gradient_scaler() -> None:
    def stepped(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list[float]:
        parameter = nn.Parameter(torch.ones(()))
        optimizer = make([parameter])
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        values = []
        for loss in (parameter, parameter * 2, parameter * torch.inf, parameter):
            optimizer.zero_grad()
            scaler.scale(loss * 1.0).backward()
            scaler.step(optimizer)
            scaler.update()
            values.append(parameter.item())
        return values

    ours = stepped(lambda weights: default_optimizer(weights, OptimizerSettings(learning_rate=0.1)))
    settings = OptimizerSettings()
    theirs = stepped(
        lambda weights: torch.optim.SGD(
            weights, 0.1, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
        )
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_parameters_can_be_added_to_the_default_optimizer() -> None:
    first, second = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
    optimizer = default_optimizer([first], OptimizerSettings(learning_rate=0.1, weight_decay=0.0))
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    (first + second).backward()
    optimizer.step()
    assert [first.item(), second.item()] == pytest.approx([0.9, 0.8])


def test_parameters_of_several_types_are_updated_in_one_group() -> None:
    parameters = [nn.Parameter(torch.ones(2, dtype=one)) for one in (torch.float32, torch.float64, torch.bfloat16)]
    optimizer = default_optimizer(parameters, OptimizerSettings(learning_rate=0.5, momentum=0.9, weight_decay=0.0))
    for _ in range(2):
        optimizer.zero_grad()
        sum(one.double().sum() for one in parameters).backward()  # type: ignore[union-attr]
        optimizer.step()
    assert [one.tolist() for one in parameters] == [[pytest.approx(1 - 0.5 - 0.5 * 1.9, abs=0.01)] * 2] * 3


def test_hooks_and_profilers_see_every_step_of_the_default_optimizer() -> None:
    parameter = nn.Parameter(torch.ones(()))
    optimizer = default_optimizer([parameter], OptimizerSettings(learning_rate=0.5, momentum=0.0, weight_decay=0.0))
    seen: list[str] = []

    def step() -> None:
        optimizer.zero_grad()
        (parameter * 1.0).backward()
        optimizer.step()

    def hook(name: str) -> Callable[..., None]:
        return lambda one, args, kwargs: seen.append(f"{name} {parameter.item()}")

    registering = {
        "before": optimizer.register_step_pre_hook,
        "after": optimizer.register_step_post_hook,
        "before all": register_optimizer_step_pre_hook,
        "after all": register_optimizer_step_post_hook,
    }
    for name, register in registering.items():
        handle = register(hook(name))
        step()
        handle.remove()
    assert seen == ["before 1.0", "after 0.0", "before all 0.0", "after all -1.0"]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    assert any(event.key == "Optimizer.step#FusedSGD.step" for event in profile.key_averages())
    assert parameter.item() == -1.5
