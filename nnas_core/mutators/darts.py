"""Mix all candidates by a softmax, and train mixture and weights in turn on two halves of the data.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", arXiv:1806.09055.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.errors import UsageError
from nnas_core.mutables.choices import InputChoice
from nnas_core.mutables.nested import copied
from nnas_core.mutables.plans import hard_mask
from nnas_core.mutables.untouched import own_buffers
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.gradients import differentiating
from nnas_core.training.optimizers import State
from nnas_core.training.task import Batch
from nnas_core.training.unrolling import (
    VirtualStep,
    frozen,
    holding,
    require_twice_differentiable,
    require_unrollable,
    trained_by,
    virtual_step,
)

__all__ = ["DartsMutator", "DartsTrainer"]

_PAPER_EPSILON = 0.01


class DartsTrainer(BilevelTrainer):
    """Algorithm 1 of the paper: the architecture follows the held-out loss, at the weights of now or after one step.

    The second order differentiates ``L_valid(w', a)`` in the architecture ``a``, where ``w'`` is where the optimizer
    of the weights would get with the gradient ``g(a)`` of ``L_train(w, a)`` in ``w``: by the learning rate of the
    moment, momentum, weight decay, each group with its own numbers, but without clipping, as in the paper. With
    ``u = (dw'/dg)^T grad_w' L_valid(w', a)`` (a plain step: ``dw'/dg = -learning rate``) that derivative is

        ``grad_a L_valid(w', a) + grad_a <u, g(a)>``

    The last term is a second derivative (``exact``), or the difference of ``grad_a L_train`` at ``w + e u`` and
    ``w - e u``, divided by ``2 e`` (``finite``, equation 8).

    In either order, the architecture's half leaves weights, buffers and the optimizer of the weights as they were, to
    the bit: statistics of BatchNorm come from the weights' half alone. All passes start from the same buffers. Those
    on the training batch draw the same random numbers (dropout), or their difference would be mostly noise; what is
    drawn later is the same with ``exact`` and ``finite``.

    With a mutator that has no ``order``, the first is taken.
    """

    _is_twice_differentiable = False  # as far as is known

    def build_optimizers(self) -> None:
        """Make both optimizers.

        Raises:
            UserCodeError: the second order is asked for, and that of the weights cannot be unrolled.
        """
        super().build_optimizers()
        if self._order == 2:
            require_unrollable(self.optimizer, self.task.user.reference)

    @property
    def _order(self) -> int:
        return getattr(self.searching, "order", 1)  # this loop trains other mutators too

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> Sequence[Tensor | None]:
        """The gradient of the held-out loss in ``architecture_parameters``, of the mutator's order.

        Raises:
            NoResultError: a loss is not finite.
            UserCodeError: the model cannot be differentiated, or not twice.
        """
        with own_buffers(self.model) as renew_buffers:
            if self._order == 1:
                return super().architecture_gradients(batch, held_out)
            return self._unrolled_gradients(batch, held_out, renew_buffers)

    def _unrolled_gradients(
        self, batch: Batch, held_out: Batch, renew_buffers: Callable[[], None]
    ) -> Sequence[Tensor | None]:
        exact = self.searching.hypergradient == "exact"
        before = {} if exact else random_state.capture_all(self.generators)
        gradients = self._weight_gradients(batch, exact)
        step = virtual_step(self.optimizer, gradients)
        renew_buffers()
        direct, pulls = self._held_out_gradients(step, held_out)
        pulled = step.pulled_back(pulls)
        if exact:
            further = self._second_derivative(gradients, pulled)
        else:
            with random_state.untouched(self.generators):
                further = self._difference(batch, pulled, before, renew_buffers)
        return [_added(*pair) for pair in zip(direct, further, strict=True)]

    def _weight_gradients(self, batch: Batch, twice: bool) -> dict[Tensor, Tensor]:
        """The gradient of the training loss in each weight that it depends on; ``twice``: differentiable."""
        network = self.network
        if twice:
            self.network = self.model  # what torch.compile makes cannot be differentiated twice
        try:
            with torch.set_grad_enabled(twice):
                self.searching.reset()
            loss = self.loss_of(copied(batch))[0]  # the same batch is run again
        finally:
            self.network = network
        self.require_finite(loss, "loss")
        weights = trained_by(self.optimizer)
        with differentiating():
            found: Sequence[Tensor | None] = torch.autograd.grad(loss, weights, create_graph=twice, allow_unused=True)
        return {weight: gradient for weight, gradient in zip(weights, found, strict=True) if gradient is not None}

    def _held_out_gradients(
        self, step: VirtualStep, held_out: Batch
    ) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """The gradients of the held-out loss after a virtual step, in the architecture and in the weights."""
        with holding(step.weights, step.moved):
            self.searching.reset()
            loss = self.loss_of(held_out)[0]
            self.require_finite(loss, "loss on held-out data after the virtual step")
            parameters = self.architecture_parameters
            with differentiating():
                gradients = torch.autograd.grad(loss, [*parameters, *step.weights], allow_unused=True)
        return gradients[: len(parameters)], gradients[len(parameters) :]

    def _second_derivative(
        self, gradients: Mapping[Tensor, Tensor], pulled: Mapping[Tensor, Tensor]
    ) -> Sequence[Tensor | None]:
        of_architecture = [weight for weight in pulled if gradients[weight].requires_grad]
        if not of_architecture:
            return [None] * len(self.architecture_parameters)
        hint = "use hypergradient=finite, which needs no second derivatives"
        if not self._is_twice_differentiable:
            require_twice_differentiable((gradients[weight] for weight in of_architecture), hint)
            self._is_twice_differentiable = True  # what a model is made of does not change from step to step
        with differentiating("the backward pass cannot be differentiated once more", hint):
            return torch.autograd.grad(
                [gradients[weight] for weight in of_architecture],
                self.architecture_parameters,
                [pulled[weight] for weight in of_architecture],
                allow_unused=True,
            )

    def _difference(
        self,
        batch: Batch,
        pulled: Mapping[Tensor, Tensor],
        random_states: State,
        renew_buffers: Callable[[], None],
    ) -> Sequence[Tensor | None]:
        weights, directions = list(pulled), list(pulled.values())
        norm = torch.stack(torch._foreach_norm(directions)).norm() if weights else torch.zeros(())
        self.require_finite(norm, "gradient of the held-out loss after the virtual step")
        if norm == 0:
            return [None] * len(self.architecture_parameters)
        scale = float(self.searching.epsilon) / norm.item()  # type: ignore[arg-type]  # an option, no submodule
        sides = []
        for signed in (scale, -scale):
            renew_buffers()
            random_state.restore_all(random_states, self.generators)
            shifted = torch._foreach_add([one.detach() for one in weights], directions, alpha=signed)
            with holding(weights, shifted), frozen(self.model):
                self.searching.reset()
                loss = self.loss_of(copied(batch))[0]  # the same batch is run again
                self.require_finite(loss, "loss at shifted weights")
                if not loss.requires_grad:  # it depends on weights alone
                    return [None] * len(self.architecture_parameters)
                with differentiating():
                    sides.append(torch.autograd.grad(loss, self.architecture_parameters, allow_unused=True))
        return [
            None if plus is None or minus is None else (plus - minus) / (2 * scale)
            for plus, minus in zip(*sides, strict=True)
        ]


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class DartsMutator(RelaxedMutator):
    """Weights of candidates: ``softmax(logits)`` (equation 2). All inputs of an InputChoice take part, unweighted.

    The final architecture has the strongest candidate of each LayerChoice, where strength is the candidate's weight
    (that of no candidate, see ``zero``, never wins). An InputChoice with ``n_chosen=k`` gets those k inputs whose tags
    name the strongest LayerChoices (section 2.4); an input whose tag names none has strength 0, and of equally strong
    ones the first win. One that takes any number gets all. Unlike in NNI, a LayerChoice whose output no InputChoice
    takes keeps its strongest candidate, because an architecture has a decision for every key.

    With ``order=2`` take ``hypergradient="exact"`` as long as memory lasts: it has no error beside rounding, and on a
    network like that of NAS-Bench-201 (batch 64) takes 1.05 times the time and 2.1 times the memory of ``finite``, or
    2.6 times the time of a step with ``order=1``. ``finite`` needs no second derivatives, which attention in one kernel
    does not have, for one. But it takes a step over kinks of ReLU and max pooling: on examples/digits, after 0, 15 and
    45 steps of the weights, the paper's ``epsilon`` of 0.01 puts an error of 71, 15 and 3 % on the gradient (median
    of 4 batches, float64 or float32), where all that the second order adds is 130, 49 and 22 % of it. No other length
    is a safe one: 0.1 gives 22, 6 and 3 %, and 1e-3 is worse (170, 21 and 4 %), because each kink then weighs more;
    those that meet no kink (1e-6: 1e-9 in float64) drown in rounding in float32 (9, 4 and 1 %). Under bfloat16
    autocast, steps below 0.01 give noise. Where everything is smooth, the error of 0.01 is below 1e-4.

    Args:
        model: to be bound.
        generator: source of the initial logits, on the CPU; torch's default generator if None.
        order: 1: take the weights as they are; 2: as they are after one step of theirs (needs SGD, Adam or AdamW).
        hypergradient: with order 2, exact or finite differences of length epsilon.
        epsilon: with finite differences, how far the weights are moved to either side: the norm of the shift.
        learning_rate: of Adam, for the logits.
        betas: of Adam.
        weight_decay: of Adam.
        zero: let one more logit a LayerChoice stand for no candidate, as NNI does.

    Raises:
        UsageError: an option is out of range, or would have no effect.
    """

    derives = True

    relaxes_inputs = False
    trainer = DartsTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        order: Literal[1, 2] = 1,
        hypergradient: Literal["exact", "finite"] = "exact",
        epsilon: float = _PAPER_EPSILON,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        zero: bool = True,
    ) -> None:
        if order not in (1, 2):
            raise UsageError(f"order={order!r} is neither 1 nor 2")
        if hypergradient not in ("exact", "finite"):
            raise UsageError(f"hypergradient={hypergradient!r} is neither 'exact' nor 'finite'")
        if not 0 < epsilon < float("inf"):
            raise UsageError(f"epsilon={epsilon} is no length, it must be above 0", hint="the paper has 0.01")
        if order == 1 and hypergradient != "exact":
            raise UsageError(f"hypergradient={hypergradient} has no effect with order=1", hint="give order=2 too")
        if hypergradient == "exact" and epsilon != _PAPER_EPSILON:
            raise UsageError(
                f"epsilon={epsilon} has no effect without finite differences",
                hint="give order=2 and hypergradient=finite too",
            )
        super().__init__(
            model, generator, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay, zero=zero
        )
        self.order = order
        self.hypergradient = hypergradient
        self.epsilon = epsilon

    def relaxed(self) -> Tensor:
        """``softmax(logits)`` ``[K, W]``, the weight that stands for no candidate included."""
        return self.logits.masked_fill(~self.valid, -torch.inf).softmax(dim=1)

    def sample_final(self) -> Mapping[str, Tensor]:
        """The strongest candidates, and the inputs from the strongest LayerChoices."""
        with torch.no_grad():
            weights = self.relaxed().masked_fill(~self.valid, -1.0).tolist()
        strength = {row.key: max(weights[row.index][: row.count]) for row in self.rows}
        final = dict(super().sample_final())
        for mutable in self.choices:
            if isinstance(mutable, InputChoice) and mutable.n_chosen is not None:
                final[mutable.key] = self._strongest(mutable, strength)
        return final

    def _strongest(self, mutable: InputChoice, strength: Mapping[str, float]) -> Tensor:
        order = sorted(range(len(mutable)), key=lambda index: -strength.get(mutable.choose_from[index], 0.0))
        return hard_mask(tuple(sorted(order[: mutable.n_chosen])), len(mutable), torch.device("cpu"))
