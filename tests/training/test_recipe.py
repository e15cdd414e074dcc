"""The parts of a recipe, each beside its formula worked out in another way."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.settling import settle
from nnas_core.random_state import torch_generator
from nnas_core.training.classification import Classification
from nnas_core.training.data import build_batches
from nnas_core.training.recipe import GENERATOR, Average, RecipeTrainer, cut_out, mixed, without_path
from nnas_core.training.settings import DataSettings, RecipeSettings
from nnas_core.training.side_paths import places_of_choices, side_paths
from tests.training.sample_trainings import numbers, task_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cutout_sets_one_square_around_a_centre_anywhere_to_zero() -> None:
    found = cut_out(torch.ones(4000, 2, 6, 5), 3, generator())
    assert torch.equal(found[:, 0], found[:, 1])
    squares = Counter()
    for image in found[:, 0]:
        rows, columns = torch.where(image == 0)
        top, bottom, left, right = int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())
        assert bool((image[top : bottom + 1, left : right + 1] == 0).all())
        squares[top, bottom, left, right] += 1
    # a centre (y, x) of the 6 x 5 has the square from y-1 to y+1 and x-1 to x+1, as far as it is on the image
    expected = {(max(y - 1, 0), min(y + 1, 5), max(x - 1, 0), min(x + 1, 4)) for y in range(6) for x in range(5)}
    assert set(squares) == expected
    assert all(abs(count - 4000 / 30) < 60 for count in squares.values())


def test_mixup_is_a_convex_sum_with_one_share_a_batch() -> None:
    x = torch.randn(5, 3)
    shares = []
    for seed in range(2000):
        found, others, share = mixed(x, 0.4, generator(seed))
        shares.append(share)
        assert sorted(others.tolist()) == list(range(5))
        assert torch.allclose(found[2], share * x[2] + (1 - share) * x[others[2]])
    drawn = torch.tensor(shares)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))
    assert abs(drawn.mean() - 0.5) < 0.03
    assert abs(drawn.var() - 1 / (4 * 1.8)) < 0.01


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    found = without_path(torch.ones(20_000, 3), 0.25, generator())
    assert found.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert bool((found == found[:, :1]).all())
    assert abs(found.mean() - 1) < 0.02


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    logits, labels = torch.randn(6, 5), torch.arange(6) % 5
    rows = 0.9 * F.one_hot(labels, 5) + 0.1 / 5
    expected = -(rows * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(Classification(label_smoothing=0.1).loss(logits, labels), expected)


def test_the_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("count", torch.tensor(0))
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = Average(model, 0.5)
    expected = 0.0
    for step, value in enumerate((1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0), start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        model.count += 1
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.swapped() as own:
        assert model.weight.item() == pytest.approx(expected)
        assert (model.count.item(), own["weight"].item()) == (8, 15.0)
    assert model.weight.item() == 15.0


def test_a_mask_of_minus_infinity_stays_one_in_the_average() -> None:
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    average = Average(model, 0.9)
    average.update()
    average.keep()
    assert model.mask.tolist() == [0.0, -torch.inf]


class Cells(nn.Module):
    """A stem, which is the only way, two branches that are added, an unused one, and an identity."""

    def __init__(self) -> None:
        super().__init__()
        ops = [nn.Linear(4, 4), nn.Identity()]
        self.stem = LayerChoice(ops, key="stem")
        self.left = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="left")
        self.right = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="right")
        self.unused = LayerChoice([nn.Linear(4, 4), nn.Identity()], key="unused")
        self.pick = InputChoice(n_candidates=3, n_chosen=2, key="pick")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.pick([self.left(x), self.right(x), self.unused(x)])


def decided(right: int) -> tuple[nn.Module, list[nn.Module]]:
    torch.manual_seed(0)
    model = Cells()
    places = places_of_choices(model)
    architecture = {"stem": 0, "left": 0, "right": right, "unused": 0, "pick": [True, True, False]}
    network = settle(model, architecture)
    x = torch.randn(3, 4)
    return network, side_paths(network, places, lambda: network(x))


@pytest.mark.global_random
def test_a_path_that_is_dropped_has_another_one_beside_it_and_is_no_identity() -> None:
    network, paths = decided(right=0)
    assert paths == [network.left, network.right]
    network, paths = decided(right=1)
    assert paths == [network.left]


class Watched(RecipeTrainer):
    """Keeps what was trained on."""

    def _loss(self, output, target):
        self.seen = [*getattr(self, "seen", []), (output.detach(), target)]
        return super()._loss(output, target)


def trained(recipe: RecipeSettings, epochs: int = 2, **options: object) -> Watched:
    torch.manual_seed(0)
    task = task_of(train_dataset=numbers)
    train, valid = build_batches(task, DataSettings(batch_size=8))
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    generators = {GENERATOR: torch_generator(0, GENERATOR)}
    return Watched(model, task, train, valid, epochs, generators=generators, recipe=recipe, **options)


@pytest.mark.global_random
def test_the_loss_of_a_mixed_batch_is_that_of_mixed_targets() -> None:
    trainer = trained(RecipeSettings(mixup=1.0, label_smoothing=0.2))
    x, y = next(trainer.train_batches.epoch(0))
    state = trainer.generators[GENERATOR].get_state()
    loss, output, target = trainer.loss_of((x, y))
    trainer.generators[GENERATOR].set_state(state)
    inputs, others, share = mixed(x, 1.0, trainer.generators[GENERATOR])
    logits = trainer.model(inputs)
    rows = share * F.one_hot(y, 2) + (1 - share) * F.one_hot(y[others], 2)
    expected = F.cross_entropy(logits, 0.8 * rows + 0.1)
    assert torch.allclose(loss, expected)
    assert torch.equal(output, logits)
    assert torch.equal(target, y)


@pytest.mark.global_random
def test_the_probability_grows_with_the_training_and_evaluation_drops_nothing() -> None:
    trainer = trained(RecipeSettings(drop_path=0.5))
    drawn = []
    hook = trainer.model[0].register_forward_hook
    trainer.paths = [trainer.model[0]]
    hook(trainer._without)
    trainer.model[2].register_forward_pre_hook(lambda module, args: drawn.append((module.training, args[0])))
    trainer.train()
    share = [float((given == trainer.model[1](torch.zeros(1))).all(1).float().mean()) for at, given in drawn if at]
    first, last = share[: len(share) // 2], share[len(share) // 2 :]
    assert share[0] == 0.0
    assert sum(first) < sum(last)
    assert all(not bool((given == 0).all(1).any()) for at, given in drawn if not at)


@pytest.mark.global_random
def test_a_training_with_everything_goes_on_to_the_bit_even_from_within_its_validation() -> None:
    recipe = RecipeSettings(mixup=0.3, label_smoothing=0.1, ema=0.9)
    whole = trained(recipe, epochs=3)
    whole.train()

    class Stopped(Exception):
        pass

    class StopAt:
        def __init__(self) -> None:
            self.calls = 0

        def build(self, *args: object) -> None:
            pass

        def on_validation_batch(self, epoch: int) -> None:
            if epoch == 1:
                raise Stopped

        def __getattr__(self, name: str):
            return lambda epoch: None

    first = trained(recipe, epochs=3, callbacks=[StopAt()])
    saved = {}
    original = first._call

    def call(hook: str) -> None:
        if hook == "on_validation_batch" and first.epoch == 1:
            saved.update(first.state_dict())
        original(hook)

    first._call = call
    with pytest.raises(Stopped):
        first.train()
    saved = {
        name: {key: one.clone() for key, one in value.items()} if name == "model" else value
        for name, value in saved.items()
    }
    second = trained(recipe, epochs=3)
    second.load_state_dict(saved)
    second.train()
    ours, theirs = second.state_dict(), whole.state_dict()
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])
    means = ours["average"]["mean"], theirs["average"]["mean"]
    assert all(torch.equal(means[0][name], means[1][name]) for name in means[1])
    assert [one.valid for one in second.history] == [one.valid for one in whole.history]
