"""The training of ENAS: when the controller learns, from what, and going on in the middle; and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nnas_core import InputChoice, LayerChoice, RandomMutator
from nnas_core.errors import BindingError, NoResultError, UsageError
from nnas_core.mutators._controller.steps import MOST_SUBSETS
from nnas_core.mutators.enas import EnasMutator, EnasTrainer
from nnas_core.training.data import architecture_batches, build_batches
from nnas_core.training.settings import DataSettings
from nnas_core.training.task import Task
from nnas_core.training.trainer import Callback
from tests.mutators.enas_equations import SUBSETS
from tests.training.sample_trainings import Stream, numbers, task_of


class Net(nn.Module):
    """A supernet with dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 6), nn.Linear(4, 6, bias=False), nn.Linear(4, 6)], key="op")
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.4)
        self.pick = InputChoice(2, key="pick")
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.op(x))
        z = self.pick([self.drop(y), torch.relu(y)])
        return self.head(y if z is None else z)


def trainer_of(
    task: Task | None = None,
    epochs: int = 2,
    mutator: Callable[..., Any] = EnasMutator,
    callbacks: tuple[Callback, ...] = (),
    **options: Any,
) -> EnasTrainer:
    """8 batches an epoch to train on, 2 to validate."""
    task = task or task_of(train_dataset=numbers)
    settings = DataSettings(batch_size=4, seed=3)
    train, valid = build_batches(task, settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
    generator = torch.Generator().manual_seed(5)
    options = {"mutator_steps": 3, "aggregate": 2, **options} if mutator is EnasMutator else {}
    return EnasTrainer(
        model,
        task,
        train,
        valid,
        epochs,
        mutator=mutator(model, generator, **options),
        generators={"mutator": generator},
        architecture_batches=architecture_batches(task, settings),
        callbacks=callbacks,
    )


class Stopped(Exception):
    pass


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, epoch: int) -> None:
        if self.trainer.step == self.step:
            raise Stopped


class Watch(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_batch_end(self, epoch: int) -> None:
        trainer: Any = self.trainer
        state = trainer.architecture_optimizer.state
        self.steps.append(int(next(iter(state.values()))["step"]) if state else 0)


def run(trainer: EnasTrainer) -> EnasTrainer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (3, [0, 0, 1, 1, 1, 2, 2, 3]),
        (8, list(range(1, 9))),
        (12, [1, 3, 4, 6, 7, 9, 10, 12]),
        (None, [0, 0, 0, 0, 0, 0, 0, 1]),
    ],
)
def test_steps_of_the_controller_are_spread_over_the_epoch(wanted: int | None, expected: list[int]) -> None:
    watch = Watch()
    run(trainer_of(epochs=1, mutator_steps=wanted, callbacks=(watch,)))
    assert watch.steps == expected


def test_where_the_number_of_batches_is_unknown_the_first_ones_bring_a_step_each() -> None:
    watch = Watch()
    task = task_of(train_dataset=Stream, valid_dataset=numbers)
    run(trainer_of(task, epochs=1, mutator_steps=2, callbacks=(watch,)))
    assert watch.steps == [1, 2, 2]
    watch = Watch()
    trainer = run(trainer_of(task, epochs=1, mutator_steps=None, callbacks=(watch,)))
    assert watch.steps == [1, 1, 1]
    trainer.batch = 10
    assert trainer.steps_due() == 1
    trainer.batch = 11
    assert trainer.steps_due() == 0
    assert trainer.remarks == ()


@pytest.mark.parametrize(("batches", "steps"), [(1, 1), (14, 1), (16, 2), (500, 50)])
def test_by_default_they_are_one_for_ten_batches(batches: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(epochs=1, mutator_steps=None)
    monkeypatch.setattr(trainer, "steps_of", lambda epoch: batches)
    total = 0
    for trainer.batch in range(batches):
        total += trainer.steps_due()
    assert total == steps
    (remark,) = trainer.remarks
    assert remark.startswith(f"{steps} steps of the controller an epoch measure 2 architectures each: {2 * steps:,} ")
    assert remark.endswith(f" forward passes beside {batches} steps of the weights")


def test_a_step_of_the_weights_leaves_the_controller_alone_and_the_reverse() -> None:
    trainer = trainer_of(aggregate=3)
    states = [trainer.searching.controller, trainer.model]
    for action, changed in ((trainer.weight_step, 1), (lambda batch: trainer.controller_step(), 0)):
        before = [copy.deepcopy(dict(one.state_dict())) for one in states]
        with torch.random.fork_rng():
            action([numbers()[:4][0], numbers()[:4][1]])
        differs = [
            any(not torch.equal(one.state_dict()[name], old[name]) for name in old)
            for one, old in zip(states, before, strict=True)
        ]
        assert differs == [changed == 0, changed == 1]
    assert trainer.model.training


def test_the_reward_is_the_first_metric_with_the_batch_s_own_statistics() -> None:
    seen = []

    def metrics(output: Tensor, target: Tensor) -> dict[str, float]:
        seen.append(output)
        return {"loss": 5.0, "hits": 0.25, "other": 7.0}

    task = task_of(train_dataset=numbers, metrics=metrics)
    trainer = trainer_of(task)
    trainer.searching.decide({"op": (1,), "pick": (1,)})
    batch = next(copy.deepcopy(trainer.held_out))
    trainer.model.norm.running_mean.fill_(3.0)
    trainer.controller_step()
    assert trainer._averages.means()["controller_reward"] == 0.25
    assert trainer.model.norm.running_mean.tolist() == [3.0] * 6
    assert trainer.model.norm.num_batches_tracked.item() == 0
    x = batch[0]
    outputs = []
    for op, pick in itertools.product(range(3), SUBSETS):
        y = trainer.model.op[op](x)
        norm = (y - y.mean(0)) / torch.sqrt(y.var(0, unbiased=False) + 1e-5)
        picked = [norm, torch.relu(norm)]
        outputs.append(trainer.model.head(sum((picked[i] for i in pick), torch.zeros(4, 6)) if pick else norm))
    assert any(torch.allclose(seen[0], one, atol=1e-5) for one in outputs)


def test_a_metric_to_minimise_is_a_negative_reward() -> None:
    task = task_of(train_dataset=numbers, metrics=lambda output, target: {"error": 0.75}, metric_mode="min")
    trainer = trainer_of(task)
    trainer.controller_step()
    assert trainer._averages.means()["controller_reward"] == -0.75


def test_a_reward_that_is_not_finite_ends_the_training() -> None:
    task = task_of(train_dataset=numbers, metrics=lambda output, target: {"error": math.inf})
    with pytest.raises(NoResultError, match=r"the reward is not finite \(inf\) at step 1, epoch 1"):
        trainer_of(task).controller_step()


def test_the_measurements_are_plain_numbers() -> None:
    trainer = run(trainer_of(epochs=1))
    assert {type(value) for value in trainer.history[0].train.values()} == {float}
    assert set(trainer.history[0].train) == {"loss", "accuracy", "controller_reward", "controller_entropy"}


@pytest.mark.parametrize("step", [1, 3, 8, 11])
def test_it_goes_on_to_the_bit_from_any_step(step: int) -> None:
    whole = run(trainer_of()).state_dict()
    stopped = trainer_of(callbacks=(StopAt(step),))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        with pytest.raises(Stopped):
            stopped.train()
        state = copy.deepcopy(stopped.state_dict())
        torch.manual_seed(77)
        resumed = trainer_of()
        resumed.load_state_dict(state)
        resumed.train()
        now = resumed.state_dict()
    for part in ("model", "mutator", "optimizer", "architecture"):
        torch.testing.assert_close(now[part], whole[part], rtol=0, atol=0)
    assert now["random"]["generators"]["mutator"].equal(whole["random"]["generators"]["mutator"])
    assert now["mutator"]["_extra_state"]["baseline"] is not None


def test_data_of_the_user_s_loader_are_read_anew_in_every_pass() -> None:
    reads = []

    class Counted(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            reads.append(index)
            return numbers()[index]

    loaders = {"train": DataLoader(numbers(8), batch_size=4), "valid": DataLoader(Counted(), batch_size=4)}
    trainer = trainer_of(task_of(build_dataloaders=lambda size, workers: loaders), aggregate=8)
    trainer.controller_step()
    assert sorted(reads) == sorted(4 * list(range(8)))


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lstm_size": 0}, "lstm_size is 0, it must be at least 1"),
        ({"lstm_num_layers": 0}, "lstm_num_layers is 0, it must be at least 1"),
        ({"mutator_steps": 0}, "mutator_steps is 0, it must be at least 1"),
        ({"aggregate": -1}, "aggregate is -1, it must be at least 1"),
        ({"tanh_constant": 0.0}, "tanh_constant is 0.0, it must be above 0, or null"),
        ({"temperature": -1.0}, "temperature is -1.0, it must be above 0, or null"),
        ({"entropy_weight": -0.1}, "entropy_weight is -0.1, it must be at least 0"),
        ({"skip_weight": math.nan}, "skip_weight is nan, it must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, it must be above 0"),
        ({"skip_target": 1.0}, "skip_target is 1.0, it must be between 0 and 1"),
        ({"baseline_decay": 1.0}, "baseline_decay is 1.0, it must be at least 0 and below 1"),
        ({"entropy_reduction": "max"}, "entropy_reduction is 'max', it must be 'sum' or 'mean'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EnasMutator(Net(), **options)


def test_a_model_without_choices() -> None:
    with pytest.raises(
        BindingError, match="there is nothing to learn: the model has no LayerChoice and no InputChoice"
    ):
        EnasMutator(nn.Linear(1, 1))


def test_a_fixed_number_of_very_many_inputs_is_refused_and_the_model_left_free() -> None:
    model = nn.Sequential(InputChoice(16, n_chosen=8, key="many"))
    assert math.comb(16, 8) > MOST_SUBSETS
    with pytest.raises(BindingError, match="'many' can be decided in 12,870 ways, at most 10,000 subsets"):
        EnasMutator(model)
    RandomMutator(model)


def test_a_trainer_without_its_controller() -> None:
    with pytest.raises(BindingError, match="EnasTrainer needs an EnasMutator, not a RandomMutator"):
        trainer_of(mutator=RandomMutator)


def test_candidates_may_be_replaced_but_not_taken_out() -> None:
    model = Net()
    mutator = EnasMutator(model, torch.Generator())
    model.op[1] = nn.Linear(4, 6)
    mutator.reset()
    with pytest.raises(BindingError, match="'op' has 2 candidates now, the controller decides about 3"):
        del model.op[0]
