"""Supernets in files, and the sources of their networks."""

from __future__ import annotations

import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn

from nnas_core.delivery.comparison import Sample, run
from nnas_core.delivery.source.constructions import Constructions
from nnas_core.delivery.source.network import written
from nnas_core.mutables.base import Mutable
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.settling import settle
from nnas_core.plugins import loading
from nnas_core.training.model import build_model

__all__ = ["HEAD", "source_of"]

HEAD = """
import torch
import torch.nn as nn
import torch.nn.functional as F

from nnas_core import InputChoice, LayerChoice, MutableScope

"""


def source_of(
    folder: Path,
    text: str,
    architecture: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    title: str = "A network.",
) -> str:
    """The source of a network of ``model.py:Net``; it was run without nnas, and gave the outputs of the supernet."""
    file = folder / "model.py"
    file.write_text(HEAD + text)
    loading._loaded.clear()
    constructions = Constructions()
    with constructions.recorded():
        model, user = build_model(f"{file}:Net")
    decided = frozenset(id(one) for one in model.modules() if any(isinstance(part, Mutable) for part in one.modules()))
    mutator = Mutator(model)
    mutator.apply_architecture(mutator.space.parse(architecture))
    batches = [torch.randn(size, 4) for size in (2, 3, 1)]
    samples = [Sample((x,), {}, run(model, (x,), {})) for x in batches]
    mutator.unbind()
    network = settle(model, architecture)
    source = written(network, samples, user.modules, decided, constructions, title).decode()
    (folder / "net.py").write_text(source)
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "nnas_core"]:
            patch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
        module = types.ModuleType("net")
        patch.setitem(sys.modules, "net", module)
        SourceFileLoader("net", str(folder / "net.py")).exec_module(module)
        alone: nn.Module = vars(module)["build"]()
        alone.load_state_dict(network.state_dict())
        with torch.no_grad():
            outputs = [alone.eval()(x) for x in batches]
    assert all(torch.equal(found, sample.output) for found, sample in zip(outputs, samples, strict=True))
    return source
