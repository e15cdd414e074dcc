"""SPOS measures the FLOPs itself when it trains: on one sample, without a trace, and the same after a resume."""

from __future__ import annotations

import copy
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from nnas_core import RandomMutator, Trainer
from nnas_core.errors import NoResultError, UsageError, UserCodeError
from nnas_core.mutators.spos import SposMutator, SposTrainer
from nnas_core.runs.checkpoint import read_checkpoint, write_checkpoint
from nnas_core.training.data import build_batches
from nnas_core.training.settings import DataSettings
from nnas_core.training.trainer import Callback
from tests.cli_support import Cli, nnas, small_model
from tests.mutators.enumerable_costs import Shrinking, Unequal, drawn, flops_of, long_sample, quietly, sample, seeded
from tests.runs.test_checkpoint import HEADER
from tests.training.sample_trainings import numbers, task_of

__all__ = ["nnas", "small_model"]


class TestMeasuring:
    def test_flops_must_be_measured_first(self):
        mutator = SposMutator(Unequal(1), flops=[20, 170])
        assert mutator.needs_costs
        for draw in (mutator.reset, mutator.final_architecture):
            with pytest.raises(UsageError, match="the FLOPs of the candidates are not measured") as caught:
                draw()
            assert "measure_costs(inputs)" in caught.value.hint

    @quietly
    def test_the_forward_pass_may_be_ones_own(self):
        mutator = SposMutator(Unequal(1), seeded(), flops=[96, 96])
        mutator.measure_costs({"x": sample().repeat(2, 1)}, forward=lambda model, batch: model(batch["x"]))
        assert not mutator.needs_costs
        assert {flops_of(mutator, mutator.final_architecture(), sample()) for _ in range(50)} == {48}

    @quietly
    def test_a_copy_has_another_model_and_is_measured_again(self):
        mutator = SposMutator(Unequal(1), seeded(), flops=[20, 170])
        mutator.measure_costs(sample())
        twin = copy.deepcopy(mutator)
        assert (mutator.needs_costs, twin.needs_costs) == (False, True)
        twin.measure_costs(sample())
        assert list(drawn(mutator, 20)) == list(drawn(twin, 20))

    @quietly
    @pytest.mark.parametrize("bounds", [{"params": [100, 119]}, {"flops": [150, 200]}], ids=str)
    def test_candidates_that_change_are_measured_again(self, bounds):
        mutator = SposMutator(Unequal(1), seeded(), **bounds)
        mutator.measure_costs(sample())
        mutator.reset()
        mutator.model.a[1] = nn.Identity()  # what was wide
        with pytest.raises(NoResultError, match="no architecture has"):
            mutator.reset()

    @quietly
    def test_costs_are_remembered_but_not_without_end(self, monkeypatch):
        monkeypatch.setattr("nnas_core.mutators._bounded._REMEMBERED", 4)
        model = Shrinking()
        mutator = SposMutator(model, seeded(), flops=[30, 300])
        mutator.measure_costs(long_sample())
        mutator.reset()
        assert len(mutator._bounded._population._known) <= 4


# ---- training


class Watch(Callback):
    """The costs of every architecture that was trained or validated."""

    def __init__(self, stop=None):
        self.stop, self.seen, self.validated = stop, [], []

    def look(self, seen):
        current = {key: tuple(torch.nonzero(mask).flatten().tolist()) for key, mask in self.mutator._cache.items()}
        seen.append(current)

    def on_batch_end(self, epoch):
        self.look(self.seen)
        if self.trainer.step == self.stop:
            raise InterruptedError

    def on_validation_batch(self, epoch):
        self.look(self.validated)  # of the batch before


def series(count=40):
    x = torch.randn(count, 16, generator=seeded(1))
    return TensorDataset(x, (x[:, 0] > 0).long())


def built(model_class, data=numbers, watch=None, precision="float32", **bounds):
    task = task_of(train_dataset=data)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class()
    if precision == "float64":
        model.double()
    generator = seeded(5)
    mutator = SposMutator(model, generator, **bounds)
    train, valid = build_batches(task, DataSettings(batch_size=8))
    return SposTrainer(
        model,
        task,
        train,
        valid,
        3,
        mutator=mutator,
        generators={"mutator": generator},
        callbacks=[watch] if watch else [],
        precision=precision,
    )


CASES = {
    "added": (lambda: Unequal(None), numbers, {"flops": [20, 170]}),
    "measured": (Shrinking, series, {"flops": [30, 300], "params": [8, 30]}),
    "measured, tried": (lambda: Shrinking(6), series, {"flops": [30, 900], "bins": 2, "tries": 600}),
    "parameters": (lambda: Unequal(2), numbers, {"params": [20, 110]}),
}


@quietly
class TestTraining:
    @pytest.mark.parametrize("case", CASES)
    def test_a_resumed_search_goes_on_to_the_bit(self, case, tmp_path):
        model, data, bounds = CASES[case]
        whole, before, after = Watch(), Watch(stop=6), Watch()
        reference = built(model, data, whole, **bounds)
        reference.train()
        first = built(model, data, before, **bounds)
        with pytest.raises(InterruptedError):
            first.train()
        write_checkpoint(tmp_path / "c.pt", HEADER, {"state": first.state_dict()})
        second = built(model, data, after, **bounds)
        second.load_state_dict(read_checkpoint(tmp_path / "c.pt")["state"])
        second.train()
        assert before.seen + after.seen == whole.seen
        ours, theirs = second.model.state_dict(), reference.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert second.mutator.final_architecture() == reference.mutator.final_architecture()

    @pytest.mark.parametrize("case", ["added", "measured"])
    def test_no_step_and_no_validation_leaves_the_bounds(self, case):
        model, data, bounds = CASES[case]
        watch = Watch()
        trainer = built(model, data, watch, **bounds)
        trainer.train()
        x = data()[0][0][None]
        low, high = bounds["flops"]
        for decisions in watch.seen + watch.validated:
            chosen = {key: [index in decision for index in range(4)] for key, decision in decisions.items()}
            architecture = trainer.mutator.space.parse(
                {key: chosen[key][: len(trainer.mutator.space[key].candidates)] for key in chosen}
            )
            assert low <= flops_of(trainer.mutator, architecture, x) <= high
        assert len(watch.seen) == 12
        assert len(watch.validated) == 3

    def test_a_finished_search_can_still_draw_its_architecture_after_a_resume(self):
        first = built(Shrinking, series, flops=[30, 300])
        first.train()
        second = built(Shrinking, series, flops=[30, 300])
        second.load_state_dict(first.state_dict())
        assert second.mutator.final_architecture() == first.mutator.final_architecture()

    def test_measuring_changes_nothing_else(self):
        """With bounds that hold all architectures in one bin, but for the draws, training is as without."""
        trainer = built(lambda: Unequal(1), flops=[0, 1000], bins=1)
        batch = next(trainer.train_batches.epoch(0))
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        generator, state = trainer.generators["mutator"].get_state(), torch.get_rng_state()
        trainer.model.train()
        trainer._sample = trainer.one_sample(batch)
        trainer._measure()
        after = trainer.model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert torch.equal(trainer.generators["mutator"].get_state(), generator)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(module.training for module in trainer.model.modules())

    def test_in_double_precision(self):
        trainer = built(lambda: Unequal(1), precision="float64", flops=[20, 170])
        trainer.train()
        assert len(trainer.history) == 3

    def test_the_loop_serves_other_mutators(self):
        def trained(loop, kind):
            trainer = built(lambda: Unequal(1))
            options = {"mutator": trainer.mutator, "generators": trainer.generators}
            if kind is RandomMutator:
                trainer.mutator.unbind()
                options["mutator"] = RandomMutator(trainer.model, trainer.generators["mutator"])
            other = loop(trainer.model, trainer.task, trainer.train_batches, trainer.valid_batches, 1, **options)
            other.train()
            return other.model.state_dict()

        ours, theirs = trained(SposTrainer, RandomMutator), trained(Trainer, SposMutator)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class TestOneSample:
    Pair = namedtuple("Pair", "x y")

    @pytest.fixture
    def trainer(self):
        return built(lambda: Unequal(1))

    def test_is_the_first_row_of_what_has_as_many_rows(self, trainer):
        x, y, scale = torch.arange(12.0).reshape(4, 3), torch.arange(4), torch.ones(7)
        found = trainer.one_sample({"x": [x, (scale, "name")], "y": y, "none": None, "zero": torch.tensor(5.0)})
        assert found["x"][0].tolist() == [[0, 1, 2]]
        assert found["x"][1] == (scale, "name")
        assert (found["y"].tolist(), found["none"], found["zero"].item()) == ([0], None, 5.0)

    def test_does_not_change_with_the_batch(self, trainer):
        x = torch.ones(2, 3)
        found = trainer.one_sample([x, x])
        x.zero_()
        assert found[0].tolist() == [[1, 1, 1]]

    def test_a_batch_of_a_class_is_not_kept_in_checkpoints(self, trainer):
        trainer._sample = trainer.one_sample(self.Pair(torch.ones(2, 3), torch.ones(2)))
        assert isinstance(trainer._sample, self.Pair)
        assert trainer.state_dict()["sample"] is None

    def test_there_must_be_a_tensor(self, trainer):
        with pytest.raises(UserCodeError, match="no sample can be taken out of a batch that is a str"):
            trainer.one_sample("x")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["params=[1,2]"], 5, "no architecture has 1 to 2 parameters, they have"),
        (["flops=[1,2]"], 5, "no architecture has 1 to 2 FLOPs, they have"),
        (["params=[0]"], 2, "spos: params must be [lowest, highest]"),
        (['params=[0,"1"]'], 2, "the mutator 'spos' cannot take params="),
        (["flops=[0,1e9]", "bins=1"], 0, ""),
    ],
    ids=str,
)
def test_search_says_what_cannot_be(nnas: Cli, small_model, arguments, code, message):
    options = [part for argument in arguments for part in ("--mutator-arg", argument)]
    result = nnas("search", "model.py", "--mutator", "spos", "--epochs", 1, *options, "-o", "run", "-q")
    assert result.code == code
    assert result.err.startswith(f"nnas: error: {message}" if message else "")


def test_another_loop_does_not_measure_and_says_so(nnas: Cli, small_model):
    result = nnas("search", "model.py", "--mutator", "spos", "--mutator-arg", "flops=[0,9e9]", "--trainer", "random")
    assert result.code == 2
    assert "let SposTrainer do it (--trainer spos)" in result.err
