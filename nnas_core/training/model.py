"""A model reference, ``file.py[:NAME]`` with arguments, becomes an ``nn.Module``."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn as nn

from nnas_core.errors import NnasError, UsageError, UserCodeError
from nnas_core.mutables.base import Mutable
from nnas_core.plugins import loading
from nnas_core.plugins.loading import UserModule

__all__ = ["build_model", "build_on_meta"]

_Factory = Callable[..., object]


def build_model(
    reference: str, arguments: Mapping[str, object] | None = None, *, needs_mutables: bool = True
) -> tuple[nn.Module, UserModule]:
    """Load the module that ``reference`` names and build its model on the current default device.

    ``NAME`` is an ``nn.Module`` subclass, a function that returns a module, or a module. Without it: a function
    ``build_model``, else the one class of the file that contains mutables.

    Args:
        reference: ``file.py[:NAME]`` or ``package.module[:NAME]``.
        arguments: for the call.
        needs_mutables: true if a class without mutables is out of the question.

    Raises:
        InputError: no such file.
        UsageError: the arguments do not fit.
        UserCodeError: several classes could be meant, none is, or the name is no model.
        Exception: whatever the user's code raises.
    """
    source, name = loading.split_reference(reference)
    user = loading.load(source)
    arguments = dict(arguments or {})
    with user.imports():
        target = user.get(name) if name is not None else _default_factory(user, arguments, needs_mutables)
        if isinstance(target, nn.Module):
            if arguments:
                raise UsageError(f"{reference} is a module already, it takes no `model_arg`")
            return target, user
        if not callable(target):
            raise UserCodeError(f"{name or 'build_model'} is a {type(target).__name__}, no model", where=source)
        _check_arguments(target, arguments, reference)
        model = target(**arguments)
    if not isinstance(model, nn.Module):
        raise UserCodeError(
            f"{getattr(target, '__name__', name)} returned a {type(model).__name__}, not an nn.Module",
            where=source,
        )
    return model, user


def build_on_meta(
    reference: str, arguments: Mapping[str, object] | None = None, **options: bool
) -> tuple[nn.Module, UserModule]:
    """``build_model`` without memory for weights, however large they are.

    A constructor that needs real numbers fails on the meta device; then the model is built once more on the CPU,
    and if that fails too, its error is the one that counts.
    """
    loading.load(loading.split_reference(reference)[0])  # its own tensors have values, also for the second try
    try:
        with torch.device("meta"):
            return build_model(reference, arguments, **options)
    except NnasError:
        raise
    except Exception:  # noqa: BLE001  (whatever user code may raise when its tensors have no values)
        return build_model(reference, arguments, **options)


def _check_arguments(target: _Factory, arguments: Mapping[str, object], reference: str) -> None:
    with contextlib.suppress(ValueError):  # a class of C has no signature to check
        signature = inspect.signature(target)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            takes = ", ".join(signature.parameters) or "nothing"
            raise UsageError(
                f"wrong model arguments: {error}",
                where=reference,
                hint=f"it takes {takes}; give them with -a NAME=VALUE",
            ) from error


def _default_factory(user: UserModule, arguments: Mapping[str, object], needs_mutables: bool) -> _Factory:
    build: _Factory | None = getattr(user.module, "build_model", None)
    if build is not None:
        return build
    own = [
        value
        for value in vars(user.module).values()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == user.module.__name__
    ]
    if len(own) == 1:
        return own[0]
    candidates = _outermost(own, arguments) if needs_mutables else own
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = [cls.__name__ for cls in candidates]
        raise UserCodeError(
            f"several classes could be the model: {', '.join(names)}",
            where=user.reference,
            hint=f"name one: {user.reference}:{names[-1]}",
        )
    names = [cls.__name__ for cls in own]
    what = f"none of its classes contains mutables and can be built: {', '.join(names)}" if names else "no model in it"
    imported = _imported(user)
    hint = f"name one ({user.reference}:NAME, arguments with -a), or define build_model()"
    if imported and not names:
        hint = (
            f"it imports {', '.join(imported[:5])}; name one: {user.reference}:{imported[0]}, or define build_model()"
        )
    raise UserCodeError(what, where=user.reference, hint=hint)


def _imported(user: UserModule) -> list[str]:
    """Names of model classes that the file has from other files of the user's."""
    return [
        name
        for name, value in vars(user.module).items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ != user.module.__name__
        and value.__module__.partition(".")[0] not in ("torch", "nnas_core")
    ]


def _outermost(classes: list[type[nn.Module]], arguments: Mapping[str, object]) -> list[type[nn.Module]]:
    """The classes that can be built, contain mutables, and are no part of another such class."""
    built: dict[type[nn.Module], nn.Module] = {}
    for cls in classes:
        with contextlib.suppress(Exception):  # a part of a model may well refuse to be built alone
            inspect.signature(cls).bind(**arguments)
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                built[cls] = cls(**arguments)
    containing = {cls: model for cls, model in built.items() if any(_mutables(model))}
    if not containing:  # perhaps none can be built on the meta device
        return [cls for cls in classes if _can_be_called(cls, arguments)] if len(built) < len(classes) else []
    parts = {type(part) for model in containing.values() for part in model.modules() if part is not model}
    return [cls for cls in containing if cls not in parts]


def _can_be_called(cls: type[nn.Module], arguments: Mapping[str, object]) -> bool:
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError:
        return False
    return True


def _mutables(model: nn.Module) -> Iterator[Mutable]:
    return (module for module in model.modules() if isinstance(module, Mutable))
