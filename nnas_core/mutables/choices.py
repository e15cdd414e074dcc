"""LayerChoice and InputChoice mark, in an ordinary ``nn.Module``, what a search may decide.

A mutator that is bound to the model stores for every choice the plain Python callable that its decision amounts to, in
a list that all choices of the model share; a forward pass only calls it.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn as nn

from nnas_core.mutables.base import Forward, Mutable
from nnas_core.mutables.keys import AutoKey
from nnas_core.mutables.sharing import Sharing
from nnas_core.space.choice import Choice

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

__all__ = ["AnyChoice", "InputChoice", "LayerChoice"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Choosing(Mutable):
    """Holds what LayerChoice and InputChoice share: reduction, mask, and the call of the decision."""

    __slots__ = ("_calls", "_slot")

    reduction: str
    return_mask: bool

    _calls: list[Forward] | None
    """The calls of all choices of the model; a mutator decides by changing them."""

    _slot: int
    """Which entry is that of this choice."""

    def __init__(self, key: Any, reduction: str, return_mask: bool) -> None:
        super().__init__(key)
        self.reduction = reduction
        self.return_mask = return_mask

    def _let_go(self) -> None:
        super()._let_go()
        self._calls = None
        self._slot = -1

    @property
    def choice(self) -> Choice:
        """The choice as plain data: its key, its candidates, and how many of them are taken."""
        raise NotImplementedError

    def take_calls(self, calls: list[Forward], slot: int) -> None:
        """Call ``calls[slot]`` in forward passes from now on."""
        self._calls = calls
        self._slot = slot

    def _decided(self) -> Forward:
        """Return the callable that the decision amounts to."""
        if self._calls is None:
            raise self._unready()
        return self._calls[self._slot]


def _with_the_long_way(register: Callable[..., RemovableHandle]) -> Callable[..., RemovableHandle]:
    """Return a method of torch's that adds a hook, after which a choice is called as every module is."""

    @functools.wraps(register)
    def registering(choice: LayerChoice, *args: object, **kwargs: object) -> RemovableHandle:
        choice.take_the_long_way()
        return register(choice, *args, **kwargs)

    return registering


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

    __slots__ = ("_sharing", "_shortcut")

    _shortcut: list[Forward] | None
    """The calls, where neither a hook nor a forward() in place of ours needs nn.Module's longer way."""

    _sharing: Sharing
    """Which candidates must not be given what others are given too."""

    _has_own_forward = False

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
        elif name == "forward":  # in place of ours
            self._shortcut = None

    def add_module(self, name: str, module: nn.Module | None) -> None:
        super().add_module(name, module)
        self._changed()

    def _changed(self) -> None:
        self._sharing = Sharing(self)
        mutator = self._mutator
        if mutator is not None:
            mutator.candidates_changed(self)

    @property
    def sharing(self) -> Sharing:
        """What is known of candidates that run on the same arguments."""
        return self._sharing

    # ---- calls: every forward pass makes one for each choice, so they take the shortest way

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._has_own_forward = cls.forward is not LayerChoice.forward

    def _let_go(self) -> None:
        super()._let_go()
        self._shortcut = None
        self._sharing = Sharing(self)

    def take_calls(self, calls: list[Forward], slot: int) -> None:
        super().take_calls(calls, slot)
        self.take_the_short_way()

    def take_the_short_way(self) -> None:
        """Leave out ``nn.Module.__call__`` in forward passes again, once no hook needs it any more."""
        if not self._has_own_forward and "forward" not in vars(self) and not any(getattr(self, one) for one in _HOOKS):
            self._shortcut = self._calls

    def take_the_long_way(self) -> None:
        """Be called as every module is, until the short way is taken again; global hooks need that."""
        self._shortcut = None

    def __call__(self, *args: object, **kwargs: object) -> Any:
        calls = self._shortcut
        if calls is None:
            return super().__call__(*args, **kwargs)
        return calls[self._slot](*args, **kwargs)

    register_forward_hook = _with_the_long_way(nn.Module.register_forward_hook)
    register_forward_pre_hook = _with_the_long_way(nn.Module.register_forward_pre_hook)
    register_full_backward_hook = _with_the_long_way(nn.Module.register_full_backward_hook)
    register_full_backward_pre_hook = _with_the_long_way(nn.Module.register_full_backward_pre_hook)
    register_backward_hook = _with_the_long_way(nn.Module.register_backward_hook)

    def forward(self, *args: object, **kwargs: object) -> Any:
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
        self.takes_dictionary = True
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


AnyChoice = LayerChoice | InputChoice
"""Either kind of choice."""
