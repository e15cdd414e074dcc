"""The connection of one mutator and one model: what there is to decide, and what is decided now.

    mutator ==binding==> Binding <==_binding== every mutable
                         |  tree, groups      what the model has
                         |  calls, decision   what was decided last
                         |  made              what the mutator has made of all that, until candidates change

A mutator hands ``decide`` a mapping key -> mask. One that it made itself (``Decided``) knows a quicker way into the
model than mask by mask: whole numbers, or a list of calls that it keeps.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, DecisionError
from nnas_core.mutables.base import Forward, Mutable
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.direct_call import direct_call
from nnas_core.mutables.plans import Plan, as_masks, hard_mask, hard_plan, soft_plan
from nnas_core.mutables.tree import parse
from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace

if TYPE_CHECKING:
    from nnas_core.mutables.mutator import BaseMutator, Mutator

__all__ = ["Binding", "Decided", "HardDecisions", "Route", "per_binding"]

M = TypeVar("M", bound="Mutator")
T = TypeVar("T")

Route = tuple[int, list[Forward]]
"""The slot of a LayerChoice, and what each of its candidates is called by: storing one there decides it."""


class Binding:
    """Everything that a mutator knows of its model; never copied, because a copy of a mutator has a model of its own.

    Args:
        mutator: decides.
        model: it is read here; its mutables are bound by ``attach``.

    Attributes:
        tree: of all mutables.
        groups: key -> the choices that share it, in the order of the tree.
        choices: key -> the first of them.
        calls: what each choice of the model calls, by its slot.
        decision: what was decided last; empty before.

    Raises:
        SpaceError: the mutables make no search space; every problem is listed.
        BindingError: the model is bound to another mutator.
    """

    def __init__(self, mutator: BaseMutator, model: nn.Module) -> None:
        bound = [one._mutator for one in model.modules() if isinstance(one, Mutable) and one.is_bound]
        if bound:
            raise BindingError(
                f"the model is bound to a {type(bound[0]).__name__} already; "
                f"a second mutator ({type(mutator).__name__}) cannot be bound to it",
                hint="call unbind() on the first one",
            )
        self.mutator = mutator
        self.model = model
        self.tree = parse(model)
        self.groups: dict[str, list[AnyChoice]] = {}
        for mutable in self.tree.traverse(deduplicate=False):
            if isinstance(mutable, LayerChoice | InputChoice):
                self.groups.setdefault(mutable.key, []).append(mutable)
        self.choices = {key: group[0] for key, group in self.groups.items()}
        self.calls: list[Forward] = []
        self.decision: Mapping[str, Tensor] = {}
        self.made: dict[object, Any] = {}
        self._slots: dict[AnyChoice, int] = {}
        self._plans: dict[AnyChoice, Plan] = {}
        self._space: SearchSpace | None = None
        self._routes: tuple[dict[str, list[Route]], dict[str, list[AnyChoice]]] | None = None

    def attach(self) -> None:
        """Bind every mutable; nothing is decided yet."""
        for mutable in self.tree.traverse(deduplicate=False):
            mutable.set_mutator(self.mutator)
        for slot, choice in enumerate(itertools.chain(*self.groups.values())):
            self._slots[choice] = slot
            self.calls.append(self._undecided(choice))
            choice.take_calls(self.calls, slot)

    def _undecided(self, choice: AnyChoice) -> Forward:
        """Return the call of a choice for which nothing else was decided: the mutator's overridable methods."""
        mutator, is_layer = self.mutator, isinstance(choice, LayerChoice)

        def call(*args: Any, **kwargs: Any) -> Any:
            forward: Forward = mutator.on_forward_layer_choice if is_layer else mutator.on_forward_input_choice
            output, mask = forward(choice, *args, **kwargs)
            return (output, mask) if choice.return_mask else output

        return call

    def detach(self) -> None:
        """Free the model for another mutator."""
        for mutable in self.tree.traverse(deduplicate=False):
            mutable.release()

    @property
    def space(self) -> SearchSpace:
        """The search space of the model."""
        if self._space is None:
            self._space = SearchSpace(choice.choice for choice in self.choices.values())
        return self._space

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
            return tensor.device
        return torch.device("cpu")

    # ---- deciding

    def decide(self, decided: Mapping[str, Any], source: Callable[[], str]) -> None:
        """Make the model what was decided, until the next time.

        Args:
            decided: key -> mask, one entry a candidate, in any of the forms that ``as_masks`` takes.
            source: names what decided, for errors.

        Raises:
            DecisionError: it does not fit the model; the old decision stays.
        """
        enter = getattr(decided, "enter", None)  # isinstance of an abstract class would take longer than all the rest
        if enter is not None and enter(self):
            self.decision = decided
        else:
            self._decide_by_masks(decided, source())

    def _decide_by_masks(self, decided: Mapping[str, Any], source: str) -> None:
        masks, values = as_masks(decided, self.choices, source)
        device = self.device
        masks = {key: mask.to(device) for key, mask in masks.items()}
        with self._kept_on_failure():
            for key, mask in masks.items():
                chosen = tuple(index for index, value in enumerate(values[key]) if value)
                for choice in self.groups[key]:
                    if mask.dtype == torch.bool:
                        self.install(choice, hard_plan(choice, chosen, mask))
                    else:
                        self.install(choice, soft_plan(choice, values[key], mask))
        self.decision = masks

    def decide_hard(self, decisions: Mapping[str, Decision]) -> None:
        """Let the chosen candidates run; no tensor is made unless a choice returns its mask.

        Args:
            decisions: key -> indices of the chosen candidates.

        Raises:
            DecisionError: a candidate is gone, or there is none of that key or index; the old decision stays.
        """
        direct, indirect = self.routes
        calls = self.calls.copy()
        planned: list[tuple[AnyChoice, Decision]] = []
        try:
            for key, decision in decisions.items():
                if len(decision) == 1:
                    index = decision[0]
                    for slot, runs in direct[key]:
                        calls[slot] = runs[index]
                    choices = indirect[key]
                else:
                    choices = self.groups[key]
                if choices:
                    planned += [(choice, decision) for choice in choices]
            plans = [
                (choice, hard_plan(choice, decision, hard_mask(decision, len(choice), self.device)))
                for choice, decision in planned
            ]
        except (IndexError, KeyError) as error:
            raise DecisionError("the decisions name a key or a candidate that the model does not have") from error
        with self._kept_on_failure() if plans else nullcontext():
            self.calls[:] = calls
            for choice, plan in plans:
                self.install(choice, plan)

    def install(self, choice: AnyChoice, plan: Plan) -> None:
        """Let one choice run ``plan``."""
        mutator = self._deciding
        plan = Plan(mutator.adapt(choice, plan.run), plan.mask)
        self._plans[choice] = plan
        if not mutator.takes_over(choice):
            self.calls[self._slots[choice]] = plan.run_with_mask if choice.return_mask else plan.run

    def plan_of(self, choice: AnyChoice) -> Plan:
        """The plan that was installed last at one choice.

        Raises:
            BindingError: none was.
        """
        if choice not in self._plans:
            raise choice._unready()
        return self._plans[choice]

    @property
    def routes(self) -> tuple[dict[str, list[Route]], dict[str, list[AnyChoice]]]:
        """For each key: where the call of one chosen candidate can be stored as it is, and where it takes a plan."""
        if self._routes is None:
            direct: dict[str, list[Route]] = {key: [] for key in self.groups}
            indirect: dict[str, list[AnyChoice]] = {key: [] for key in self.groups}
            for key, group in self.groups.items():
                for choice in group:
                    if isinstance(choice, LayerChoice) and self._takes_one_as_it_is(choice):
                        adapt = self._deciding.adapt
                        runs = [adapt(choice, direct_call(candidate)) for candidate in choice.candidates]
                        direct[key].append((self._slots[choice], runs))
                    else:
                        indirect[key].append(choice)
            self._routes = (direct, indirect)
        return self._routes

    def _takes_one_as_it_is(self, choice: LayerChoice) -> bool:
        is_plain = not choice.return_mask and choice.reduction != "none" and None not in choice.candidates
        return is_plain and not self._deciding.takes_over(choice)

    @property
    def _deciding(self) -> Mutator:
        """The mutator, as one that decides by masks; no other asks for decisions."""
        return self.mutator  # type: ignore[return-value]

    @property
    def is_taken_over(self) -> bool:
        """True if the mutator's class must be called in forward passes, whatever is decided."""
        return self._deciding.takes_over_forward

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put back after the block what was decided before it."""
        calls, plans, decision = list(self.calls), dict(self._plans), self.decision
        try:
            yield
        finally:
            if isinstance(decision, Decided):
                decision.install(self)  # what its calls read, such as weights, may be that of another one now
            self.calls[:] = calls
            self._plans = plans
            self.decision = decision

    @contextmanager
    def _kept_on_failure(self) -> Iterator[None]:
        """Put back what was decided before the block if it fails in the middle of deciding."""
        calls, plans = list(self.calls), dict(self._plans)
        try:
            yield
        except BaseException:
            self.calls[:] = calls
            self._plans = plans
            raise

    # ---- changes

    def candidates_changed(self, choice: LayerChoice) -> None:
        """Forget all that depends on the candidates; what the choice would run may be gone, so it is undecided."""
        self._space = None
        self._routes = None
        self._plans.pop(choice, None)
        self.choices = dict(self.choices)  # what was decided among the old candidates is not of this binding any more
        self.decision = {}
        self.made.clear()
        self.calls[self._slots[choice]] = self._undecided(choice)


class per_binding(Generic[M, T]):
    """Something that a mutator makes of the model it is bound to, when it is first asked for it.

    It is kept in the binding until candidates change or ``forget``; a copy of the mutator makes its own.
    """

    def __init__(self, make: Callable[[M], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, mutator: None, owner: type[M]) -> per_binding[M, T]: ...

    @overload
    def __get__(self, mutator: M, owner: type[M]) -> T: ...

    def __get__(self, mutator: M | None, owner: type[M]) -> T | per_binding[M, T]:
        if mutator is None:
            return self
        made = mutator.binding.made
        try:
            value: T = made[self]
        except KeyError:
            try:
                value = made[self] = self._make(mutator)
            except AttributeError as error:  # nn.Module would say that there is no such attribute as this one
                raise RuntimeError(f"AttributeError: {error}").with_traceback(error.__traceback__) from error
        return value

    def renew(self, mutator: M) -> T:
        """Make it anew now."""
        self.forget(mutator)
        return self.__get__(mutator, type(mutator))

    def forget(self, mutator: M) -> None:
        """Make it anew the next time."""
        if mutator.is_bound:
            mutator.binding.made.pop(self, None)


class Decided(MutableMapping[str, Tensor]):
    """Masks by key that are made only if somebody looks, and a quicker way into the model.

    Once somebody has looked they are an ordinary mapping of masks, which may be changed.

    Args:
        choices: of the binding that it is made for, as they are now.
    """

    _masks: dict[str, Tensor] | None = None

    def __init__(self, choices: Mapping[str, AnyChoice]) -> None:
        self._choices = choices

    def enter(self, binding: Binding) -> bool:
        """Take the quicker way into the model, and return true, if that leads to what the masks say.

        It does not where somebody has seen them, in another model, or after candidates have changed.
        """
        return self._masks is None and self._choices is binding.choices and self.install(binding)

    @abstractmethod
    def install(self, binding: Binding) -> bool:
        """Make the model what was decided; false if only the masks can say it there."""

    @abstractmethod
    def mask(self, key: str) -> Tensor:
        """The mask ``[n]`` of a key."""

    def decided_keys(self) -> Iterable[str]:
        """The keys that have a decision: all of them."""
        return self._choices

    def _all(self) -> dict[str, Tensor]:
        if self._masks is None:
            self._masks = {key: self.mask(key) for key in self.decided_keys()}
        return self._masks

    def __getitem__(self, key: str) -> Tensor:
        return self._all()[key]

    def __setitem__(self, key: str, mask: Tensor) -> None:
        self._all()[key] = mask

    def __delitem__(self, key: str) -> None:
        del self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def copy(self) -> dict[str, Tensor]:
        """The masks as a dictionary."""
        return dict(self._all())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._all(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self._all()}


class HardDecisions(Decided):
    """The indices of the chosen candidates of each key."""

    def __init__(self, choices: Mapping[str, AnyChoice], decisions: Mapping[str, Decision]) -> None:
        super().__init__(choices)
        self.decisions = decisions

    def decided_keys(self) -> Iterable[str]:
        """The keys that have a decision."""
        return self.decisions

    def mask(self, key: str) -> Tensor:
        return hard_mask(self.decisions[key], len(self._choices[key]), torch.device("cpu"))

    def install(self, binding: Binding) -> bool:
        binding.decide_hard(self.decisions)
        return True
