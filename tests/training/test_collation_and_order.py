"""How samples become batches: the task's own ways, what is said of samples that make none, and the order."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import Dataset, RandomSampler, WeightedRandomSampler

from nnas_core.errors import UserCodeError
from nnas_core.training.data import batch_size_of, build_batches, to_device, to_float64
from nnas_core.training.evaluation import measure
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import numbers, task_of

META, CPU = torch.device("meta"), torch.device("cpu")


def no_batch(samples):
    """A function whose author forgot to return."""


class Given(Dataset[object]):
    """Samples as they are given."""

    def __init__(self, *samples: object) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> object:
        return self.samples[index]


def first_batch(samples, workers=0, **functions):
    task = task_of(train_dataset=lambda: Given(*samples), valid_dataset=lambda: Given(*samples), **functions)
    return next(build_batches(task, DataSettings(batch_size=8, workers=workers))[1].epoch(0))


class TestSamplesThatMakeNoBatch:
    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ([(torch.zeros(2, 4), 0), (torch.zeros(3, 4), 1)], r"they have the sizes \[2, 4\] and \[3, 4\] at \[0\]"),
            ([torch.zeros(size) for size in (1, 2, 3, 4)], r"they have the sizes \[1\], \[2\], \[3\], \.\.\."),
            ([{"x": torch.zeros(1)}, {"x": torch.zeros(2)}], r"they have the sizes \[1\] and \[2\] at \['x'\]"),
            ([{"x": 1}, {"y": 1}], "not all of them have 'x'"),
            ([([1, 2], 0), ([1], 0)], r"they have the lengths 1 and 2 at \[0\]"),
            ([(None, 0), (None, 0)], r"they have None at \[0\], which cannot be stacked"),
            ([(object(), 0), (object(), 1)], r"they have an object at \[0\], which cannot be stacked"),
        ],
    )
    def test_it_is_said_where_they_differ(self, samples, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: samples make no batch: {message}") as caught:
            first_batch(samples)
        assert "define collate(samples)" in (caught.value.hint or "")
        assert "build_dataloaders(batch_size, workers)" in (caught.value.hint or "")

    def test_it_is_said_so_by_loader_processes_too(self):
        with pytest.raises(UserCodeError, match=r"task\.py: samples make no batch: they have the sizes") as caught:
            first_batch([torch.zeros(1), torch.zeros(2)], workers=1)
        assert "define collate(samples)" in (caught.value.hint or "")

    def test_a_loader_of_ones_own_is_named(self):
        def build_dataloaders(batch_size, workers):
            loader = torch.utils.data.DataLoader(Given(torch.zeros(1), torch.zeros(2)), 2)
            return {"train": loader, "valid": loader}

        train, _ = build_batches(task_of(build_dataloaders=build_dataloaders), DataSettings())
        message = r"task\.py: a loader of build_dataloaders\(\) failed: RuntimeError: stack expects"
        with pytest.raises(UserCodeError, match=message) as caught:
            next(train.epoch(0))
        assert "collate_fn" in (caught.value.hint or "")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_own_collation_must_make_something(self, workers):
        with pytest.raises(UserCodeError, match=r"task\.py: collate\(\) returned None, it must return a batch"):
            first_batch([torch.zeros(1)], workers=workers, collate=no_batch)

    def test_own_collation_makes_what_it_likes(self):
        samples = [torch.zeros(1), torch.zeros(2)]
        assert len(first_batch(samples, collate=lambda samples: {"parts": samples})["parts"]) == 2


class TestOwnSampler:
    def order(self, epoch, skip=0, seed=0, sampler=None, **settings):
        make = sampler or (lambda dataset: RandomSampler(dataset, replacement=True, num_samples=12))
        task = task_of(
            train_dataset=lambda: Given(*range(6)), valid_dataset=lambda: Given(*range(6)), train_sampler=make
        )
        train, _ = build_batches(task, DataSettings(batch_size=5, seed=seed, **settings))
        return [batch.tolist() for batch in train.epoch(epoch, skip)], len(train)

    def test_it_decides_which_samples_come(self):
        batches, count = self.order(0)
        assert ([len(one) for one in batches], count) == ([5, 5, 2], 3)
        weights = lambda dataset: WeightedRandomSampler([0, 0, 0, 0, 1, 0], 7)  # noqa: E731
        assert self.order(0, sampler=weights)[0] == [[4] * 5, [4] * 2]

    @pytest.mark.parametrize("own", [False, True], ids=["global states", "own generator"])
    def test_the_order_follows_from_seed_and_epoch(self, own):
        def sampler(dataset):
            return RandomSampler(dataset, True, 12, generator=torch.Generator() if own else None)

        whole, _ = self.order(3, sampler=sampler)
        state = torch.get_rng_state()
        assert self.order(3, skip=1, sampler=sampler)[0] == whole[1:]
        assert self.order(4, sampler=sampler)[0] != whole != self.order(3, seed=1, sampler=sampler)[0]
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_hears_of_the_epoch(self):
        class Shifted(list):
            def set_epoch(self, epoch):
                self[:] = [epoch]

        assert self.order(2, sampler=lambda dataset: Shifted([0]))[0] == [[2]]

    @pytest.mark.parametrize(
        ("sampler", "message"),
        [
            (lambda dataset: None, r"train_sampler\(\) returned None, it must return a torch.utils.data.Sampler"),
            (lambda dataset: iter([1]), r"train_sampler\(\) returned a list_iterator"),
            (lambda dataset: [9], r"the sampler of train_sampler\(\) chose 9, it must choose samples from 0 to 5"),
            (lambda dataset: [[1, 2]], r"chose \[1, 2\], it must choose samples from 0 to 5, one after the other"),
        ],
    )
    def test_what_is_none_is_refused(self, sampler, message):
        with pytest.raises(UserCodeError, match=rf"task\.py: .*{message}"):
            self.order(0, sampler=sampler)


Pair = namedtuple("Pair", "x y")


class Mine(UserDict):
    """A mapping that is no dict."""


class Graph:
    """What moves itself."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graph:
        """Elsewhere."""
        return Graph(self.x.to(device))


class TestKinds:
    @pytest.mark.parametrize(
        "batch",
        [
            OrderedDict(x=torch.ones(2)),
            defaultdict(list, x=torch.ones(2)),
            Mine(x=torch.ones(2)),
            Pair(torch.ones(2), 1),
            [torch.ones(2)],
        ],
    )
    def test_collections_keep_their_class(self, batch):
        moved, doubled = to_device(batch, META), to_float64(batch)
        assert (type(moved), type(doubled)) == (type(batch), type(batch))
        values = [one.values() if hasattr(one, "values") else one for one in (moved, doubled)]
        assert (next(iter(values[0])).device.type, next(iter(values[1])).dtype) == ("meta", torch.float64)

    def test_what_moves_itself_does(self):
        moved = to_device({"graph": Graph(torch.ones(2)), "rest": [torch.ones(1)]}, META)
        assert (type(moved["graph"]), moved["graph"].x.device.type, moved["rest"][0].device.type) == (
            Graph,
            "meta",
            "meta",
        )

    def test_a_packed_sequence_stays_one(self):
        packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
        assert isinstance(to_device(packed, CPU), PackedSequence)
        doubled = to_float64(packed)
        assert (type(doubled), doubled.data.dtype, doubled.batch_sizes.tolist()) == (
            PackedSequence,
            torch.float64,
            [2, 1, 1],
        )

    @pytest.mark.parametrize(
        ("target", "size"),
        [
            ({"a": torch.zeros(5), "b": torch.zeros(5, 2), "c": torch.zeros(5)}, 5),
            ({"name": "x", "a": {"b": torch.zeros(4, 1)}}, 4),
            ({}, 1),
            (Pair(torch.zeros(6), torch.zeros(6)), 6),
            ([torch.zeros(7), torch.zeros(7, 2)], 7),
            ([{"boxes": torch.zeros(3, 4)}, {"boxes": torch.zeros(1, 4)}], 2),
            ([torch.zeros(3, 4), torch.zeros(1, 4)], 2),
            (["a", "b", "c"], 3),
            ("text", 1),
            (None, 1),
            (pack_sequence([torch.ones(3), torch.ones(1)]), 2),
        ],
    )
    def test_the_size_of_a_batch_is_how_many_samples_it_has(self, target, size):
        assert batch_size_of(target) == size


def test_dictionaries_of_targets_weigh_by_their_samples():
    # 40 samples in batches of 16, 16 and 8: means over samples, and not over batches or keys
    task = task_of(
        forward_batch=lambda model, batch: (batch[0], {"y": batch[1], "z": batch[1], "w": batch[1]}),
        loss=lambda output, target: output[:, 0].mean(),
        metrics=lambda output, target: {"mean": output[:, 0].mean()},
    )
    x, y = numbers().tensors
    batches = iter([(x[at : at + 16], y[at : at + 16]) for at in (0, 16, 32)])
    found = measure(torch.nn.Identity(), task, batches, CPU)
    assert found["mean"] == pytest.approx(x[:, 0].mean().item())
