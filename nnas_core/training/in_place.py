"""Models that change in place what their backward pass needs, as ``out += skip`` behind a ReLU does.

torch refuses the backward pass of such a step. It is then made once more while what is changed is kept, and watched for
where that happens. From then on the modules whose outputs are changed give copies of these. Where no module gives what
is changed, it is kept in every step, which takes more than twice the time. Before a step has failed, nothing of this is
done.
"""

from __future__ import annotations

import functools
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn as nn
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from nnas_core import random_state
from nnas_core.errors import NnasWarning
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.dispatch_modes import uncompiled
from nnas_core.mutables.nested import copied, tensors
from nnas_core.training.optimizers import State

if TYPE_CHECKING:
    from nnas_core.training.trainer import Trainer

__all__ = ["InPlaceChanges", "repeated_if_changed_in_place"]

Step = TypeVar("Step", bound=Callable[..., None])
Mode = TypeVar("Mode", bound="_Keeping")

_OURS = (Path(torch.__file__).parent, Path(__file__).parents[1])


def repeated_if_changed_in_place(step: Step) -> Step:
    """A method of a trainer that makes one update, and makes it once more if its backward pass was refused.

    The method must not have changed anything but gradients, buffers and random states when its backward pass fails.
    """

    @functools.wraps(step)
    def repeating(trainer: Trainer, *batches: object) -> None:
        trainer.in_place.run(trainer, step.__name__, functools.partial(step, trainer), batches)

    return cast("Step", repeating)


class InPlaceChanges:
    """What is known of a model's changes in place, and what is done about them.

    Attributes:
        copied: modules that give copies of their outputs in training steps.
        kept: true if all that is changed is kept for the backward pass.
    """

    def __init__(self) -> None:
        self.copied: list[nn.Module] = []
        self.kept = False
        self._begun: set[str] = set()
        self._told: set[str] = set()
        self._is_watching = False

    def run(self, trainer: Trainer, name: str, step: Callable[..., None], batches: Sequence[object]) -> None:
        """Make a step, and once more if torch refused its backward pass for a change in place.

        Args:
            trainer: whose model it trains.
            name: of the kind of step. If the very first one is refused, nothing of it is left; if a later one is, the
                statistics of BatchNorm have seen its batch twice, and random numbers go on.
            step: makes it.
            batches: that it takes. The model may change them in place too: the very first ones are kept as they were.
        """
        before = None if name in self._begun else _before(trainer)
        as_given = copied(batches) if before is not None else batches
        self._begun.add(name)
        try:
            with self._handled() if self.copied or self.kept else nullcontext():
                step(*batches)
        except Exception as error:
            if self._is_watching or not _is_refusal(error):
                raise
        else:
            return
        if before is not None:
            before()
        self._watched(trainer.model, functools.partial(step, *as_given))

    @contextmanager
    def _handled(self) -> Iterator[None]:
        """Do what is known to be needed in forward and backward passes."""
        with self._copies(), uncompiled(_Keeping), _Keeping() if self.kept else nullcontext():
            yield

    @contextmanager
    def _copies(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in self.copied:
                stack.enter_context(_copying(module))
            yield

    def _watched(self, model: nn.Module, step: Callable[[], None]) -> None:
        """Make a step while torch keeps what is changed, and find out what that is."""
        self._is_watching = True
        try:
            with uncompiled(_Keeping), _Watch() as watch, watch.outputs_of(model), self._copies():
                step()
        finally:
            self._is_watching = False
        givers = dict.fromkeys(watch.givers)
        self.kept = self.kept or not givers or None in givers
        self.copied += [one for one in givers if one is not None]
        self._tell([place for place in dict.fromkeys(watch.places) if place not in self._told])

    def _tell(self, places: Sequence[str]) -> None:
        if self._told and not places:
            return
        self._told.update(places)
        does = "what is changed is kept, which takes more time" if self.kept else "a copy is changed instead"
        warnings.warn(
            f"{', '.join(places) or 'the model'}: changes in place what the backward pass needs; {does}"
            " (write `out = out + x` for `out += x`)",
            NnasWarning,
            stacklevel=2,
        )

    def state_dict(self, model: nn.Module) -> State:
        """What is known, as plain data; nothing as long as nothing was refused."""
        names = [name for name, module in model.named_modules() if module in self.copied]
        return {"in_place": {"copied": names, "kept": self.kept}} if names or self.kept else {}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Go on with what ``state_dict`` returned."""
        known = state.get("in_place", {"copied": [], "kept": False})
        named = dict(model.named_modules())
        self.copied = [named[name] for name in known["copied"] if name in named]
        self.kept = known["kept"]


def _is_refusal(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error.__cause__, RuntimeError) else error
    return isinstance(cause, RuntimeError) and "modified by an inplace operation" in str(cause)


def _before(trainer: Trainer) -> Callable[[], None]:
    """Return a function that puts back the random states and buffers of now."""
    states = random_state.capture_all(trainer.generators)
    buffers = [(one, one.detach().clone()) for one in trainer.model.buffers()]

    def back() -> None:
        random_state.restore_all(states, trainer.generators)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)

    return back


@contextmanager
def _copying(module: nn.Module) -> Iterator[None]:
    """Inside, ``module`` gives copies of its outputs."""
    handle = module.register_forward_hook(_copied)
    try:
        yield
    finally:
        handle.remove()
        if isinstance(module, LayerChoice):
            module.take_the_short_way()


def _copied(module: nn.Module, args: object, output: object) -> object:
    return copied(output)


class _Saved:
    """A tensor as it was when it was saved for the backward pass."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _Keeping(TorchDispatchMode):
    """Inside, what is saved for a backward pass is copied before it is changed in place.

    torch's ``allow_mutation_on_saved_tensors`` is meant to do this, but tells tensors apart by addresses, which are
    those of other tensors once a changed one is gone. Here a storage is told by its address while something holds it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hooks = saved_tensors_hooks(self._pack, self._unpack)
        self._saved: dict[int, list[weakref.ref[_Saved]]] = {}

    def __enter__(self: Mode) -> Mode:
        self._hooks.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *details: object) -> None:
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        self._hooks.__exit__(*details)
        self._saved.clear()

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach())
        storage = _storage_of(tensor)
        if storage is not None:
            self._saved.setdefault(storage, []).append(weakref.ref(saved))
        return saved

    def _unpack(self, saved: _Saved) -> Tensor:
        return saved.value

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[position] if position < len(args) else kwargs.get(argument.name)
                for tensor in tensors(given):
                    self._keep(tensor)
        return func(*args, **kwargs)

    def _keep(self, tensor: Tensor) -> None:
        """Copy what was saved of the memory of ``tensor``, which is about to be changed."""
        storage = _storage_of(tensor)
        waiting = self._saved.pop(storage, []) if storage is not None else []
        alive = [saved for one in waiting if (saved := one()) is not None]
        for saved in alive:
            saved.value = saved.value.clone()
        if alive:
            self.on_change(tensor)

    def on_change(self, tensor: Tensor) -> None:
        """Called before ``tensor``, which the backward pass needs, is changed."""


def _storage_of(tensor: Tensor) -> int | None:
    """The address of a tensor's storage; None for a layout without one."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else None


class _Watch(_Keeping):  # type: ignore[no-untyped-call]
    """Sees each change of a tensor that was saved for the backward pass.

    Attributes:
        places: where the user's code made them: file and line.
        givers: the outermost modules that gave what was changed; None for one that none gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        self.givers: list[nn.Module | None] = []
        self._given: dict[int, tuple[Tensor, nn.Module]] = {}

    def on_change(self, tensor: Tensor) -> None:
        base = tensor if tensor._base is None else tensor._base
        giver = self._given.get(id(tensor)) or self._given.get(id(base))
        self.givers.append(None if giver is None else giver[1])
        self.places.append(_users_line())

    @contextmanager
    def outputs_of(self, model: nn.Module) -> Iterator[None]:
        """Inside, notice which module gives which tensor."""
        choices = [one for one in model.modules() if isinstance(one, LayerChoice)]

        def notice(module: nn.Module, _: object, output: object) -> None:
            if module is not model:
                self._given.update({id(one): (one, module) for one in tensors(output)})

        handle = register_module_forward_hook(notice)
        for choice in choices:
            choice.take_the_long_way()
        try:
            yield
        finally:
            handle.remove()
            for choice in choices:
                choice.take_the_short_way()


def _users_line() -> str:
    """The line of the innermost code that is neither torch's nor nnas's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if not path.name.startswith("<") and not any(one in path.parents for one in _OURS):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "the model"
