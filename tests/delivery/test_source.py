"""The source of a network: readable, complete, without nnas, and equal to the supernet to the bit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.delivery.networks import source_of

BLOCKS = '''
from functools import partial

SCALE = 0.5  # of the branch


def scaled(x):
    return x * SCALE


class Norm(nn.Module):
    """Keeps its constructor: nothing in it was decided."""

    def __init__(self, width, layer=nn.LayerNorm, eps=1e-5):
        super().__init__()
        self.layer = layer(width, eps=eps)
        self.note = object()  # which nobody needs

    def forward(self, x):
        return self.layer(x)


class Cell(nn.Module):
    def __init__(self, width, number):
        super().__init__()
        self.number = number
        self.unused = object()
        self.norm = Norm(width, eps=1e-3)
        self.op = LayerChoice([nn.Linear(width, width, bias=False), nn.Identity()], key=f"op{number}")
        self.activation = F.relu
        self._build()

    def _build(self):
        self.extra = LayerChoice([nn.Tanh(), nn.ReLU()], key=f"extra{self.number}")

    def forward(self, x):
        """Text that stays."""
        y = self.op(self.norm(x))  # a comment that stays
        return x + self._finish(y) * self.number

    def _finish(self, y: torch.Tensor) -> torch.Tensor:
        return scaled(self.activation(self.extra(y)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.cells = nn.ModuleList(Cell(8, number) for number in range(3))
        self.link = InputChoice(n_candidates=3, key="link")
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        outputs = [x := self.stem(x)]
        for cell in self.cells:
            outputs.append(x := cell(x))
        return self.head(self.link(outputs[1:]))
'''
DECIDED = {"op0": 0, "op1": 1, "op2": 0, "extra0": 0, "extra1": 0, "extra2": 0, "link": [True, False, True]}


def test_a_network_of_cells_is_written_as_its_author_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path, BLOCKS, DECIDED, monkeypatch)
    assert "nnas" not in source
    assert "Norm(8, eps=0.001)" in source
    assert "nn.Linear(8, 8, bias=False)" in source
    assert "        y = self.op(self.norm(x))  # a comment that stays\n" in source
    assert "SCALE = 0.5  # of the branch\n" in source
    assert "    self.activation = relu\n" in source
    for gone in ("_build", "LayerChoice", "self.unused", "partial", "MutableScope"):
        assert gone not in source
    assert source.count("def _finish") == 1  # two structures of a cell share it
    assert "class Cell2(Cell):" in source
    assert "        return inputs[0] + inputs[2]\n" in source
    assert source.count("import torch.nn as nn\n") == 1


WAYS = {
    "weighted candidates": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.Linear(4, 4), nn.Tanh(), nn.Identity()], key="op", reduction="mean")

    def forward(self, x):
        return self.op(x)
""",
        {"op": [0.25, 0.5, 0.0]},
        "self.op = Chosen()",
    ),
    "inputs by name": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = LayerChoice([nn.Linear(4, 4), nn.Tanh()], key="a")
        self.pick = InputChoice(choose_from=["", "a"], n_chosen=1, key="pick")

    def forward(self, x):
        return self.pick({"": x, self.a.key: self.a(x)})
""",
        {"a": 0, "pick": ["a"]},
        "return inputs['a']",
    ),
    "a scope that goes on as a module": (
        """
class Scope(MutableScope):
    def __init__(self, key):
        super().__init__(key)
        self.op = LayerChoice([nn.Linear(4, 4), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scope = Scope("s")

    def forward(self, x):
        return self.scope(x)
""",
        {"op": 0},
        "class Scope(nn.Module):",
    ),
    "weights and modules that are shared": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.two = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
        self.two[1].weight = self.one.weight
        self.again = self.one
        self.op = LayerChoice([nn.Tanh(), nn.ReLU()], key="op")

    def forward(self, x):
        return self.op(self.again(self.two(self.one(x))))
""",
        {"op": 0},
        "network.two[1].weight = network.one.weight\n",
    ),
    "weights and buffers of its own": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.register_buffer("shift", torch.randn(4))
        self.register_buffer("table", torch.tensor([1.0, 0.1, 1e-7, 3.0]), persistent=False)
        self.op = LayerChoice([nn.Tanh(), nn.ReLU()], key="op")

    def forward(self, x):
        return self.op(x * self.scale + self.shift) * self.table
""",
        {"op": 0},
        "self.register_buffer('table', torch.tensor([1.0, 0.10000000149011612, 1.0000000116860974e-07, 3.0]",
    ),
    "layers that are copies, or compute with attributes of their own": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.op = LayerChoice([nn.Tanh(), nn.ReLU()], key="op")

    def forward(self, x):
        return self.op(self.encoder(x.unsqueeze(1)))
""",
        {"op": 0},
        "class TransformerEncoderLayer(nn.TransformerEncoderLayer):",
    ),
    "a layer that holds its weights twice, and a block with a function of its own": (
        """
class Block(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.last = lambda x: factor * x[:, -1]

    def forward(self, x):
        return self.last(self.rnn(x.unsqueeze(1))[0])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([Block(2.0), nn.Identity()], key="op")

    def forward(self, x):
        return self.op(x)
""",
        {"op": 0},
        "self.op = Block(2.0)",
    ),
    "a configuration that is plain data, and weights by constants": (
        """
from dataclasses import dataclass


@dataclass
class Config:
    width: int = 4
    names: tuple = ("a", "b")


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict({name: nn.Linear(config.width, config.width) for name in config.names})

    def forward(self, x):
        for name in self.config.names:
            x = self.layers[name](x)
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([Block(Config(names=("b", "c"))), nn.Identity()], key="op")

    def forward(self, x):
        return self.op(x)
""",
        {"op": 0},
        "self.op = Block(Config(width=4, names=('b', 'c')))",
    ),
    "an array, and a number of numpy": (
        """
import numpy as np


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = np.arange(4, dtype="float32")
        self.scale = np.float32(2)
        self.op = LayerChoice([nn.Tanh(), nn.ReLU()], key="op")

    def forward(self, x):
        return self.op(x) * torch.from_numpy(self.table) * self.scale
""",
        {"op": 0},
        "self.table = np.array([0.0, 1.0, 2.0, 3.0], dtype='float32')",
    ),
    "names that Python has itself, and names of no kind": (
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module("class", nn.Linear(4, 4))
        self.layers = nn.ModuleDict({"1": nn.Linear(4, 4), "a b": nn.Linear(4, 4), "in": nn.Linear(4, 4)})
        self.layers["1"].weight = self.layers["a b"].weight = self.layers["in"].weight
        self.add_module("lambda", self.layers["1"])
        self.op = LayerChoice([nn.Tanh(), nn.ReLU()], key="op")

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x)
        return self.op(getattr(self, "class")(getattr(self, "lambda")(x)))
""",
        {"op": 0},
        "network.layers['a b'].weight = network.layers['1'].weight",
    ),
    "names that are taken": (
        """
class Chosen(nn.Module):
    def forward(self, x):
        return x + 1


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([Chosen(), nn.ReLU()], key="op")

    def forward(self, x):
        return self.op(x)
""",
        {"op": [True, True]},
        "class Chosen_2(nn.Module):",
    ),
    "attributes by computed names, and a base class": (
        """
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = 3.0

    def finish(self, x):
        return x * self.width


class Net(Base):
    def __init__(self):
        super().__init__()
        for number in range(2):
            setattr(self, f"op{number}", LayerChoice([nn.Linear(4, 4), nn.ReLU()], key=f"op{number}"))

    def forward(self, x):
        for number in range(2):
            x = getattr(self, f"op{number}")(x)
        return self.finish(x)
""",
        {"op0": 0, "op1": 1},
        "self.width = 3.0",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_write_a_model(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, architecture, expected = WAYS[way]
    source = source_of(tmp_path, text, architecture, monkeypatch)
    assert expected in source
    assert "nnas" not in source


def test_what_stands_in_files_beside_is_copied_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ops.py").write_text(
        "import math\n\nimport torch.nn as nn\n\n\ndef scaled(x):\n    return x / math.sqrt(2)\n\n\n"
        "class Block(nn.Module):\n    def __init__(self, width, *, act=nn.ReLU):\n        super().__init__()\n"
        "        self.inner = nn.Linear(width, width)\n        self.act = act()\n\n"
        "    def forward(self, x):\n        return self.act(self.inner(x))\n"
    )
    text = """
import ops
from ops import Block


def scaled(x):
    return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([Block(4, act=nn.Tanh), ops.Block(4)], key="op")

    def forward(self, x):
        return scaled(ops.scaled(self.op(x)))
"""
    source = source_of(tmp_path, text, {"op": 0}, monkeypatch)
    assert "Block(4, act=nn.Tanh)" in source
    assert "import math\n" in source
    assert "ops" not in source


def test_a_title_of_any_text_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x)
"""
    title = 'A """\nraise SystemExit\n"""\\N.'
    source = source_of(tmp_path, text, {"op": 0}, monkeypatch, title=title)
    assert ast.get_docstring(ast.parse(source), clean=False).splitlines()[0] == title.replace("\n", " ")
