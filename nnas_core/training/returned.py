"""What the functions of a user's task return is checked here, where it comes in: what it is, and what it may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, IterableDataset

from nnas_core.errors import NnasError, UserCodeError
from nnas_core.plugins.loading import as_user_error
from nnas_core.training.loader_processes import loader_died

__all__ = [
    "checked_dataset",
    "checked_function",
    "checked_loaders",
    "checked_loss",
    "checked_numbers",
    "checked_optimizer",
    "checked_pair",
    "checked_sampler",
    "checked_scheduler",
    "described",
    "explaining",
    "unexplained",
]


def described(value: object) -> str:
    """A value in words: ``a tensor [8, 3]``, ``a dict with 'ce', 'reg'``, ``a tuple of 2``, ``None``."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        kind = "tensor" if value.is_floating_point() else f"tensor of {str(value.dtype).removeprefix('torch.')}"
        return f"a {kind} {list(value.shape)}" if value.dim() else f"a {kind} of one number"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    article = "an" if name[0] in "AEIOUaeiou" else "a"
    if isinstance(value, int) and abs(value) > 10**20:  # Python does not even write all of them
        return f"{article} {name} of more than 20 digits"
    if isinstance(value, (bool, int, float, str)):
        return f"{article} {name} ({str(value)[:40]!r})" if isinstance(value, str) else f"{article} {name} ({value})"
    if isinstance(value, Mapping):
        return (
            f"{article} {name} with {', '.join(repr(key) for key in list(value)[:8])}" if value else f"an empty {name}"
        )
    if isinstance(value, (tuple, list)):
        return f"{article} {name} of {len(value)}" if value else f"an empty {name}"
    return f"{article} {name}"


def unexplained(error: Exception, what: str, where: str) -> UserCodeError | None:
    """What to say of an error out of the user's hands that shows no line of theirs: their loss may be a class of torch.

    Args:
        error: as it was caught.
        what: failed: ``"loss()"``.
        where: the user's file, for errors.

    Returns:
        None for one that is to pass as it is: it is explained, shows their line, or is the machine's.
    """
    if isinstance(error, (NnasError, MemoryError, OSError, torch.OutOfMemoryError)):
        return None
    if loader_died(error) or as_user_error(error) is not None:
        return None
    message = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
    return UserCodeError(f"{what} failed: {reason}", where=where)


@contextmanager
def explaining(what: str, where: str, hint: str | None = None) -> Iterator[None]:
    """Inside, what fails in the user's hands without a line of theirs is explained; see ``unexplained``."""
    try:
        yield
    except Exception as error:
        failure = unexplained(error, what, where)
        if failure is None:
            raise
        failure.hint = hint
        raise failure from error


def _refused(name: str, gave: object, may: str, where: str, hint: str | None = None) -> UserCodeError:
    return UserCodeError(f"{name}() returned {described(gave)}, it must return {may}", where=where, hint=hint)


def checked_function(value: object, name: str, arguments: Sequence[str], where: str) -> Callable[..., object] | None:
    """A function of the user's module that can be called with ``arguments``.

    Args:
        value: what the module has under ``name``; None, and a Python module of that name, are no function.
        name: of the function.
        arguments: their names, in order.
        where: the user's file, for errors.

    Raises:
        UserCodeError: it cannot be called, or not so.
    """
    if value is None or isinstance(value, ModuleType):  # as after ``from sklearn import metrics``
        return None
    layer = value.__name__ if isinstance(value, type) and issubclass(value, nn.Module) else None
    if not callable(value) or layer is not None:  # a call of the class would make a layer
        hint = _definition(name, arguments) if layer is None else f"make an object of it: {layer}()"
        raise UserCodeError(f"{name} is {described(value)}, it must be a function", where=where, hint=hint)
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):  # what is written in C may have none
        return value
    try:
        signature.bind(*arguments)
    except TypeError as error:
        takes = ", ".join(str(one) for one in signature.parameters.values()) or "nothing"
        raise UserCodeError(
            f"{name}() takes {takes}; it is called as {name}({', '.join(arguments)})",
            where=where,
            hint=_definition(name, arguments),
        ) from error
    return value


def _definition(name: str, arguments: Sequence[str]) -> str:
    return f"define it as `def {name}({', '.join(arguments)})`"


def checked_loss(value: object, where: str) -> Tensor:
    """One number to differentiate, as ``loss(output, target)`` must give it.

    Raises:
        UserCodeError: it is something else.
    """
    if isinstance(value, Tensor) and value.is_floating_point():
        if value.dim() == 0:
            return value
        if value.numel() == 1:
            return value.reshape(())
    may = "one number to minimise, as a tensor without dimensions"
    hint = None
    if isinstance(value, (Mapping, tuple, list)):
        hint = "return the sum of its parts, each with its weight"
    elif isinstance(value, Tensor) and value.is_floating_point():
        hint = "return its mean: .mean(), or leave out reduction='none'"
    elif isinstance(value, (bool, int, float)):
        hint = "return the tensor itself, without .item() or float(): it is differentiated"
    elif value is None:
        hint = "return the loss at its end"
    raise _refused("loss", value, may, where, hint)


def checked_pair(value: object, where: str) -> tuple[object, object]:
    """Output and target, as ``forward_batch(model, batch)`` must give them.

    Raises:
        UserCodeError: it is something else.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        output, target = value
        return output, target
    raise _refused(
        "forward_batch",
        value,
        "two things, the output and the target",
        where,
        "write `return output, target`; both go to loss(output, target) and metrics(output, target) as they are",
    )


def checked_numbers(values: object, name: str, where: str) -> dict[str, float]:
    """Numbers by name, as metrics must be; NaN where there is no value.

    Args:
        values: what the function returned.
        name: of the function, for errors.
        where: the user's file, for errors.

    Raises:
        UserCodeError: it is no dictionary of numbers, or an empty one.
    """
    may = "a dictionary of numbers"
    hint = 'as in {"accuracy": 0.9}; the first is the metric'
    if not isinstance(values, Mapping) or not values:
        raise _refused(name, values, may, where, hint)
    numbers: dict[str, float] = {}
    for key, value in values.items():
        number = _number(value)
        if number is None:
            raise UserCodeError(
                f"{name}() returned {described(value)} as {key!r}, it must return {may}",
                where=where,
                hint="reduce it to one number: .mean()" if isinstance(value, Tensor) else hint,
            )
        numbers[str(key)] = number
    return numbers


def _number(value: object) -> float | None:
    if isinstance(value, (str, bytes)):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def checked_optimizer(value: object, given: Iterable[nn.Parameter], where: str) -> torch.optim.Optimizer:
    """An optimizer that steps without a closure, and trains something of what it was given.

    Raises:
        UserCodeError: it is something else.
    """
    may = "one torch.optim.Optimizer"
    if not isinstance(value, torch.optim.Optimizer):
        hint = "write `return` before it" if value is None else "as in `return torch.optim.Adam(parameters)`"
        if isinstance(value, (tuple, list)):
            hint = "give the parts as parameter groups of one optimizer"
        raise _refused("build_optimizer", value, may, where, hint)
    closure = inspect.signature(value.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserCodeError(
            f"build_optimizer() returned {described(value)}, whose step() needs a function that computes the loss"
            " again; it must return an optimizer that steps by the gradients alone",
            where=where,
            hint="use SGD, Adam or another first-order optimizer",
        )
    known = {id(one) for one in given}
    if not any(id(one) in known for group in value.param_groups for one in group["params"]):
        raise UserCodeError(
            f"build_optimizer() returned {described(value)} with none of the parameters that it was given",
            where=where,
            hint="build it of `parameters`",
        )
    return value


def checked_scheduler(value: object, where: str) -> LRScheduler | None:
    """A schedule that is stepped after every training step, or None.

    Raises:
        UserCodeError: it is something else, or needs a metric.
    """
    if isinstance(value, ReduceLROnPlateau):
        raise UserCodeError(
            "build_scheduler() returned a ReduceLROnPlateau, which needs a metric; schedules are stepped every"
            " training step",
            where=where,
            hint="return a schedule of steps, such as CosineAnnealingLR",
        )
    if value is None or isinstance(value, LRScheduler) or _is_like_a_scheduler(value):
        return value  # type: ignore[return-value]
    raise _refused(
        "build_scheduler",
        value,
        "one schedule of torch.optim.lr_scheduler, or None",
        where,
        "several make one with ChainedScheduler or SequentialLR" if isinstance(value, (tuple, list)) else None,
    )


def _is_like_a_scheduler(value: object) -> bool:
    if isinstance(value, type) or not all(
        callable(getattr(value, name, None)) for name in ("step", "state_dict", "load_state_dict")
    ):
        return False
    if isinstance(value, (torch.optim.Optimizer, nn.Module)):
        return False
    try:
        inspect.signature(value.step).bind()  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False
    return True


def checked_dataset(value: object, name: str, where: str) -> Dataset[object]:
    """One dataset with samples in it.

    Args:
        value: what the function returned.
        name: of the function, for errors.
        where: the user's file, for errors.

    Raises:
        UserCodeError: it is something else, or empty.
    """
    may = "one dataset"
    if isinstance(value, type):
        raise _refused(name, value, f"{may}, an object of such a class", where)
    if isinstance(value, DataLoader):
        raise _refused(name, value, may, where, "loaders come from build_dataloaders(batch_size, workers)")
    if isinstance(value, Mapping):
        raise _refused(name, value, may, where, "train_dataset(), valid_dataset() and test_dataset() give one each")
    if isinstance(value, (tuple, list)):
        if any(isinstance(one, (Dataset, DataLoader)) for one in value):
            raise _refused(name, value, may, where, "train_dataset(), valid_dataset() and test_dataset() give one each")
        if len(value) == 2 and all(isinstance(one, Tensor) and one.dim() for one in value):
            raise _refused(name, value, may, where, "make one of them: torch.utils.data.TensorDataset(inputs, targets)")
    if isinstance(value, IterableDataset):
        return value
    if value is None or isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__"):
        hint = "write `return` before it" if value is None else None
        kinds = f"{may}: with __len__ and __getitem__, or a torch.utils.data.IterableDataset"
        raise _refused(name, value, kinds, where, hint)
    if _length(value, name, where) == 0:
        raise UserCodeError(
            f"{name}() returned an empty dataset",
            where=where,
            hint="check its path and its filter",
        )
    return value  # type: ignore[return-value]


def _length(dataset: object, name: str, where: str) -> int:
    """Its length; what the user's own ``__len__`` raises passes through."""
    length = getattr(type(dataset), "__len__", None)
    if length is None:
        raise _refused(
            name,
            dataset,
            "a dataset with __len__ and __getitem__, or a torch.utils.data.IterableDataset",
            where,
            "define __len__, or derive its class from IterableDataset",
        )
    count = length(dataset)
    if not isinstance(count, int) or count < 0:
        raise UserCodeError(f"len() of what {name}() returned is {count!r}, it must be a whole number", where=where)
    return count


def checked_sampler(value: object, where: str) -> Iterable[object]:
    """A sampler of training samples, as ``train_sampler(dataset)`` must give it.

    Raises:
        UserCodeError: it is something else.
    """
    fits = hasattr(value, "__iter__") and hasattr(value, "__len__") and not hasattr(value, "__next__")
    kinds = (type, str, bytes, Mapping, DataLoader, Dataset)
    if not fits or isinstance(value, kinds) or (isinstance(value, (tuple, list)) and not value):
        may = "a torch.utils.data.Sampler of indices, with __len__"
        raise _refused("train_sampler", value, may, where, "write `return` before it" if value is None else None)
    return value  # type: ignore[return-value]


def checked_loaders(value: object, where: str) -> dict[str, DataLoader[object]]:
    """Loaders by name, as ``build_dataloaders(batch_size, workers)`` must give them.

    Returns:
        ``train``, ``valid``, and perhaps ``test``.

    Raises:
        UserCodeError: one is missing, or cannot be iterated again and again.
    """
    if not isinstance(value, Mapping) or not {"train", "valid"} <= set(value):
        raise _refused(
            "build_dataloaders",
            value,
            "a dictionary with 'train' and 'valid', and perhaps 'test'",
            where,
            "each is a torch.utils.data.DataLoader",
        )
    loaders = {name: value[name] for name in ("train", "valid", "test") if name in value}
    if loaders.get("test", True) is None:
        del loaders["test"]
    may = "a loader that gives its batches anew each time, such as a torch.utils.data.DataLoader"
    for name, loader in loaders.items():
        gave = f"build_dataloaders() returned {described(loader)} as {name!r}"
        if isinstance(loader, (type, str, bytes, Tensor, Mapping)) or not hasattr(loader, "__iter__"):
            raise UserCodeError(f"{gave}, it must be {may}", where=where)
        if hasattr(loader, "__next__"):
            raise UserCodeError(f"{gave}, which can be gone through once; it must be {may}", where=where)
    return loaders
