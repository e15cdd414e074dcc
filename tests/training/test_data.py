"""Data: split, order and batches are functions of the seed."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nnas_core.errors import UserCodeError
from nnas_core.training.data import batch_size_of, build_batches, held_out_batches, to_device
from nnas_core.training.settings import DataSettings
from tests.training.sample_trainings import Stream, numbers, task_of


def counted(count):
    """A dataset whose samples are their own numbers."""
    return TensorDataset(torch.arange(count), torch.zeros(count))


def samples(batches, epoch=0, skip=0):
    return [x.tolist() for x, _ in batches.epoch(epoch, skip)]


def flat(batches, epoch=0):
    return [number for batch in samples(batches, epoch) for number in batch]


def task(count=50, **functions):
    return task_of(train_dataset=lambda: counted(count), **functions)


class TestSplit:
    def test_the_parts_are_disjoint_and_complete(self):
        train, valid = build_batches(task(), DataSettings(valid_fraction=0.2))
        assert (len(flat(train)), len(flat(valid))) == (40, 10)
        assert sorted(flat(train) + flat(valid)) == list(range(50))

    @pytest.mark.parametrize(("fraction", "held_out"), [(0.1, 5), (0.5, 25), (0.001, 1), (0.29, 14)])
    def test_the_fraction_decides_how_much_is_held_out(self, fraction, held_out):
        assert len(flat(build_batches(task(), DataSettings(valid_fraction=fraction))[1])) == held_out

    def test_it_depends_on_the_seed_only(self):
        first, again, other = (build_batches(task(), DataSettings(seed=seed))[1] for seed in (1, 1, 2))
        assert flat(first) == flat(again) != flat(other)

    def test_it_is_not_the_beginning_of_the_data(self):
        assert sorted(flat(build_batches(task(), DataSettings())[1])) != list(range(10))

    def test_own_validation_data_is_taken_whole_and_in_order(self):
        own = task(valid_dataset=lambda: counted(7))
        train, valid = build_batches(own, DataSettings(batch_size=4))
        assert (len(flat(train)), samples(valid)) == (50, [[0, 1, 2, 3], [4, 5, 6]])


class TestOrder:
    def test_each_epoch_has_an_order_of_its_own_with_every_sample_once(self):
        train, _ = build_batches(task(), DataSettings(batch_size=7))
        first, second = flat(train, 0), flat(train, 1)
        assert (sorted(first) == sorted(second), first != second, first == flat(train, 0)) == (True, True, True)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("skip", [0, 1, 4, 6])
    def test_the_rest_of_an_epoch_is_what_the_whole_would_have_given(self, workers, skip):
        train, _ = build_batches(task(), DataSettings(batch_size=7, workers=workers))
        assert samples(train, 3, skip) == samples(train, 3)[skip:]

    def test_the_number_of_workers_does_not_change_the_order(self):
        orders = [flat(build_batches(task(), DataSettings(workers=workers))[0]) for workers in (0, 2)]
        assert orders[0] == orders[1]

    def test_global_random_states_neither_decide_it_nor_are_drawn_from(self):
        train, _ = build_batches(task(), DataSettings())
        expected = flat(train)
        torch.rand(3)
        before = torch.get_rng_state()
        assert flat(train) == expected
        assert torch.equal(torch.get_rng_state(), before)

    def test_validation_data_is_not_shuffled(self):
        _, valid = build_batches(task(), DataSettings())
        assert flat(valid, 0) == flat(valid, 1)


class TestBatches:
    @pytest.mark.parametrize(("drop_last", "sizes"), [(False, [15, 15, 10]), (True, [15, 15])])
    def test_drop_last_leaves_out_what_is_not_full(self, drop_last, sizes):
        train, _ = build_batches(task(), DataSettings(batch_size=15, drop_last=drop_last))
        assert ([len(batch) for batch in samples(train)], len(train)) == (sizes, len(sizes))

    def test_drop_last_keeps_all_validation_data(self):
        _, valid = build_batches(task(), DataSettings(batch_size=4, drop_last=True))
        assert [len(batch) for batch in samples(valid)] == [4, 4, 2]

    def test_own_loaders_are_taken_as_they_are(self):
        seen = []

        def build_dataloaders(batch_size, workers):
            seen.append((batch_size, workers))
            return {"train": DataLoader(counted(6), 3), "valid": DataLoader(counted(2), 1)}

        train, valid = build_batches(
            task_of(build_dataloaders=build_dataloaders), DataSettings(batch_size=5, workers=1)
        )
        assert (samples(train), samples(valid), seen, len(train)) == ([[0, 1, 2], [3, 4, 5]], [[0], [1]], [(5, 1)], 2)

    def test_an_iterable_dataset_is_batched(self):
        own = task_of(train_dataset=Stream, valid_dataset=Stream)
        train, _ = build_batches(own, DataSettings(batch_size=4))
        assert ([len(x) for x, _ in train.epoch(0)], len(train)) == ([4, 4, 2], 0)

    def test_the_rest_of_an_iterable_dataset(self):
        train, _ = build_batches(task_of(train_dataset=Stream, valid_dataset=Stream), DataSettings(batch_size=4))
        assert [len(x) for x, _ in train.epoch(0, 1)] == [4, 2]


class TestTestData:
    def test_own_test_data_is_named_test(self):
        batches, which = held_out_batches(task(test_dataset=lambda: counted(3)), DataSettings())
        assert (flat(batches), which) == ([0, 1, 2], "test")

    def test_without_it_the_validation_data_is_taken_and_named(self):
        batches, which = held_out_batches(task(), DataSettings())
        assert (flat(batches), which) == (flat(build_batches(task(), DataSettings())[1]), "validation")


class TestErrors:
    @pytest.mark.parametrize(
        ("functions", "settings", "message"),
        [
            ({}, {}, r"task.py: it defines no train_dataset\(\)"),
            ({"train_dataset": lambda: counted(0)}, {}, r"train_dataset\(\) returned an empty dataset"),
            ({"train_dataset": lambda: None}, {}, r"train_dataset\(\) returned None, it must return one dataset"),
            (
                {"train_dataset": lambda: counted(3), "valid_dataset": lambda: counted(0)},
                {},
                r"valid_dataset\(\) returned an empty dataset",
            ),
            ({"train_dataset": Stream}, {}, "an iterable training set cannot be split"),
            ({"train_dataset": lambda: counted(1)}, {}, "1 training samples cannot be split with `valid_fraction` 0.2"),
            (
                {"train_dataset": lambda: counted(9), "valid_dataset": lambda: counted(9)},
                {"batch_size": 10, "drop_last": True},
                "the 9 training samples make no full batch of 10",
            ),
            (
                {"build_dataloaders": lambda batch_size, workers: [1, 2]},
                {},
                r"build_dataloaders\(\) returned a list of 2, it must return a dictionary with 'train' and 'valid'",
            ),
            (
                {"build_dataloaders": lambda batch_size, workers: {"train": []}},
                {},
                r"build_dataloaders\(\) returned a dict with 'train', it must return a dictionary with 'train' and",
            ),
        ],
    )
    def test_what_is_wrong_with_the_data_is_said(self, functions, settings, message):
        with pytest.raises(UserCodeError, match=message):
            build_batches(task_of(**functions), DataSettings(**settings))


class TestNested:
    def test_tensors_in_nested_containers_are_moved(self):
        Pair = namedtuple("Pair", "x y")
        batch = {"a": [torch.ones(1), (torch.ones(2), "text")], "b": Pair(torch.ones(3), 5)}
        moved = to_device(batch, torch.device("meta"))
        places = [moved["a"][0].device.type, moved["a"][1][0].device.type, moved["b"].x.device.type]
        assert (places, moved["a"][1][1], moved["b"].y, type(moved["b"])) == (["meta"] * 3, "text", 5, Pair)

    def test_collections_of_any_class_stay_what_they_are(self):
        class Items(list):
            def __init__(self, one, other, name):
                super().__init__([one, other])
                self.name = name

        class Sized(tuple):
            def __new__(cls, one, other):
                return super().__new__(cls, (one, other))

        for batch in (Items(torch.ones(1), 2, "a"), Sized(torch.ones(1), 2)):
            moved = to_device(batch, torch.device("meta"))
            assert (type(moved), moved[0].device.type, moved[1]) == (type(batch), "meta", 2)
            assert (batch[0].device.type, vars(moved)) == ("cpu", vars(batch))

    @pytest.mark.parametrize(
        ("target", "size"), [(torch.zeros(5, 2), 5), (torch.tensor(1.0), 1), ([1, 2, 3], 3), (7, 1)]
    )
    def test_the_size_of_a_batch_is_that_of_its_target(self, target, size):
        assert batch_size_of(target) == size


def test_the_points_of_these_tests_are_the_same_whenever_they_are_made():
    assert torch.equal(numbers().tensors[0], numbers().tensors[0])
