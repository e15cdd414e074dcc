"""What a user's functions raise ends the command with their line and exit code 4, also what ends loops and programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_support import MODEL, Cli

SEARCH = ("search", "model.py", "--mutator", "random", "--epochs", 2, "--batch-size", 16)

DATA = """

class Marked(TensorDataset):
    def __getitem__(self, index):
        raises("__getitem__", index == 7)
        return super().__getitem__(index)

    def __len__(self):
        raises("__len__")
        return super().__len__()


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        raises("__iter__")
        return iter(data(60, 1))


class Sampler(torch.utils.data.Sampler):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        raises("sampler")
        return iter(range(48))

    def __len__(self):
        return 48


def train_dataset():
    raises("train_dataset")
    return Stream() if PLACE == "__iter__" else Marked(*data(60, 1).tensors)


def valid_dataset():
    return data(20, 3)


def train_sampler(dataset):
    return Sampler(dataset)


def collate(samples):
    raises("collate")
    return torch.utils.data.default_collate(samples)


def loss(output, target):
    raises("loss")
    return nn.functional.cross_entropy(output, target)


def metrics(output, target):
    raises("metrics")
    return {"accuracy": (output.argmax(1) == target).float().mean()}


def build_optimizer(parameters):
    raises("build_optimizer")
    return torch.optim.SGD(parameters, 0.1)


def build_scheduler(optimizer, total_steps):
    raises("build_scheduler")


def raises(place, here=True):
    if place == PLACE and here:
        raise ERROR


PLACE = "{place}"
ERROR = {error}
"""
PLACES = {
    "__getitem__": (0, 2),
    "__iter__": (0, 2),
    "collate": (0, 2),
    "__len__": (0,),
    "sampler": (0, 2),
    "train_dataset": (0,),
    "loss": (0,),
    "metrics": (0,),
    "forward": (0,),
    "build_optimizer": (0,),
    "build_scheduler": (0,),
}
ERRORS = ["StopIteration()", "GeneratorExit()", "SystemExit(3)", "KeyboardInterrupt()", "OSError('lost')"]


def model(place: str, error: str) -> str:
    """A model whose function raises."""
    text = MODEL[: MODEL.index("def train_dataset")] + DATA.replace("{place}", place).replace("{error}", error)
    if place == "__iter__":
        text = text[: text.index("def train_sampler")] + text[text.index("def collate") :]
    return text.replace("def forward(self, x):", 'def forward(self, x):\n        raises("forward")')


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("place", "workers"), [(place, one) for place, counts in PLACES.items() for one in counts])
def test_exit_code_4_and_the_line(nnas: Cli, tmp_path: Path, place: str, error: str, workers: int) -> None:
    (tmp_path / "model.py").write_text(model(place, error))
    result = nnas(*SEARCH, "--workers", workers)
    kind = error.partition("(")[0]
    assert (result.code, result.out) == (4, ""), result.err
    last = [line for line in result.err.splitlines() if line.startswith("nnas: error: ")]
    assert len(last) == 1
    assert kind in last[0]
    assert last[0].startswith(f"nnas: error: {tmp_path}/model.py:")
    assert "    raise ERROR\n" in result.err
