"""Samples become a batch, by the task's ``collate`` or as torch does it; what cannot become one is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from nnas_core.errors import NnasError, UserCodeError
from nnas_core.training.returned import described

__all__ = ["NoBatch", "collation"]


@dataclass(frozen=True)
class NoBatch:
    """Takes the place of a batch that could not be made; an exception would lose its hint on the way from a worker.

    Attributes:
        message, hint: as in ``NnasError``.
    """

    message: str
    hint: str

    def error(self, where: str | None) -> UserCodeError:
        """The error to raise where the batch was asked for."""
        return UserCodeError(self.message, where=where, hint=self.hint)


def collation(own: Callable[[list[Any]], Any] | None) -> Callable[[list[Any]], Any]:
    """What a loader makes batches with: the task's own function, or torch's."""
    return _stacked if own is None else _Own(own)


@dataclass(frozen=True)
class _Own:
    """A task's function, which must return something."""

    function: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any:
        batch = self.function(samples)
        if batch is None:
            return NoBatch("collate() returned None, it must return a batch", "write `return` before it")
        return batch


def _stacked(samples: list[Any]) -> Any:
    try:
        return default_collate(samples)
    except NnasError:
        raise
    except (RuntimeError, TypeError, ValueError, KeyError, IndexError) as error:
        return NoBatch(
            _reason(samples) or f"the samples cannot be stacked to a batch: {str(error).splitlines()[0]}",
            "define collate(samples) beside the model, which pads them or keeps them in a list; or"
            " build_dataloaders(batch_size, workers) with loaders of your own",
        )


def _reason(samples: Sequence[Any]) -> str | None:
    """The message about the first place in which samples differ so that they cannot be stacked."""
    found = _difference(samples, "")
    return None if found is None else f"samples make no batch: {found}"


def _difference(samples: Sequence[Any], place: str) -> str | None:
    first = samples[0]
    at = f" at {place}" if place else ""
    if isinstance(first, Mapping):
        for name in first:
            if not all(isinstance(one, Mapping) and name in one for one in samples):
                return f"not all of them have {name!r}{at}"
            found = _difference([one[name] for one in samples], f"{place}[{name!r}]")
            if found is not None:
                return found
        return None
    if isinstance(first, (tuple, list)):
        lengths = sorted({len(one) if isinstance(one, (tuple, list)) else -1 for one in samples})
        if len(lengths) > 1:
            return f"they have the lengths {_listed(str(one) for one in lengths if one >= 0)}{at}"
        for number in range(len(first)):
            found = _difference([one[number] for one in samples], f"{place}[{number}]")
            if found is not None:
                return found
        return None
    shapes = [list(shape) for shape in dict.fromkeys(_shape(one) for one in samples) if shape is not None]
    if len(shapes) > 1:
        return f"they have the sizes {_listed(str(shape) for shape in shapes)}{at}"
    if first is None or (not isinstance(first, (Tensor, int, float, str, bytes)) and _shape(first) is None):
        return f"they have {described(first)}{at}, which cannot be stacked"
    return None


def _shape(value: object) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) else None


def _listed(entries: Iterable[str]) -> str:
    names = list(entries)
    return " and ".join(names) if len(names) < 3 else ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
