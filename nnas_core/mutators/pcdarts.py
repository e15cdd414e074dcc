"""DARTS that runs candidates on a part of the channels, and weights the inputs of nodes too.

Source: Xu et al., "PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search", arXiv:1907.05737.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.errors import UsageError, UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.plans import hard_mask
from nnas_core.mutators.darts import DartsMutator, DartsTrainer
from nnas_core.plugins.arguments import check_range
from nnas_core.training.bilevel import warmup_of
from nnas_core.training.task import Batch

__all__ = ["PcdartsMutator", "PcdartsTrainer", "shuffle_channels"]

_PAPER_WARMUP = 15 / 50
"""The part of the training in which the paper leaves the architecture alone."""


class PcdartsTrainer(DartsTrainer):
    """DARTS after some epochs that train the weights alone (the paper: 15 of 50).

    Raises:
        BindingError: the mutator is no PcdartsMutator.
        UsageError: ``warmup_epochs`` leaves no epoch to train the architecture in.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        mutator = self.mutator_of(PcdartsMutator)
        self.warmup = warmup_of(mutator.warmup_epochs, _PAPER_WARMUP, self.epochs)

    def train_batch(self, batch: Batch) -> None:
        """In the warm-up one step of the weights, later one of the architecture before it."""
        if self.epoch < self.warmup:
            self.weight_step(batch)
        else:
            super().train_batch(batch)


class PcdartsMutator(DartsMutator):
    """DARTS whose candidates run on the first 1/k of the channels; the others go past them (section 3.2).

    For an input of C channels (dimension 1), a LayerChoice runs its candidates on channels ``0 .. C/k - 1``, joins the
    mixture with the other channels (max pooled to its size where the candidates reduce it, as the authors' code does),
    and shuffles channels in k groups, so that the next LayerChoice sees others first.

    So build the search's candidates for C/k channels, and the final model's for C: with a model argument that divides
    their width, say ``-a partial=4`` in the search and ``-a partial=1`` when retraining. Keys and candidates are the
    same, so the architecture fits both models; the weights of the search do not fit the final model. LayerChoices whose
    candidates need all channels (a stem, one that changes the number of channels) are named by ``whole``. With
    ``k=1, edge_normalization=False, warmup_epochs=0`` everything is as in ``darts``.

    Edge normalisation (section 3.3): the inputs of an InputChoice are weighted by a softmax of logits of their own, and
    the final architecture has those ``n_chosen`` inputs whose weight times the weight of the best candidate before
    them (1 where the tag names no LayerChoice) is largest. An InputChoice that takes any number keeps all its inputs,
    unweighted, as in ``darts``.

    Args:
        model: to be bound.
        generator: source of the initial logits, on the CPU; torch's default generator if None.
        k: candidates run on one of k parts of the channels; 1: on all.
        edge_normalization: weight the inputs of InputChoices.
        warmup_epochs: in which only weights are trained; null: 3 of 10 epochs, as in the paper (15 of 50).
        whole: keys of LayerChoices whose candidates run on all channels.
        learning_rate: of Adam, for the logits (the paper: 6e-4).
        betas: of Adam.
        weight_decay: of Adam.
        order: 1, as in the paper; 2: take the weights as they are after one step of theirs, exactly, as ``darts`` can.
        zero: let one more logit a LayerChoice stand for no candidate, as NNI does.

    Raises:
        UsageError: ``k`` or ``warmup_epochs`` is out of range, or ``whole`` names no LayerChoice.
    """

    trainer = PcdartsTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        k: int = 4,
        edge_normalization: bool = True,
        warmup_epochs: int | None = None,
        whole: Sequence[str] = (),
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        order: Literal[1, 2] = 1,
        zero: bool = True,
    ) -> None:
        check_range("k", k, "[1, inf)")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        self.edge_normalization = edge_normalization  # asked for while the base class makes the logits
        super().__init__(
            model,
            generator,
            order=order,
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            zero=zero,
        )
        self.k = k
        self.warmup_epochs = warmup_epochs
        layers = [one.key for one in self.choices if isinstance(one, LayerChoice)]
        for key in whole:
            if key not in layers:
                near = difflib.get_close_matches(key, layers, n=1)
                raise UsageError(
                    f"whole names {key!r}, which is no LayerChoice of the model",
                    hint=(f"did you mean {near[0]!r}? " if near else "") + f"it has {', '.join(layers)}",
                )
        self.whole = frozenset(whole)

    def relaxes(self, mutable: LayerChoice | InputChoice) -> bool:
        """LayerChoices, and with edge normalisation InputChoices whose number of inputs is limited."""
        if isinstance(mutable, LayerChoice):
            return True
        return self.edge_normalization and mutable.n_chosen is not None

    # ---- edges

    def sample_final(self) -> Mapping[str, Tensor]:
        """The strongest candidates, and the inputs with the largest product of edge weight and candidate's weight."""
        final = dict(super().sample_final())
        with torch.no_grad():
            weights = self.relaxed().tolist()
        own = {row.key: weights[row.index][: row.count] for row in self.rows}
        best = {row.key: max(own[row.key]) for row in self.rows if isinstance(row.mutable, LayerChoice)}
        for row in self.rows:
            if isinstance(row.mutable, InputChoice):
                tags = row.mutable.choose_from
                strength = [weight * best.get(tag, 1.0) for weight, tag in zip(own[row.key], tags, strict=True)]
                order = sorted(range(row.count), key=lambda index: -strength[index])
                final[row.key] = hard_mask(tuple(sorted(order[: row.n_chosen])), row.count, torch.device("cpu"))
        return final

    # ---- channels

    def adapt(self, choice: AnyChoice, run: Forward) -> Forward:
        """Run candidates on their part of the channels, whatever is decided."""
        if self.k == 1 or isinstance(choice, InputChoice) or choice.key in self.whole:
            return run
        k, where = self.k, choice.name
        shown = f"the candidates of {choice.key!r}"
        hint = (
            f"build them for channels // {k}, by a model argument that is 1 for the final model; or name the key in"
            f" whole=[{choice.key!r}], or give k=1"
        )

        def run_partially(x: object, *args: object, **kwargs: object) -> Tensor | None:
            if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1] % k:
                given = f"shape {list(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
                raise UserCodeError(
                    f"{shown} cannot run on 1/{k} of the channels of an input of {given}", where=where, hint=hint
                )
            part = x.shape[1] // k
            try:
                mixed: Tensor | None = run(x[:, :part], *args, **kwargs)
            except (RuntimeError, ValueError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise UserCodeError(
                    f"{shown} do not take {part} channels, 1/{k} of the {x.shape[1]} given:"
                    f" {str(error).splitlines()[0]}",
                    where=where,
                    hint=hint,
                ) from error
            if mixed is None:  # an architecture that takes no candidate here
                return None
            if not isinstance(mixed, Tensor):
                raise UserCodeError(
                    f"{shown} give a {type(mixed).__name__}, where part of the channels takes one tensor",
                    where=where,
                    hint=f"name the key in whole=[{choice.key!r}], or give k=1",
                )
            if mixed.dim() != x.dim() or mixed.shape[1] != part:
                raise UserCodeError(
                    f"{shown} turn {part} channels, 1/{k} of the {x.shape[1]} given, into the shape"
                    f" {list(mixed.shape)}; they must keep the number of channels",
                    where=where,
                    hint=hint,
                )
            return shuffle_channels(torch.cat([mixed, _pooled(x[:, part:], mixed)], dim=1), k)

        return run_partially


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """``[N, C, ...]``: channel ``g * C/groups + i`` becomes channel ``i * groups + g``."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


_POOLS: Mapping[int, Callable[..., Tensor]] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}


def _pooled(x: Tensor, like: Tensor) -> Tensor:
    """``x`` ``[N, C, ...]`` in the size of ``like``; where that divides its own, by windows of the stride."""
    size = list(like.shape[2:])
    if size == list(x.shape[2:]):
        return x
    return _POOLS[len(size)](x, size)
