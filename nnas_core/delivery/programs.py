"""A network as a program of ``torch.export`` for batches of any size, which runs without its classes."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.delivery.comparison import SIZES, Sample, require_equal
from nnas_core.errors import NnasError, NoResultError, UserCodeError
from nnas_core.mutables.nested import copied

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["exported", "quiet", "require_whole", "written"]


_DECIDES = "let forward() decide nothing by the values of tensors, nor by the size of the batch"
_OTHER_CLASS = "let forward() take and return tensors in lists, tuples and dictionaries, in no class of your own"


def exported(network: nn.Module, samples: list[Sample]) -> ExportedProgram:
    """Trace a network, for batches of any size.

    Args:
        network: in evaluation mode after this.
        samples: batches of ``SIZES``; a dimension in which they differ may have any size.

    Raises:
        UserCodeError: it cannot be traced; the module is named.
        NoResultError: its outputs are not those of the network, to the bit.
    """
    first = samples[0]
    network.eval()
    with quiet(), _naming_modules(network) as failing:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the graph of what it cannot trace
                program = torch.export.export(
                    network, copied(first.args), copied(dict(first.kwargs)), dynamic_shapes=_shapes(network, samples)
                )
        except NnasError:
            raise
        except Exception as error:
            raise UserCodeError(
                f"torch.export cannot trace it: {_reason(error)}",
                where=failing[-1] if failing else "the model",
                hint=_OTHER_CLASS if "pytree" in str(error) else _DECIDES,
            ) from error
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        _require_same(program, samples)
    return program


def written(program: ExportedProgram) -> bytes:
    """The program as the content of a ``.pt2`` file, which gives it back when it is read.

    Raises:
        NoResultError: a file cannot hold it.
    """
    stream = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, stream)
    except Exception as error:
        raise NoResultError(f"torch.export cannot save the program: {_reason(error)}") from error
    return stream.getvalue()


def require_whole(content: bytes, samples: list[Sample]) -> None:
    """Read a ``.pt2`` file back, and compare what it computes with the supernet, to the bit.

    Raises:
        NoResultError: it differs.
    """
    with quiet():
        try:
            program = torch.export.load(io.BytesIO(content))
        except Exception as error:
            raise NoResultError(f"torch.export does not load what it saved: {_reason(error)}") from error
        _require_same(program, samples)


def _require_same(program: ExportedProgram, samples: list[Sample]) -> None:
    for size, sample in zip(SIZES, samples, strict=True):
        try:
            require_equal(_Evaluated(program.module()), [sample], "the program of torch.export")
        except NnasError:
            raise
        except Exception as error:
            raise NoResultError(
                f"the program of torch.export does not take a batch of {size}: {_reason(error)}",
                hint="let forward() take the size of the batch from its input",
            ) from error


class _Evaluated(nn.Module):
    """A program, which is always in evaluation mode, and says so where it is asked to be."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self._run = program.forward

    def forward(self, *args: object, **kwargs: object) -> object:
        return self._run(*args, **kwargs)


def _shapes(network: nn.Module, samples: list[Sample]) -> dict[str, Any]:
    """What ``torch.export`` is told of each argument: which dimension of which tensor is the batch."""
    batch = torch.export.Dim("batch", min=1)
    signature = inspect.signature(network.forward)
    bound = [signature.bind(*sample.args, **dict(sample.kwargs)).arguments for sample in samples]
    return {name: _dynamic([one[name] for one in bound], batch) for name in bound[0]}


def _dynamic(values: list[Any], batch: Any) -> Any:
    """The same of one argument, by its values in all samples."""
    first = values[0]
    if isinstance(first, Tensor):
        sizes = enumerate(zip(*(one.shape for one in values), strict=False))
        varying = {position: found for position, found in sizes if len(set(found)) > 1}
        return {at: batch if found == SIZES else torch.export.Dim.DYNAMIC for at, found in varying.items()}
    if isinstance(first, dict):
        return {name: _dynamic([one[name] for one in values], batch) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_dynamic(list(entries), batch) for entries in zip(*values, strict=False))
    return None


@contextlib.contextmanager
def _naming_modules(network: nn.Module) -> Iterator[list[str]]:
    """Yields the path of each module whose forward pass has begun and not ended: after an error, the last failed."""
    names = {module: path or "the model" for path, module in network.named_modules()}
    running: list[str] = []

    def enter(module: nn.Module, args: object) -> None:
        running.append(names[module])

    def leave(module: nn.Module, args: object, output: object) -> None:
        running.pop()

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Torch's compiler logs what users of nnas cannot do anything about; what matters is in the errors."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore")
            yield
    finally:
        logging.disable(disabled)
