"""A mutator is bound to one model and decides, at every reset, which architecture the model is."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.choices import InputChoice, LayerChoice, Mutable, MutableScope
from nnas_core.mutables.plans import Plan, as_masks, hard_mask, hard_plan, soft_plan
from nnas_core.mutables.tree import MutableTree, parse
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.search_space import SearchSpace

__all__ = ["BaseMutator", "Direct", "Mutator", "require_dense"]

# What a mutator knows of its model. It is never registered, so the model's weights are not the mutator's.
_DERIVED = ("_tree", "_choices", "_shared", "_calls", "_space", "_current", "_routes_cache")

Direct = tuple[int, list[nn.Module]]
"""The slot of a LayerChoice and its candidates: storing one of them there decides it."""


class _ReleasedOnFailure(type):
    """Classes whose constructor, where it refuses the model after it was bound, leaves it free for another mutator."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made: Any = object.__new__(cls)  # type: ignore[arg-type]  # a class, though mypy sees a metaclass
        try:
            made.__init__(*args, **kwargs)
        except BaseException:
            if "model" in made.__dict__:
                made.unbind()
            raise
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor: arguments are checked by it, and ``__call__`` above would hide it."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]  # of this class, not of an instance of another
        return own.replace(parameters=list(own.parameters.values())[1:])


class BaseMutator(nn.Module, metaclass=_ReleasedOnFailure):
    """Finds the mutables of a model and takes over their forward passes.

    A subclass overrides ``on_forward_layer_choice`` and ``on_forward_input_choice``; most algorithms want ``Mutator``.

    Args:
        model: bound for life, or until ``unbind``.

    Raises:
        SpaceError: the mutables make no search space; every problem is listed.
        BindingError: the model is bound to another mutator.
    """

    model: nn.Module
    _calls: list[Callable[..., Any]]
    _tree: MutableTree
    _shared: dict[str, list[LayerChoice | InputChoice]]
    _choices: dict[str, LayerChoice | InputChoice]
    _space: SearchSpace

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._bind(model)

    def _bind(self, model: nn.Module) -> None:
        bound = [module for module in model.modules() if isinstance(module, Mutable) and module.is_bound]
        if bound:
            raise BindingError(
                f"the model is bound to a {type(bound[0]._mutator).__name__} already; "
                f"a second mutator ({type(self).__name__}) cannot be bound to it",
                hint="call unbind() on the first one",
            )
        tree = parse(model)
        everything = list(tree.traverse(deduplicate=False))
        shared: dict[str, list[LayerChoice | InputChoice]] = {}
        for mutable in everything:
            if isinstance(mutable, LayerChoice | InputChoice):
                shared.setdefault(mutable.key, []).append(mutable)
        state = self.__dict__
        state["model"] = model
        state["_tree"] = tree
        state["_shared"] = shared
        state["_choices"] = {key: group[0] for key, group in shared.items()}
        calls: list[Callable[..., Any]] = []
        state["_calls"] = calls
        for mutable in everything:
            mutable.set_mutator(self)
        for mutable in itertools.chain(*shared.values()):
            mutable.__dict__.update(_calls=calls, _slot=len(calls))
            calls.append(self._undecided(mutable))

    def unbind(self) -> None:
        """Free the model for another mutator; this one is of no use afterwards."""
        self._require_bound()
        for mutable in self._tree.traverse(deduplicate=False):
            mutable.release()
        for name in ("model", *_DERIVED):
            self.__dict__.pop(name, None)

    def _require_bound(self) -> None:
        if "model" not in self.__dict__:
            raise BindingError(
                f"this {type(self).__name__} is bound to no model", hint="make a new mutator for the model"
            )

    @property
    def mutables(self) -> MutableTree:
        """The tree of mutables; iterating gives each key once, scopes included."""
        self._require_bound()
        return self._tree

    @property
    def undedup_mutables(self) -> Iterator[Mutable]:
        """Every mutable, equal keys as often as they occur."""
        return self.mutables.traverse(deduplicate=False)

    @property
    def choices(self) -> list[LayerChoice | InputChoice]:
        """The first LayerChoice or InputChoice of each key, in the order of ``mutables``."""
        self._require_bound()
        return list(self._choices.values())

    @property
    def space(self) -> SearchSpace:
        """The search space of the model."""
        self._require_bound()
        if "_space" not in self.__dict__:
            self.__dict__["_space"] = SearchSpace(mutable.choice for mutable in self.choices)
        return self._space

    def _undecided(self, mutable: LayerChoice | InputChoice) -> Callable[..., Any]:
        """What a mutable calls while nothing else was decided: the overridable methods."""
        if isinstance(mutable, LayerChoice):
            return functools.partial(self._forward_layer_choice, mutable)
        return functools.partial(self._forward_input_choice, mutable)

    def _forward_layer_choice(self, mutable: LayerChoice, *args: Any, **kwargs: Any) -> Any:
        output, mask = self.on_forward_layer_choice(mutable, *args, **kwargs)
        return (output, mask) if mutable.return_mask else output

    def _forward_input_choice(self, mutable: InputChoice, inputs: list[Any]) -> Any:
        output, mask = self.on_forward_input_choice(mutable, inputs)
        return (output, mask) if mutable.return_mask else output

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Run a LayerChoice.

        Returns:
            The output, and the mask that ``return_mask`` hands on.
        """
        raise NotImplementedError(f"{type(self).__name__} must define on_forward_layer_choice")

    def on_forward_input_choice(self, mutable: InputChoice, tensor_list: list[Any]) -> tuple[Any, Any]:
        """Run an InputChoice; as ``on_forward_layer_choice``."""
        raise NotImplementedError(f"{type(self).__name__} must define on_forward_input_choice")

    def enter_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """Called before the forward pass of a scope."""

    def exit_mutable_scope(self, mutable_scope: MutableScope) -> None:
        """Called after the forward pass of a scope, also when it failed."""

    def candidates_changed(self, mutable: LayerChoice) -> None:
        """Called when the candidates of a bound LayerChoice were replaced or deleted."""
        self.__dict__.pop("_space", None)

    def export(self) -> dict[str, Tensor]:
        """The final architecture."""
        raise NotImplementedError(f"{type(self).__name__} must define export")

    def forward(self, *inputs: Any) -> Any:
        """A mutator has no forward pass."""
        raise RuntimeError("Forward is undefined for mutators: call the model")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            raise AttributeError("a mutator is bound to one model for life; make another one for another model")
        super().__setattr__(name, value)

    # A copy of a mutator comes with a copy of its model, bound to it.

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        model = state.pop("model", None)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if model is not None:
            self._bind(model)

    def __deepcopy__(self, memo: dict[int, Any]) -> BaseMutator:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin


class Mutator(BaseMutator):
    """Decides by masks: ``reset()`` asks ``sample_search()`` once, and the answer holds until the next reset.

    A subclass defines ``sample_search`` and ``sample_final``; both return key -> mask, one entry a candidate:
    bool (true: chosen) or floating (the candidate's weight; zero: it is not run). Tensors, arrays, lists and
    tuples are accepted.

    Attributes:
        progress: how much of the training is done, 0 to 1; the trainer sets it before every step, so a schedule can
            be a function of it.
    """

    trainer: ClassVar[type[Any] | None] = None
    """The ``Trainer`` that this algorithm needs; None for the plain loop."""

    progress: float = 0.0

    has_fixed_graph: ClassVar[bool] = False
    """Whether forward passes differ in nothing but weights, so that the model can be compiled."""

    @property
    def is_dense(self) -> bool:
        """Whether every forward pass runs all candidates, by the same graph with other weights."""
        return False

    def recompute(self) -> None:
        """Keep no activations of candidates: run each LayerChoice once more in the backward pass.

        Raises:
            UsageError: this algorithm does not run all candidates.
        """
        require_dense(self, "recompute")
        raise NotImplementedError(f"{type(self).__name__} must define recompute")

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the mutator's own parameters, for trainers that train them: Adam, as in DARTS.

        Raises:
            BindingError: there are none.
        """
        parameters = [one for one in self.parameters() if one.requires_grad]
        if not parameters:
            raise BindingError(
                f"{type(self).__name__} has no parameters to train",
                hint="use a trainer that trains the model alone, or give the mutator an nn.Parameter",
            )
        return torch.optim.Adam(parameters, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def sample_search(self) -> Mapping[str, Any]:
        """The masks for the next training steps."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_search")

    def sample_final(self) -> Mapping[str, Any]:
        """The masks of the architecture to keep."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_final")

    def reset(self) -> None:
        """Decide anew.

        Raises:
            DecisionError: ``sample_search`` returned what does not fit the model; the old decision stays.
        """
        self._require_bound()
        self._apply_masks(self.sample_search(), f"{type(self).__name__}.sample_search")

    def apply_architecture(self, architecture: Architecture) -> None:
        """Make the model ``architecture``, hard or weighted, until the next reset.

        Raises:
            ArchitectureError: it does not fit the model.
        """
        self.space.validate(architecture)
        if architecture.is_hard:
            self.decide(architecture.indices())
        else:
            self._apply_masks(architecture.masks(), "the architecture")

    def _apply_masks(self, decisions: Mapping[str, Any], source: str) -> None:
        masks, values = as_masks(decisions, self._choices, source)
        device = self._device()
        for key, mask in masks.items():
            on_device = mask.to(device)
            for mutable in self._shared[key]:
                if mask.dtype == torch.bool:
                    chosen = tuple(index for index, value in enumerate(values[key]) if value)
                    plan = hard_plan(mutable, chosen, on_device)
                else:
                    plan = soft_plan(mutable, values[key], on_device)
                self._install(mutable, plan)
        self.__dict__["_current"] = {key: mask.to(device) for key, mask in masks.items()}

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Make the model one hard architecture; no tensor is made unless a mutable returns its mask.

        Args:
            decisions: key -> indices of the chosen candidates, as ``Architecture.indices`` gives them.
        """
        self._require_bound()
        direct, indirect = self._routes()
        for key, decision in decisions.items():
            if len(decision) == 1:
                index = decision[0]
                for slot, candidates in direct[key]:
                    self._calls[slot] = candidates[index]
                rest = indirect[key]
            else:
                rest = self._shared[key]
            for mutable in rest:
                mask = hard_mask(decision, len(mutable), self._device())
                self._install(mutable, hard_plan(mutable, decision, mask))
        self.__dict__["_current"] = decisions

    def _routes(self) -> tuple[dict[str, list[Direct]], dict[str, list[LayerChoice | InputChoice]]]:
        """For each key: where one chosen candidate can be stored as it is, and where it takes a plan."""
        if "_routes_cache" not in self.__dict__:
            direct: dict[str, list[Direct]] = {key: [] for key in self._shared}
            indirect: dict[str, list[LayerChoice | InputChoice]] = {key: [] for key in self._shared}
            for key, group in self._shared.items():
                for mutable in group:
                    special = mutable.return_mask or mutable.reduction == "none" or self._overrides_forward(mutable)
                    if isinstance(mutable, LayerChoice) and not special and None not in mutable.candidates:
                        direct[key].append((mutable._slot, mutable.candidates))
                    else:
                        indirect[key].append(mutable)
            self.__dict__["_routes_cache"] = (direct, indirect)
        routes: tuple[dict[str, list[Direct]], dict[str, list[LayerChoice | InputChoice]]]
        routes = self.__dict__["_routes_cache"]
        return routes

    def candidates_changed(self, mutable: LayerChoice) -> None:
        super().candidates_changed(mutable)
        self.__dict__.pop("_routes_cache", None)
        if not self._overrides_forward(mutable):  # what it would run may be gone; the next reset decides anew
            self._calls[mutable._slot] = self._undecided(mutable)
        mutable.__dict__.pop("_plan", None)

    def _install(self, mutable: LayerChoice | InputChoice, plan: Plan) -> None:
        mutable.__dict__["_plan"] = plan
        if not self._overrides_forward(mutable):
            self._calls[mutable._slot] = plan.run_with_mask if mutable.return_mask else plan.run

    def _overrides_forward(self, mutable: LayerChoice | InputChoice) -> bool:
        own = type(self)
        if isinstance(mutable, LayerChoice):
            return own.on_forward_layer_choice is not Mutator.on_forward_layer_choice
        return own.on_forward_input_choice is not Mutator.on_forward_input_choice

    @property
    def _takes_over_forward(self) -> bool:
        own = type(self)
        layers = own.on_forward_layer_choice is not Mutator.on_forward_layer_choice
        return layers or own.on_forward_input_choice is not Mutator.on_forward_input_choice

    def _device(self) -> torch.device:
        for parameter in self.model.parameters():
            return parameter.device
        for buffer in self.model.buffers():
            return buffer.device
        return torch.device("cpu")

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return self._plan_of(mutable).run_with_mask(*args, **kwargs)

    def on_forward_input_choice(self, mutable: InputChoice, tensor_list: list[Any]) -> tuple[Any, Any]:
        return self._plan_of(mutable).run_with_mask(tensor_list)

    def _plan_of(self, mutable: LayerChoice | InputChoice) -> Plan:
        plan: Plan | None = mutable.__dict__.get("_plan")
        if plan is None:
            raise mutable._unready()
        return plan

    @property
    def _cache(self) -> dict[str, Tensor]:
        """The current decision as masks on the model's device; NNI's subclasses read it under this name."""
        current = self.__dict__.get("_current", {})
        device = self._device()
        return {
            key: mask if isinstance(mask, Tensor) else hard_mask(mask, len(self._choices[key]), device)
            for key, mask in current.items()
        }

    def status(self) -> dict[str, list[float]]:
        """The current decision as numbers, one a candidate."""
        return {key: mask.float().tolist() for key, mask in self._cache.items()}

    def export(self) -> dict[str, Tensor]:
        """The final architecture: key -> mask; the model stays as it is.

        Raises:
            DecisionError: ``sample_final`` returned what does not fit the model.
        """
        self._require_bound()
        return as_masks(self.sample_final(), self._choices, f"{type(self).__name__}.sample_final")[0]

    def final_architecture(self) -> Architecture:
        """``export()`` as an ``Architecture``: plain data that can be written to a file."""
        return self.space.parse({key: mask.tolist() for key, mask in self.export().items()})


def require_dense(mutator: Mutator, parameter: str) -> None:
    """Refuse an option that needs one fixed graph.

    Args:
        mutator: of the search.
        parameter: what was asked for.

    Raises:
        UsageError: ``mutator`` runs only what it chose, or decides in a way of its own.
    """
    if not mutator.is_dense:
        name = type(mutator).__name__
        raise UsageError(
            f"`{parameter}` needs a mutator that weights all candidates in every step, {name} does not",
            hint="leave it out, or use one that does, such as darts",
        )
