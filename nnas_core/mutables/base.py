"""Everything that a mutator knows about has a key, and a mutator that it is bound to.

Behaviour and signatures are those of NNI 1.x. A mutable does nothing by itself: a mutator, bound to the model, decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch.nn as nn

from nnas_core.errors import BindingError
from nnas_core.mutables.keys import automatic_key

if TYPE_CHECKING:
    from nnas_core.mutables.binding import Binding
    from nnas_core.mutables.mutator import BaseMutator

__all__ = ["Forward", "Mutable", "MutableScope"]

Forward = Callable[..., Any]
"""A forward pass, as it is called: of a candidate, of a choice, of a model."""

_NEVER_FOUND = (
    "bind the model to a mutator first; a mutable that is created in forward() is never found, create it in __init__"
)
_NOT_BOUND = (
    "bind the model to a mutator first; if this is an extracted model, a function in it closes over the one that it was"
    " extracted from: decide that in place by apply_fixed_architecture(), or let the function be a method of the module"
)


class Mutable(nn.Module):
    """Base of everything that a mutator knows about.

    Args:
        key: identity of the decision; equal keys share one. None: ``ClassName`` and a number, counted per model
            in the order of construction from 1. Anything but a text is converted.
    """

    # A slot is no part of what is copied or pickled: a copy starts unbound, and does not drag the mutator along.
    __slots__ = ("_binding",)

    _binding: Binding | None
    _given_key: str
    _key: str
    _path: str | None

    def __init__(self, key: Any = None) -> None:
        super().__init__()
        self._given_key = automatic_key(self) if key is None else key if isinstance(key, str) else str(key)
        self._key = self._given_key
        self._path = None
        self._let_go()

    def _let_go(self) -> None:
        """Set the slots to those of a mutable that is not bound."""
        self._binding = None

    @property
    def key(self) -> str:
        """The identity of the decision."""
        return self._key

    @property
    def name(self) -> str:
        """The dotted path of this module in its model once that was parsed, before that the key."""
        return self.key if self._path is None else self._path

    def _identify(self, *, path: str | None = None, key: str | None = None) -> None:
        """Take the place in the model, or the number, that reading the model has found for this mutable."""
        self._path = self._path if path is None else path
        self._key = self._key if key is None else key

    @property
    def is_bound(self) -> bool:
        """True if a mutator decides for this mutable."""
        return self._binding is not None

    @property
    def _mutator(self) -> BaseMutator | None:
        """The mutator that decides for this mutable."""
        return None if self._binding is None else self._binding.mutator

    def set_mutator(self, mutator: BaseMutator) -> None:
        """Bind; mutators call this.

        Raises:
            BindingError: already bound.
        """
        if self._binding is not None:
            raise BindingError(
                f"`set_mutator` is called more than once: {self.key!r} is bound to"
                f" {type(self._binding.mutator).__name__}",
                hint="call unbind() on the first mutator, or build the model anew",
            )
        self._binding = mutator.binding

    def release(self) -> None:
        """Forget the mutator and the current decision."""
        self._let_go()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._let_go()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def _unready(self) -> BindingError:
        """The error of a forward pass for which nothing is decided."""
        if self._binding is None:
            return BindingError(
                f"Mutator not set for {self.key!r}",
                where=self._path,
                hint=_NEVER_FOUND if self._path is None else _NOT_BOUND,
            )
        return BindingError(
            f"{self.key!r} not found in decision cache: nothing is decided yet",
            where=self._path,
            hint="call mutator.reset() before the forward pass",
        )


class MutableScope(Mutable):
    """A part of the model whose mutables belong together, for mutators that care about structure.

    Args:
        key: identity of the scope; it is no decision and never stands in an architecture.
    """

    _retired = False
    """True in an extracted model: nothing inside is left to decide."""

    def __init__(self, key: Any) -> None:
        super().__init__(key)

    def retire(self) -> None:
        """Become an ordinary module for good; ``extract`` calls this on its copy."""
        self._retired = True

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if self._retired:
            return super().__call__(*args, **kwargs)
        mutator = self._mutator
        if mutator is None:
            raise self._unready()
        mutator.enter_mutable_scope(self)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            mutator.exit_mutable_scope(self)
