"""The life of a binding: made with the mutator, made anew for a copy of both, ended by ``unbind`` or a failure."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch.nn as nn

from nnas_core.errors import BindingError
from nnas_core.mutables.binding import Binding

__all__ = ["Bound"]


def _freeing_the_model(construct: Callable[..., None]) -> Callable[..., None]:
    """A constructor that, where it refuses the model after it was bound, leaves it free for another mutator."""

    @functools.wraps(construct)
    def constructor(self: Bound, *args: object, **kwargs: object) -> None:
        try:
            construct(self, *args, **kwargs)
        except BaseException:
            if self.is_bound:
                self.unbind()
            raise

    return constructor


class Bound(nn.Module):
    """A module with a ``Binding`` to a model that is no submodule of it.

    A copy comes with a copy of the model and is bound to that; a constructor that fails leaves the model free.

    Args:
        model: bound for life, or until ``unbind``.

    Raises:
        SpaceError: the mutables make no search space; every problem is listed.
        BindingError: the model is bound to another mutator.
    """

    # A slot is no part of what is copied or pickled: a copy of a mutator comes with a copy of its model, bound to it.
    __slots__ = ("_binding",)

    _binding: Binding | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _freeing_the_model(cls.__init__)  # type: ignore[method-assign]  # the same constructor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._binding = None
        self._bind(model)

    def _bind(self, model: nn.Module) -> None:
        self._binding = self._bound_to(model)
        try:
            self._binding.attach()
        except BaseException:
            self.unbind()
            raise

    def _bound_to(self, model: nn.Module) -> Binding:
        """Return the binding to ``model``, not yet attached."""
        raise NotImplementedError

    def unbind(self) -> None:
        """Free the model for another mutator; this one is of no use afterwards."""
        self.binding.detach()
        self._binding = None

    @property
    def is_bound(self) -> bool:
        """True until ``unbind``."""
        return getattr(self, "_binding", None) is not None

    @property
    def binding(self) -> Binding:
        """The connection to the model.

        Raises:
            BindingError: there is none any more.
        """
        if self._binding is None:
            raise BindingError(
                f"this {type(self).__name__} is bound to no model", hint="make a new mutator for the model"
            )
        return self._binding

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self.binding.model

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            raise AttributeError("a mutator is bound to one model for life; make another one for another model")
        super().__setattr__(name, value)

    def __getstate__(self) -> tuple[dict[str, Any], nn.Module | None]:
        return self.__dict__.copy(), self.model if self.is_bound else None

    def __setstate__(self, state: tuple[dict[str, Any], nn.Module | None]) -> None:
        attributes, model = state
        self._binding = None
        super().__setstate__(attributes)  # type: ignore[no-untyped-call]
        if model is not None:
            self._bind(model)

    def __deepcopy__(self, memo: dict[int, Any]) -> Bound:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin
