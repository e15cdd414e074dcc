"""A mutator is bound to one model and decides, at every reset, which architecture the model is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.base import Forward, Mutable, MutableScope
from nnas_core.mutables.binding import Binding, HardDecisions
from nnas_core.mutables.bound import Bound
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.plans import as_masks
from nnas_core.mutables.tree import MutableTree
from nnas_core.plain_optimizers import Adam
from nnas_core.space.architecture import Architecture
from nnas_core.space.choice import Decision
from nnas_core.space.region import Region
from nnas_core.space.search_space import SearchSpace

__all__ = ["BaseMutator", "Mutator", "require_dense"]

_DRAWS = 10
"""Of an algorithm, that may be beyond constraints, before one within them is drawn uniformly."""


class BaseMutator(Bound):
    """Finds the mutables of a model and takes over their forward passes.

    A subclass overrides ``on_forward_layer_choice`` and ``on_forward_input_choice``; most algorithms want ``Mutator``.

    Args:
        model: bound for life, or until ``unbind``; its weights are not the mutator's.

    Raises:
        SpaceError: the mutables make no search space; every problem is listed.
        BindingError: the model is bound to another mutator.
    """

    def _bound_to(self, model: nn.Module) -> Binding:
        return Binding(self, model)

    @property
    def mutables(self) -> MutableTree:
        """The tree of mutables; iterating gives each key once, scopes included."""
        return self.binding.tree

    @property
    def undedup_mutables(self) -> Iterator[Mutable]:
        """Every mutable, equal keys as often as they occur."""
        return self.binding.tree.traverse(deduplicate=False)

    @property
    def choices(self) -> list[AnyChoice]:
        """The first LayerChoice or InputChoice of each key, in the order of ``mutables``."""
        return list(self.binding.choices.values())

    @property
    def space(self) -> SearchSpace:
        """The search space of the model."""
        return self.binding.space

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: object, **kwargs: object) -> tuple[Any, Any]:
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
        self.binding.candidates_changed(mutable)

    def export(self) -> dict[str, Tensor]:
        """The final architecture."""
        raise NotImplementedError(f"{type(self).__name__} must define export")

    def forward(self, *inputs: Any) -> Any:
        """A mutator has no forward pass."""
        raise RuntimeError("Forward is undefined for mutators: call the model")


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

    has_fixed_graph: ClassVar[bool] = False
    """True if, where all candidates run, forward passes differ in nothing but weights: the model can be compiled."""

    progress: float = 0.0

    serves_any_reduction: ClassVar[bool] = True
    """False if some reductions of choices cannot be served, because more runs than what is chosen."""

    draws_uniformly: ClassVar[bool] = False
    """True if nothing is learnt: all candidates are drawn equally often."""

    derives: bool = False
    """True if a search hands out the best of many estimates with inherited weights, not what the algorithm says.

    For algorithms whose aim is the metric alone, and that gain by it on spaces whose truth is known.
    """

    generator: torch.Generator | None = None
    """The source of what the algorithm draws, on the CPU; None: torch's default generator."""

    samples_within: ClassVar[bool] = False
    """True if, in a search with constraints, every draw meets them; else what is handed out is chosen to."""

    region: Region | None = None
    """The architectures that a search with constraints may hand out; None: all."""

    _has_own_layer_forward: ClassVar[bool] = False
    _has_own_input_forward: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._has_own_layer_forward = cls.on_forward_layer_choice is not Mutator.on_forward_layer_choice
        cls._has_own_input_forward = cls.on_forward_input_choice is not Mutator.on_forward_input_choice

    def takes_over(self, choice: AnyChoice) -> bool:
        """True if the class has an ``on_forward_...`` of its own, which must be called whatever is decided there."""
        return self._has_own_layer_forward if isinstance(choice, LayerChoice) else self._has_own_input_forward

    @property
    def takes_over_forward(self) -> bool:
        """True if the class takes over choices of any kind."""
        return self._has_own_layer_forward or self._has_own_input_forward

    def adapt(self, choice: AnyChoice, run: Forward) -> Forward:
        """Return what runs at ``choice`` where ``run`` was decided; an algorithm may do something around it."""
        return run

    @property
    def is_dense(self) -> bool:
        """True if every forward pass runs all candidates, by the same graph with other weights."""
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
        return Adam(parameters, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

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
        self.binding.decide(self.sample_search(), self._source)

    def _source(self) -> str:
        return f"{type(self).__name__}.sample_search"

    def apply_architecture(self, architecture: Architecture) -> None:
        """Make the model ``architecture``, hard or weighted, until the next reset.

        Raises:
            ArchitectureError: it does not fit the model.
        """
        self.space.validate(architecture)
        if architecture.is_hard:
            self.decide(architecture.indices())
        else:
            self.binding.decide(architecture.masks(), lambda: "the architecture")

    def decide(self, decisions: Mapping[str, Decision]) -> None:
        """Make the model one hard architecture; no tensor is made unless a mutable returns its mask.

        Args:
            decisions: key -> indices of the chosen candidates, as ``Architecture.indices`` gives them.
        """
        self.binding.decide(self.hard(decisions), lambda: "the decisions")

    def hard(self, decisions: Mapping[str, Decision]) -> HardDecisions:
        """Masks of indices: what ``sample_search`` of an algorithm that runs single paths may return."""
        return HardDecisions(self.binding.choices, decisions)

    def on_forward_layer_choice(self, mutable: LayerChoice, *args: object, **kwargs: object) -> tuple[Any, Any]:
        return self.binding.plan_of(mutable).run_with_mask(*args, **kwargs)

    def on_forward_input_choice(self, mutable: InputChoice, tensor_list: list[Any]) -> tuple[Any, Any]:
        return self.binding.plan_of(mutable).run_with_mask(tensor_list)

    @property
    def _cache(self) -> dict[str, Tensor]:
        """The current decision as masks on the model's device; NNI's subclasses read it under this name."""
        device = self.binding.device
        return {key: mask.to(device) for key, mask in self.binding.decision.items()}

    def status(self) -> dict[str, list[float]]:
        """The current decision as numbers, one a candidate."""
        return {key: mask.float().tolist() for key, mask in self._cache.items()}

    def decision_weights(self) -> Mapping[str, Sequence[float]] | None:
        """What the algorithm has learnt of each candidate so far: a search records it after each epoch.

        It must leave all random states alone.

        Returns:
            key -> a number a candidate; where one is taken the probability that it is this one, else that it is
            among those that are taken. Keys of which nothing is learnt are left out. None: nothing is learnt at all.
        """
        return None

    def export(self) -> dict[str, Tensor]:
        """The final architecture: key -> mask; the model stays as it is.

        Raises:
            DecisionError: ``sample_final`` returned what does not fit the model.
        """
        binding = self.binding
        return as_masks(self.sample_final(), binding.choices, f"{type(self).__name__}.sample_final")[0]

    def keep_within(self, region: Region) -> None:
        """Receives the architectures that a search with constraints may hand out; called before anything is drawn.

        An algorithm that runs single paths draws them from ``region``, see ``draw_within``. Of others ``accepts`` says
        which of their architectures count.
        """
        self.region = region

    def draw_within(self, draw: Callable[[], dict[str, Decision]]) -> dict[str, Decision]:
        """A draw that is in the region, if there is one: the first of a few, or one of all of its architectures."""
        region = self.region
        if region is None:
            return draw()
        for _ in range(_DRAWS):
            decisions = draw()
            if region.codes.code(decisions) in region:
                return decisions
        seed = int(torch.randint(2**62, (), generator=self.generator, device="cpu"))
        return region.codes.decisions(region.draw(np.random.default_rng(seed)))

    def accepts(self, architecture: Architecture) -> bool:
        """True if ``architecture`` keeps the limits that a search was given: it may hand it out."""
        region = self.region
        return region is None or (architecture.is_hard and region.codes.code(architecture.indices()) in region)

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
