"""DARTS with a second network that is the architecture found so far, and that teaches the search what it learns.

Source: Yu, Peng, Huang, Fu, Du, Wang, Ling, "Cyclic Differentiable Architecture Search", arXiv:2006.10724.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core import random_state
from nnas_core.errors import UsageError, UserCodeError
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import copied
from nnas_core.mutables.untouched import own_buffers
from nnas_core.mutators.darts import DartsMutator, DartsTrainer
from nnas_core.plugins.arguments import check_range
from nnas_core.training.bilevel import warmup_of
from nnas_core.training.gradients import differentiating
from nnas_core.training.in_place import repeated_if_changed_in_place
from nnas_core.training.memory_format import laid_out_as, match_layouts
from nnas_core.training.optimizers import State, clip_gradients, optimizer_state
from nnas_core.training.task import Batch

__all__ = ["CdartsMutator", "CdartsTrainer"]

_WARMUP = 2 / 32
"""The part of the training before there is an evaluation network (the authors' code)."""

_REGULARIZED = ("identity", "skip", "pool", "dilconv")


class CdartsTrainer(DartsTrainer):
    """Epochs that train two networks apart, then jointly, as the paper and the authors' code do.

    The search network is the model that is searched, all candidates weighted. The evaluation network is another one of
    the same search space, with weights and an optimizer of its own, made discrete: at the beginning of each epoch it
    becomes the architecture that the mutator would export, and keeps the weights that it has for those candidates.

    An epoch of the warm-up trains the weights of the search network. Every later epoch passes the training data twice.
    The first pass trains the weights of the evaluation network. In the second, for each batch, the logits and the
    weights of the evaluation network make a step against ``joint_losses`` on a batch of held-out data, then the weights
    of the search network one on the training batch.

    Raises:
        BindingError: the mutator is no CdartsMutator, or ``evaluation_arg`` is given and no model can be built.
        UsageError: ``warmup_epochs`` leaves no epoch to search in.
        UserCodeError: the evaluation network has another search space.
    """

    in_stages = True

    def __post_init__(self) -> None:
        mutator = self.cyclic = self.mutator_of(CdartsMutator)
        given = mutator.warmup_epochs
        if given is None:
            given = min(math.ceil(_WARMUP * self.epochs), self.epochs - 1)
        self.warmup = warmup_of(given, _WARMUP, self.epochs)
        self.first_pass = 0  # batches that it had, once it is over
        self.derived: dict[str, list[int]] = {}  # what the evaluation network is
        super().__post_init__()
        arguments = mutator.evaluation_arg
        self.evaluation = copy.deepcopy(self.model) if arguments is None else self.another_model(arguments)
        self.evaluation_mutator = Mutator(self.evaluation)
        self.evaluation_weights = [one for one in self.evaluation.parameters() if one.requires_grad]
        self.evaluation_optimizer = self.task.build_optimizer(self.evaluation_weights)
        steps = 2 * (self.epochs - self.warmup) * len(self.train_batches)
        self.evaluation_scheduler = self.task.build_scheduler(self.evaluation_optimizer, steps)

    # ---- the order of things

    def steps_of(self, epoch: int) -> int:
        return len(self.train_batches) * (1 if epoch < self.warmup else 2)

    @property
    def total_steps(self) -> int:
        return (2 * self.epochs - self.warmup) * len(self.train_batches)

    def start_epoch(self, epoch: int) -> None:
        """Make the evaluation network the architecture of now."""
        super().start_epoch(epoch)
        self.first_pass = 0
        if epoch >= self.warmup:
            decisions = self.cyclic.final_architecture().indices()
            self._derive({key: list(decision) for key, decision in decisions.items()})

    def _derive(self, derived: dict[str, list[int]]) -> None:
        self.derived = derived
        self.evaluation_mutator.decide({key: tuple(decision) for key, decision in derived.items()})
        self.evaluation.train()

    def batches_of(self, epoch: int) -> Iterator[Batch]:
        """Give the rest of one pass over the training data, or of two."""
        if epoch >= self.warmup and self.first_pass == 0:
            yield from super().batches_of(epoch)
            self.first_pass = self.batch
            self._epoch_start = random_state.capture()  # the second pass begins here
        yield from self.batches_after(epoch, self.batch - self.first_pass)

    def train_batch(self, batch: Batch) -> None:
        """A step of the evaluation network in the first pass, of all in the second; of weights in the warm-up."""
        if self.epoch < self.warmup:
            self.weight_step(batch)
        elif self.first_pass == 0:
            self.evaluation_step(batch)
        else:
            super().train_batch(batch)

    # ---- steps

    @repeated_if_changed_in_place
    def evaluation_step(self, batch: Batch) -> None:
        """One update of the evaluation network's weights on a training batch.

        Raises:
            NoResultError: the loss is not finite, or its gradient.
        """
        with self.autocast():
            output, target = self.task.forward_batch(self.evaluation, batch)
            loss = self.task.loss(output, target)
        self.require_finite(loss, "loss of the evaluation network")
        if not loss.requires_grad:  # its derived path has no weights
            return
        with differentiating():
            self._update_evaluation(torch.autograd.grad(loss, self.evaluation_weights, allow_unused=True))

    @repeated_if_changed_in_place
    def architecture_step(self, batch: Batch, held_out: Batch) -> None:
        """One update of the logits and of the evaluation network's weights on held-out data.

        Raises:
            NoResultError: the loss is not finite, or its gradient.
        """
        # the search network's statistics come from its own steps alone
        with self.weights_at_rest(), own_buffers(self.model):
            self.cyclic.reset()
            loss = torch.stack(list(self.joint_losses(held_out).values())).sum()
            self.require_finite(loss, "joint loss on held-out data")
            count = len(self.architecture_parameters)
            with differentiating():
                wanted = [*self.architecture_parameters, *self.evaluation_weights]
                gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        self._update_evaluation(gradients[count:])
        self.update_architecture(gradients[:count])

    def joint_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the joint loss: ``search``, ``evaluation``, ``interaction``, ``regularization``.

        With the loss ``L`` of the task, the losses of both networks are ``L / loss_alpha``, the interaction is
        ``loss_alpha * loss_T^2 * D``, D their divergence, and the regularisation is the sum of the absolute logits of
        ``regularized`` candidates times a coefficient that falls to 0.
        """
        cyclic = self.cyclic
        with self.autocast():
            search, target = self.task.forward_batch(self.network, copied(batch))  # type: ignore[arg-type]
            evaluation, _ = self.task.forward_batch(self.evaluation, batch)
            apart = self.task.loss(search, target), self.task.loss(evaluation, target)
        divergence = cyclic.divergence(_logits(search, self), _logits(evaluation, self))
        absolute = cyclic.logits[cyclic.regularized].abs().sum()
        return {
            "search": apart[0] / cyclic.loss_alpha,
            "evaluation": apart[1] / cyclic.loss_alpha,
            "interaction": divergence * (cyclic.loss_alpha * cyclic.loss_T**2),
            "regularization": absolute * self.regularization(self.epoch),
        }

    def regularization(self, epoch: int) -> float:
        """The coefficient of the regularisation: linearly to 0 in the first ``regular_ratio`` of the search."""
        searched = (epoch - self.warmup) / ((self.epochs - self.warmup) * self.cyclic.regular_ratio)
        return max(self.cyclic.regular_coeff * (1 - searched), 0.0)

    def _update_evaluation(self, gradients: Sequence[Tensor | None]) -> None:
        for weight, gradient in zip(self.evaluation_weights, gradients, strict=True):
            weight.grad = None if gradient is None else laid_out_as(weight, gradient)
        norm = clip_gradients(self.evaluation_weights, self.clip_grad or math.inf)
        self.require_finite(norm, "gradient of the evaluation network")
        self.evaluation_optimizer.step()
        if self.evaluation_scheduler is not None:
            self.evaluation_scheduler.step()
        self.evaluation_optimizer.zero_grad()

    # ---- going on later

    def state_dict(self) -> State:
        own = {
            "model": dict(self.evaluation.state_dict()),
            **optimizer_state(self.evaluation_optimizer, self.evaluation_scheduler),
            "derived": self.derived,
            "first_pass": self.first_pass,
        }
        return {**super().state_dict(), "evaluation": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        own = state["evaluation"]
        self.evaluation.load_state_dict(own["model"])
        self.evaluation_optimizer.load_state_dict(own["optimizer"])
        match_layouts(self.evaluation_optimizer)
        if self.evaluation_scheduler is not None:
            self.evaluation_scheduler.load_state_dict(own["scheduler"])
        self.first_pass = own["first_pass"]
        if own["derived"]:
            self._derive(own["derived"])


def _logits(output: Any, trainer: CdartsTrainer) -> Tensor:
    """The logits of an output, which may have auxiliary ones beside them, in float32 at least."""
    logits = output[0] if isinstance(output, (tuple, list)) and len(output) == 2 else output
    if not isinstance(logits, Tensor) or logits.dim() < 2:
        shape = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"type {type(logits).__name__}"
        raise UserCodeError(
            f"cdarts compares the logits [N, classes, ...] of two networks, and the output has the {shape}",
            where=trainer.task.user.reference,
            hint="let forward_batch() return logits, or (logits, auxiliary logits)",
        )
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


class CdartsMutator(DartsMutator):
    """DARTS whose logits also follow what an evaluation network of the architecture found so far has learned.

    Loss of the logits: see ``CdartsTrainer.joint_losses``. The default numbers are those of the authors' code.

    Args:
        model: to be bound.
        generator: source of the initial logits, on the CPU; torch's default generator if None.
        evaluation_arg: model arguments of the evaluation network, say {"layers": 8}; null: it is a copy of the model.
        warmup_epochs: in which only the search network is trained; null: 1 of 16 epochs (2 of 32), rounded up.
        loss_alpha: how much the interaction counts; the networks' own losses are divided by it. Above 0.
        loss_T: temperature of the logits that are compared. Above 0.
        interactive_type: the divergence: "kl", from the evaluation network's softmax to the search network's, a mean
            over samples; or "smoothl1", of the logits.
        regular_coeff: of the regularisation in the first epoch of the search; 0: none.
        regular_ratio: the part of the search after which there is none; above 0.
        regularized: texts; candidates whose name or class contains one, in any case, are regularised; null: identity,
            skip, pool, dilconv.
        learning_rate: of Adam, for the logits.
        betas: of Adam.
        weight_decay: of Adam.
        zero: let one more logit a LayerChoice stand for no candidate, as NNI does.

    Raises:
        UsageError: an option is out of range, or a text of ``regularized`` is in no candidate.
    """

    trainer = CdartsTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        evaluation_arg: Mapping[str, Any] | None = None,
        warmup_epochs: int | None = None,
        loss_alpha: float = 2.0,
        loss_T: float = 2.0,
        interactive_type: Literal["kl", "smoothl1"] = "kl",
        regular_coeff: float = 5.0,
        regular_ratio: float = 0.2,
        regularized: Sequence[str] | None = None,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-4,
        zero: bool = True,
    ) -> None:
        check_range("loss_alpha", loss_alpha, "(0, inf)")
        check_range("loss_T", loss_T, "(0, inf)")
        check_range("regular_ratio", regular_ratio, "(0, inf)")
        check_range("regular_coeff", regular_coeff, "[0, inf)")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        if interactive_type not in ("kl", "smoothl1"):
            raise UsageError(f"no interactive_type is named {interactive_type!r}", hint="use kl or smoothl1")
        super().__init__(
            model, generator, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay, zero=zero
        )
        self.evaluation_arg = None if evaluation_arg is None else dict(evaluation_arg)
        self.warmup_epochs = warmup_epochs
        self.loss_alpha, self.loss_T, self.interactive_type = loss_alpha, loss_T, interactive_type
        self.regular_coeff, self.regular_ratio = regular_coeff, regular_ratio
        self.regularized: Tensor
        self.register_buffer("regularized", self._regularized(regularized), persistent=False)

    def _regularized(self, given: Sequence[str] | None) -> Tensor:
        """``[K, W]``: which logits are those of candidates that ``given`` describes."""
        mask = torch.zeros_like(self.valid)
        for text in _REGULARIZED if given is None else given:
            found = [
                (row.index, index)
                for row in self.rows
                if isinstance(row.mutable, LayerChoice)
                for index, name in enumerate(row.mutable.names)
                if text.lower() in f"{name} {type(row.mutable.candidates[index]).__name__}".lower()
            ]
            for position in found:
                mask[position] = True
            if given is not None and not found:
                names = sorted({name for row in self.rows for name in row.mutable.choice.candidates})
                raise UsageError(
                    f"regularized has {text!r}, which is in no candidate's name or class",
                    hint=f"candidates are {', '.join(names)}",
                )
        return mask

    def divergence(self, search: Tensor, evaluation: Tensor) -> Tensor:
        """How far the search network's logits ``[N, classes, ...]`` are from those of the evaluation network.

        ``kl``: ``sum p log(p / q) / N`` with ``p, q = softmax(evaluation / T), softmax(search / T)``.
        """
        if self.interactive_type == "smoothl1":
            return F.smooth_l1_loss(search, evaluation)
        log_p = F.log_softmax(evaluation / self.loss_T, dim=1)
        log_q = F.log_softmax(search / self.loss_T, dim=1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
