"""The weights of a network as a file: a ``state_dict``, of safetensors or of torch."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.delivery.comparison import Sample, require_equal
from nnas_core.errors import UsageError, UserCodeError

__all__ = ["check_name", "require_packages", "written"]


def require_packages(extra: str, packages: tuple[str, ...]) -> None:
    """Refuse to go on without the packages of an extra; none is imported.

    Raises:
        UsageError: naming what is missing, and the extra.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(f"{', '.join(missing)} {verb} not installed", hint=f"pip install 'nnas[{extra}]'")


def check_name(path: str) -> None:
    """Refuse a name that says no format of weights, or one whose package is missing.

    Raises:
        UsageError: another ending than ``.safetensors``, ``.pt`` and ``.pth``.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"{path!r} says no format of weights", hint="let its name end in .safetensors, .pt or .pth")
    if suffix == ".safetensors":
        require_packages("safetensors", ("safetensors",))


def written(network: nn.Module, samples: list[Sample], path: str) -> bytes:
    """The weights as the content of a file, proven: loaded into the network they give the outputs of the supernet.

    Args:
        network: whose weights; it has them again in the end, whatever happens.
        samples: to compare on.
        path: says the format by its ending.

    Raises:
        NoResultError: the outputs differ.
        UserCodeError: safetensors cannot hold something of the state.
    """
    state = dict(network.state_dict())
    is_safe = Path(path).suffix == ".safetensors"
    content = _safe(state) if is_safe else _of_torch(state)
    kept = {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in state.items()}
    try:
        with torch.no_grad():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
        network.load_state_dict(_read(content, is_safe))
        require_equal(network, samples, "the network with these weights")
    finally:
        network.load_state_dict(kept)
    return content


def _of_torch(state: Mapping[str, object]) -> bytes:
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def _safe(state: Mapping[str, object]) -> bytes:
    from safetensors.torch import save  # late: it is an extra

    other = [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_sparse]
    if other:
        raise UserCodeError(
            "is no dense tensor, and safetensors holds nothing else",
            where=other[0],
            hint="let the name of the file end in .pt",
        )
    # weights that several layers share stand in the file under each name
    tensors = {name: value.detach().contiguous().clone() for name, value in state.items() if isinstance(value, Tensor)}
    return save(tensors, {"format": "pt"})


def _read(content: bytes, is_safe: bool) -> dict[str, object]:
    """The state in the content of a file."""
    if is_safe:
        from safetensors.torch import load  # late: it is an extra

        return dict(load(content))
    return dict(torch.load(io.BytesIO(content), weights_only=True))
