"""Model files of a test: their beginning, a class, and a fixture that writes them."""

from __future__ import annotations

import pytest

HEAD = """
import torch
from torch import nn
from nnas_core import LayerChoice, InputChoice
"""

NET = """
class {name}(nn.Module):
    def __init__(self, width=2, layers=1):
        super().__init__()
        self.ops = nn.ModuleList(LayerChoice([nn.Linear(width, width), nn.Identity()]) for _ in range(layers))
"""


@pytest.fixture
def write(tmp_path):
    """Write a model file below the test's folder, and return its path."""

    def write(text, name="model.py", head=HEAD):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text)
        return str(path)

    return write
