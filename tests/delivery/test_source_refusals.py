"""Networks whose source cannot be written: what stands in the way is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnas_core.errors import UserCodeError
from tests.delivery.networks import source_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x) if isinstance(self.op, LayerChoice) else x
""",
            "the model: it uses LayerChoice of nnas in code that the network needs",
        ),
        (
            """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")

    def forward(self, x):
        from nnas_core.mutables.nested import copied

        return copied(self.op(x))
""",
            "the model: it imports nnas_core.mutables.nested in code that the network needs",
        ),
        (
            """
import beside


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")

    def forward(self, x):
        if x is None:
            import beside
        return self.op(x)
""",
            "the model: it imports beside, which is no installed module, inside a function",
        ),
        (
            """
def made():
    class Inner(nn.Module):
        def forward(self, x):
            return x

    return Inner()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([made(), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x)
""",
            "op: made.<locals>.Inner is not defined at the top of ",
        ),
        (
            """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")
        self.rule = lambda x: -x

    def forward(self, x):
        return self.rule(self.op(x))
""",
            "the model.rule: Net.__init__.<locals>.<lambda> is not defined at the top of ",
        ),
        (
            """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = LayerChoice([nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x)
""",
            "op",
        ),
    ],
)
def test_what_cannot_be_written_is_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("def same(x):\n    return x\n")
    with pytest.raises(UserCodeError) as caught:
        source_of(tmp_path, text, {"op": 0}, monkeypatch)
    assert str(caught.value).startswith(message)


def test_what_nobody_foresaw_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
from dataclasses import dataclass


@dataclass
class Odd:
    width: int


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.odd = Odd(4)
        del self.odd.width
        self.op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")

    def forward(self, x):
        return self.op(x) if hasattr(self, "odd") else x
"""
    with pytest.raises(UserCodeError, match=r"^the model: it cannot be written as source: AttributeError: "):
        source_of(tmp_path, text, {"op": 0}, monkeypatch)
