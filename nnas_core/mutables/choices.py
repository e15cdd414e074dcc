"""Mutables mark, in an ordinary ``nn.Module``, what a search may decide.

Behaviour and signatures are those of NNI 1.x. A mutable does nothing by itself: a mutator, bound to the model,
decides; ``reset()`` stores for every mutable the plain Python callable that its decision amounts to, and a
forward pass only calls it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch.nn as nn

from nnas_core.errors import BindingError
from nnas_core.mutables.keys import AutoKey, automatic_key
from nnas_core.space.choice import Choice

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InputChoice", "LayerChoice", "Mutable", "MutableScope", "Owner"]

# What a mutator leaves in its mutables; a copy or an unbound mutable has none of it.
_BINDING = ("_mutator", "_calls", "_slot", "_plan")


class Owner(Protocol):
    """What a mutable needs of the mutator that it is bound to."""

    def candidates_changed(self, mutable: LayerChoice) -> None:
        """Called when candidates were replaced or deleted."""

    def enter_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """Called before the forward pass of a scope."""

    def exit_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """Called after it, also when it failed."""


class Mutable(nn.Module):
    """Base of everything that a mutator knows about.

    Args:
        key: identity of the decision; equal keys share one. None: ``ClassName`` and a number, counted per model
            in the order of construction from 1. Anything but a text is converted.
    """

    # Class-level defaults let instances that were copied or unpickled start unbound.
    _mutator: Owner | None = None
    _name: str | None = None
    _given_key: str
    _key: str

    def __init__(self, key: Any = None) -> None:
        super().__init__()
        # nn.Module.__setattr__ costs microseconds and these are never modules, hence the plain dictionary
        state = self.__dict__
        if key is None:
            state["_given_key"] = automatic_key(self)
        else:
            state["_given_key"] = key if isinstance(key, str) else str(key)
        state["_key"] = state["_given_key"]

    @property
    def key(self) -> str:
        """The identity of the decision."""
        return self._key

    @property
    def name(self) -> str:
        """The dotted path of this module in its model once that was parsed, before that the key."""
        return self.key if self._name is None else self._name

    @property
    def is_bound(self) -> bool:
        """Whether a mutator decides for this mutable."""
        return self._mutator is not None

    def set_mutator(self, mutator: Owner) -> None:
        """Bind; mutators call this.

        Raises:
            BindingError: already bound.
        """
        if self._mutator is not None:
            raise BindingError(
                f"`set_mutator` is called more than once: {self.key!r} is bound to {type(self._mutator).__name__}",
                hint="call unbind() on the first mutator, or build the model anew",
            )
        self.__dict__["_mutator"] = mutator

    def release(self) -> None:
        """Forget the mutator and the current decision."""
        for name in _BINDING:
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts unbound: the mutator belongs to the original, and would drag its model along.
        state = self.__dict__.copy()
        for name in _BINDING:
            state.pop(name, None)
        return state

    def _unready(self) -> BindingError:
        if self._mutator is None:
            return BindingError(
                f"Mutator not set for {self.key!r}",
                where=self._name,
                hint="bind the model to a mutator first; a mutable that is created in forward() is never found,"
                " create it in __init__",
            )
        return BindingError(
            f"{self.key!r} not found in decision cache: nothing is decided yet",
            where=self._name,
            hint="call mutator.reset() before the forward pass",
        )


class MutableScope(Mutable):
    """A part of the model whose mutables belong together, for mutators that care about structure.

    Args:
        key: identity of the scope; it is no decision and never stands in an architecture.
    """

    def __init__(self, key: Any) -> None:
        super().__init__(key)

    # True in an extracted model: nothing inside is left to decide.
    _retired = False

    def retire(self) -> None:
        """Become an ordinary module for good; ``extract`` calls this on its copy."""
        self.__dict__["_retired"] = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._retired:
            return super().__call__(*args, **kwargs)
        if self._mutator is None:
            raise self._unready()
        self._mutator.enter_mutable_scope(self)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._mutator.exit_mutable_scope(self)


class _Choosing(Mutable):
    """What LayerChoice and InputChoice share: reduction, mask, and the call of the resolved decision."""

    reduction: str
    return_mask: bool

    # What to call stands in a list that all choices of a model share, so that a mutator decides them all at once.
    _calls: list[Callable[..., Any]]
    _slot: int

    def __init__(self, key: Any, reduction: str, return_mask: bool) -> None:
        super().__init__(key)
        self.reduction = reduction
        self.return_mask = return_mask

    @property
    def choice(self) -> Choice:
        """What can be decided here, as plain data."""
        raise NotImplementedError

    def _decided(self) -> Callable[..., Any]:
        """What the decision amounts to."""
        if self._mutator is None:
            raise self._unready()
        return self._calls[self._slot]


class LayerChoice(_Choosing):
    """Choose among candidate modules that take the same input.

    Args:
        op_candidates: a list, tuple or ModuleList names them ``"0"``, ``"1"``, ...; an OrderedDict, by its keys.
        reduction: how several executed candidates become one output: ``"sum"``, ``"mean"`` (over the
            executed ones), ``"concat"`` (dim 1) or ``"none"`` (a list). With one, its output is returned as it is;
            with none, None (``"none"``: an empty list).
        return_mask: return ``(output, mask)``; the mask has one entry a candidate, on the model's device.
        key: see ``Mutable``.

    A container too: ``len``, iteration, ``[index]``, ``[name]``, slices, assignment, deletion (others keep names).

    Raises:
        TypeError: ``op_candidates`` is something else.
        ValueError: a name that a module cannot have.
    """

    _RESERVED = frozenset({"length", "reduction", "return_mask", "_key", "key", "names", "choices", "choice"})

    def __init__(
        self,
        op_candidates: Sequence[nn.Module] | OrderedDict[str, nn.Module] | nn.ModuleList,
        reduction: str = "sum",
        return_mask: bool = False,
        key: Any = None,
    ) -> None:
        super().__init__(key, reduction, return_mask)
        if isinstance(op_candidates, OrderedDict):
            named = list(op_candidates.items())
        elif isinstance(op_candidates, (list, tuple, nn.ModuleList)):
            named = [(str(index), module) for index, module in enumerate(op_candidates)]
        else:
            raise TypeError(
                f"Unsupported op_candidates type: {type(op_candidates).__name__}; "
                "give a list, tuple, ModuleList or OrderedDict of modules"
            )
        self.names: list[str] = []
        for name, module in named:
            if name in self._RESERVED or "." in name or name == "" or hasattr(self, name):
                raise ValueError(f"a candidate of a LayerChoice cannot be named {name!r}, choose another name")
            self.add_module(name, module)
            self.names.append(name)

    @property
    def choice(self) -> Choice:
        return Choice(self.key, "layer_choice", tuple(self.names), 1)

    @property
    def candidates(self) -> list[nn.Module]:
        """The candidate modules in order; None for one that a fixed architecture removed."""
        return [self._modules[name] for name in self.names]  # type: ignore[misc]

    @property
    def length(self) -> int:
        """The number of candidates (the name that NNI programs use for ``len``)."""
        return len(self.names)

    @property
    def choices(self) -> list[nn.Module]:
        """The candidates (the name that NNI programs use for ``candidates``)."""
        return self.candidates

    def __len__(self) -> int:
        return len(self.names)

    def __bool__(self) -> bool:
        return True  # a module is true, however few candidates are left

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.candidates)

    def __getitem__(self, position: int | str | slice) -> Any:
        if isinstance(position, str):
            return self._modules[position]
        if isinstance(position, slice):
            return [self._modules[name] for name in self.names[position]]
        return self._modules[self.names[position]]

    def __setitem__(self, position: int | str, module: nn.Module | None) -> None:
        name = position if isinstance(position, str) else self.names[position]
        if name not in self.names:
            raise KeyError(f"no candidate is named {name!r}; candidates can be replaced, not added")
        self._modules[name] = module
        self._changed()

    def __delitem__(self, position: int | str | slice) -> None:
        names = [position] if isinstance(position, str) else self.names[position]
        for name in [names] if isinstance(names, str) else names:
            del self._modules[name]
            self.names.remove(name)
        self._changed()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self._changed()

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        self._changed()

    def _changed(self) -> None:
        if self._mutator is not None:
            self._mutator.candidates_changed(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Every forward pass comes here, so the short way is taken unless a hook, or a forward in place of ours, needs
        # nn.Module.__call__; and attributes are quicker to read from the dictionary.
        state = self.__dict__
        if (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
            or "forward" in state
            or "_calls" not in state
        ):
            return super().__call__(*args, **kwargs)
        return state["_calls"][state["_slot"]](*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.forward is not LayerChoice.forward and cls.__call__ is LayerChoice.__call__:
            cls.__call__ = nn.Module.__call__  # type: ignore[method-assign]  # the short way leaves out forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run what was decided on any arguments; they go to every executed candidate."""
        return self._decided()(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"key={self.key!r}, reduction={self.reduction!r}"


class InputChoice(_Choosing):
    """Choose among tensors.

    Args:
        n_candidates: how many inputs there are; may be left out with ``choose_from``.
        choose_from: a tag an input: the key of a mutable constructed before this one, or ``NO_KEY``.
        n_chosen: how many are taken; None: any number. Advice to the mutator, as in NNI.
        reduction, return_mask, key: as for ``LayerChoice``.

    Raises:
        ValueError: neither or contradictory counts, or ``n_chosen`` out of ``0..n_candidates``.
    """

    NO_KEY = ""

    # Set by the first call with a dictionary, so that an extracted model can be specialised to it.
    takes_dictionary = False

    def __init__(
        self,
        n_candidates: int | None = None,
        choose_from: Sequence[str] | None = None,
        n_chosen: int | None = None,
        reduction: str = "sum",
        return_mask: bool = False,
        key: Any = None,
    ) -> None:
        super().__init__(key, reduction, return_mask)
        if choose_from is None:
            if n_candidates is None:
                raise ValueError("an InputChoice needs n_candidates or choose_from")
            choose_from = [self.NO_KEY] * n_candidates
        if n_candidates is not None and n_candidates != len(choose_from):
            raise ValueError(f"n_candidates is {n_candidates}, but choose_from has {len(choose_from)} entries")
        if not choose_from:
            raise ValueError("an InputChoice needs at least one candidate")
        if n_chosen is not None and not 0 <= n_chosen <= len(choose_from):
            raise ValueError(f"n_chosen is {n_chosen}, it must be None or in 0..{len(choose_from)}")
        self.n_chosen = n_chosen
        self._tags_given = list(choose_from)
        self.choose_from: list[str] = list(choose_from)

    @property
    def n_candidates(self) -> int:
        """The number of inputs."""
        return len(self.choose_from)

    @property
    def choice(self) -> Choice:
        return Choice(self.key, "input_choice", tuple(map(str, self.choose_from)), self.n_chosen)

    def __len__(self) -> int:
        return len(self.choose_from)

    def __bool__(self) -> bool:
        return True

    def forward(self, inputs: Sequence[Tensor | None] | Mapping[str, Tensor | None]) -> Any:
        """Reduce the chosen inputs.

        Args:
            inputs: one entry a candidate in order, or a dictionary by the tags of ``choose_from``. An entry that is
                not chosen may be None.
        """
        run = self._decided()
        if type(inputs) is not list:
            inputs = self._as_list(inputs)
        if len(inputs) != len(self.choose_from):
            raise ValueError(f"{self.key!r} chooses among {len(self.choose_from)} inputs, {len(inputs)} given")
        return run(inputs)

    def _as_list(self, inputs: Any) -> list[Any]:
        if not isinstance(inputs, Mapping):
            return list(inputs)
        self.__dict__["takes_dictionary"] = True
        # A model may have stored keys that it read before they were numbered, and another key may have got such a
        # number since: what a stored key means is what it meant then.
        stored = {name for name in inputs if isinstance(name, AutoKey)}
        names: Sequence[str] = self.choose_from
        if stored:
            pairs = zip(self.choose_from, self._tags_given, strict=True)
            names = [given if given in stored else tag for tag, given in pairs]
        elif not all(tag in inputs for tag in names):
            names = self._tags_given
        if len(inputs) != len(names) or not all(name in inputs for name in names):
            raise ValueError(f"{self.key!r} chooses among the inputs {self.choose_from}, given are {sorted(inputs)}")
        return [inputs[name] for name in names]

    def extra_repr(self) -> str:
        return f"key={self.key!r}, choose_from={self.choose_from}, n_chosen={self.n_chosen}"
