"""Run one path, and learn which from gates whose gradients re-run the other candidates without storing anything.

Source: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
arXiv:1812.00332 (section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import Binding, HardDecisions, per_binding
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.plans import hard_mask, is_zero
from nnas_core.mutables.reduction import reduce_hard
from nnas_core.mutators._gates import Call, gate_among, gate_layer, ungated
from nnas_core.mutators._mixture import Mixture, RelaxedRow
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.plugins.arguments import check_range
from nnas_core.space.choice import Decision
from nnas_core.space.sizes import size_in_words
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.task import Batch

__all__ = ["ProxylessMutator", "ProxylessTrainer"]

_MODES = ("full", "full_v2", "two")
_WARMUP_SHARE = 25 / 145  # NNI: 25 epochs of warm-up before 120 of search
_MOST_DECISIONS = 1000  # of an InputChoice that takes k inputs: each has its probability


class ProxylessTrainer(BilevelTrainer):
    """Steps of the weights alone, for the warm-up; then steps of the architecture after every few of them.

    Attributes:
        warmup_epochs: at the beginning, without steps of the architecture.

    Raises:
        BindingError: the mutator is no ``ProxylessMutator``.
        UsageError: the warm-up leaves no epoch for the architecture.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.searching.warmup_epochs
        self.warmup_epochs = round(self.epochs * _WARMUP_SHARE) if given is None else given
        if given is not None and given >= self.epochs:
            raise UsageError(
                f"warmup_epochs={given} leaves none of the {self.epochs} epochs to train the architecture in",
                hint="train more epochs, or choose fewer of warm-up",
            )

    @property
    def searching(self) -> ProxylessMutator:
        """The mutator, whose options this loop reads."""
        return self.mutator_of(ProxylessMutator)

    def train_batch(self, batch: Batch) -> None:
        """One step of the weights; in every ``every``-th batch after the warm-up, ``steps`` of the architecture."""
        self.weight_step(batch)
        searched = self.step - self.warmup_epochs * len(self.train_batches)
        if self.epoch >= self.warmup_epochs and searched % self.searching.every == 0:
            for _ in range(self.searching.steps):
                self.architecture_step(batch, self.to_device(next(self.held_out)))

    def update_architecture(self, gradients: Sequence[Tensor | None]) -> None:
        """A step of the architecture's optimizer; mode ``"two"`` then leaves the other candidates as they were."""
        mutator = self.searching
        before = mutator.logits.detach().clone()
        super().update_architecture(gradients)
        if mutator.mode == "two":
            mutator.rescale(before)

    def validate_one_epoch(self, epoch: int) -> dict[str, float]:
        with torch.no_grad():  # a reset with gradients prepares a step of the architecture
            return super().validate_one_epoch(epoch)


class _Gates(NamedTuple):
    """Row by row, what a reset with gradients has prepared.

    Attributes:
        chances: what ``_chances`` gave, differentiable.
        pair: ``[K, W]``, bool: what takes part.
        involved: the same as indices.
        paths: what was chosen.
    """

    chances: list[Tensor]
    pair: Tensor
    involved: list[list[int]]
    paths: list[Decision]


class _LastGates:
    """Where forward passes find the gates of the last reset."""

    gates: _Gates


class _GatedPath(HardDecisions):
    """A path whose choices are gated."""

    def __init__(
        self,
        choices: Mapping[str, AnyChoice],
        decisions: Mapping[str, Decision],
        gates: _Gates,
        gating: _LastGates,
        mixture: Mixture,
    ) -> None:
        super().__init__(choices, decisions)
        self._gates = gates
        self._gating = gating
        self._mixture = mixture

    def install(self, binding: Binding) -> bool:
        if binding.is_taken_over:
            return super().install(binding)
        self._gating.gates = self._gates
        binding.calls[:] = self._mixture.calls
        return True


class ProxylessMutator(RelaxedMutator):
    """Binary gates: candidate i runs with probability ``p_i = softmax(logits)_i`` (equation 2), the others do not.

    The gradient of the logits is ``sum_j dL/dg_j p_j (delta_ij - p_i)`` (equation 4), where ``dL/dg_j`` is the dot
    product of the output that candidate j would have given and the gradient of the output. A reset without gradients
    decides one path and nothing else; one with gradients prepares a step of the architecture. The three modes take
    the same path and differ in where the outputs of the other candidates come from:

    - ``full``: they run in the forward pass, and their outputs (not what they computed on the way) are kept.
    - ``full_v2``: only inputs are kept; they run in the backward pass, one after the other.
    - ``two``: as ``full_v2``, but only one other candidate takes part: two are sampled by p without replacement, one
      of them by p renormalised to the two. After the update both logits are shifted so that the probabilities of the
      candidates outside the two are what they were.

    Runs that only serve gradients leave no trace: random numbers are those that the candidate would have drawn had it
    been chosen, torch's random states are put back, and buffers, such as the statistics of BatchNorm, are copies.
    A candidate with NNI's ``is_zero_layer`` is known to give zero and is not run for its gradient.

    An InputChoice is gated like a LayerChoice if it takes one input. If it takes k, the probability of k inputs is
    proportional to the product of their ``exp(logits)``, and each of the k places is gated; if any number, each input
    has a gate of its own with ``p = sigmoid(logit)``, and the gradient that a mean has in a gate is that of
    ``sum g x / sum g``. Where no input is chosen the output is None, and nothing is learned from that step. Mode
    ``two`` is ``full`` for both kinds: nothing would be saved.

    Args:
        model: to be bound.
        generator: source of paths and initial logits, on the CPU; torch's default generator if None.
        mode: whether all others run in the backward pass (full_v2) or the forward pass (full), or one of them (two).
        warmup_epochs: epochs at the beginning that train weights only; null: 25 of 145, NNI's share.
        every: train the architecture in one of so many batches.
        steps: of the architecture, each on a batch of its own, in such a batch.
        learning_rate: of Adam, for the logits.
        betas: of Adam; the first is 0, so a logit without gradient stays.
        weight_decay: of Adam.

    Raises:
        UsageError: an option is out of its range.
        BindingError: an InputChoice that takes any number concatenates or lists them, or one takes k inputs in more
            than 1,000 ways.
    """

    runs_all = False
    trainer = ProxylessTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        mode: Literal["full", "full_v2", "two"] = "full_v2",
        warmup_epochs: int | None = None,
        every: int = 5,
        steps: int = 1,
        learning_rate: float = 1e-3,
        betas: Sequence[float] = (0.0, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        if mode not in _MODES:
            raise UsageError(f"mode={mode!r} is none of {', '.join(_MODES)}")
        check_range("every", every, "[1, inf)")
        check_range("steps", steps, "[1, inf)")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        numbers = [float(beta) for beta in betas]  # Adam refuses a whole number
        super().__init__(model, generator, learning_rate=learning_rate, betas=numbers, weight_decay=weight_decay)
        self.mode = mode
        self.warmup_epochs = warmup_epochs
        self.every = every
        self.steps = steps
        self._decisions = {row.index: list(row.mutable.choice.decisions()) for row in self.rows if _takes_several(row)}
        for index, decisions in self._decisions.items():  # [D, k, n]: whether decision d has input n at place k
            chosen = torch.tensor(decisions, dtype=torch.long).reshape(len(decisions), self.rows[index].n_chosen or 0)
            places = F.one_hot(chosen, self.rows[index].count).to(self.logits)
            self.register_buffer(f"places{index}", places, persistent=False)

    def check(self, mutable: LayerChoice | InputChoice) -> None:
        super().check(mutable)
        if isinstance(mutable, LayerChoice):
            return
        if mutable.n_chosen is None and mutable.reduction in ("concat", "none"):
            raise BindingError(
                f"{type(self).__name__} cannot gate the inputs of {mutable.key!r}: its reduction {mutable.reduction!r}"
                " has no place for one that is not chosen, so no gradient says what it would have done",
                where=mutable.name,
                hint=f"use reduction 'sum' or 'mean', a number for n_chosen, or a mutator without gates: {ungated()}",
            )
        if mutable.n_chosen is not None and mutable.choice.size > _MOST_DECISIONS:
            raise BindingError(
                f"{type(self).__name__} gives each decision a probability, and {mutable.key!r} takes {mutable.n_chosen}"
                f" of {len(mutable)} inputs in {size_in_words(mutable.choice.size, ',')} ways, more than"
                f" {_MOST_DECISIONS:,}",
                where=mutable.name,
                hint=f"offer fewer inputs, use n_chosen=None, or a mutator without gates: {ungated()}",
            )

    # ---- probabilities and paths

    def relaxed(self) -> Tensor:
        """The probability ``[K, W]`` of each candidate to be chosen, differentiable in ``logits``."""
        chances = [one.sum(0) if one.dim() == 2 else one for one in self._chances(self.valid)]
        return torch.stack([F.pad(one, (0, self.valid.shape[1] - len(one))) for one in chances])

    def probabilities(self) -> Tensor:
        """``relaxed()``: nothing is noise but the choice of a path."""
        return self.relaxed()

    def _chances(self, kept: Tensor) -> list[Tensor]:
        """Return the probabilities of each row's gates: ``[W]`` or ``[n]``; ``[k, n]``, place by place, if it takes k.

        Args:
            kept: ``[K, W]``, bool: what takes part in rows that take one.
        """
        chances = list(self.logits.masked_fill(~kept, -torch.inf).softmax(dim=1).unbind())
        for row in self.rows:
            if row.n_chosen is None:
                chances[row.index] = self.logits[row.index, : row.count].sigmoid()
            elif row.index in self._decisions:
                joint = self._joint(self.logits, row).softmax(dim=0)
                chances[row.index] = torch.einsum("d,dkn->kn", joint, self.get_buffer(f"places{row.index}"))
        return chances

    def _joint(self, logits: Tensor, row: RelaxedRow) -> Tensor:
        """The logit of each decision ``[D]`` of a row that takes k."""
        places = self.get_buffer(f"places{row.index}").to(logits)
        return places.sum(dim=1) @ logits[row.index, : row.count]

    def _draw(self, pairs: bool) -> tuple[list[Decision], Tensor]:
        """Sample a decision a row.

        Args:
            pairs: let only two candidates, sampled first, take part in rows that take one.

        Returns:
            The decisions, and what took part ``[K, W]``, on the CPU.
        """
        logits = self.logits.detach().masked_fill(~self.valid, -torch.inf).to("cpu", torch.float64)
        kept = logits != -torch.inf
        uniform = self._uniform(logits.shape)
        scores = logits + _gumbel(uniform)  # the largest k are a sample by softmax(logits) without replacement
        if pairs:
            two = scores.topk(min(2, scores.shape[1]), dim=1).indices
            single = torch.tensor([[row.n_chosen == 1] for row in self.rows])
            kept &= torch.zeros_like(kept).scatter(1, two, True) | ~single
            scores = logits.masked_fill(~kept, -torch.inf) + _gumbel(self._uniform(logits.shape))
        paths: list[Decision] = [(best,) for best in scores.argmax(dim=1).tolist()]
        for row in self.rows:
            if row.n_chosen is None:
                on = uniform[row.index, : row.count] < logits[row.index, : row.count].sigmoid()
                paths[row.index] = tuple(on.nonzero().flatten().tolist())
            elif row.index in self._decisions:
                joint = self._joint(logits, row)
                best = int((joint + _gumbel(self._uniform(joint.shape))).argmax())
                paths[row.index] = self._decisions[row.index][best]
        return paths, kept

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(tuple(shape), generator=self.generator, dtype=torch.float64)

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask of a path, sampled by ``probabilities()``; with gradients enabled, its choices are gated."""
        gated = torch.is_grad_enabled() and self.logits.requires_grad
        paths, kept = self._draw(pairs=gated and self.mode == "two")
        if not gated:
            return self.hard(self._by_key(paths))
        pair = kept.to(self.valid.device)
        involved = [[index for index, on in enumerate(row) if on] for row in kept.tolist()]
        gates = _Gates(self._chances(pair), pair, involved, paths)
        return _GatedPath(self.binding.choices, self._by_key(paths), gates, self._gating, self.mixture)

    def _by_key(self, paths: Sequence[Decision]) -> dict[str, Decision]:
        """Decisions of all keys; what has no logits takes all."""
        drawn = {row.key: path for row, path in zip(self.rows, paths, strict=True)}
        return {one.key: drawn.get(one.key, tuple(range(len(one)))) for one in self.choices}

    def rescale(self, before: Tensor) -> None:
        """Give all candidates but the sampled two, and these together, their probabilities from before an update.

        Args:
            before: the logits ``[K, W]`` before it.
        """
        with torch.no_grad():
            two, after = self._gating.gates.pair, self.logits
            gained = [one.masked_fill(~two, -torch.inf).logsumexp(dim=1, keepdim=True) for one in (after, before)]
            single = torch.tensor([[row.n_chosen == 1] for row in self.rows], device=after.device)
            kept = torch.where(two, after - (gained[0] - gained[1]), before)
            after.copy_(torch.where(single, kept, after))

    # ---- forward passes

    @per_binding
    def _gating(self) -> _LastGates:
        """Where forward passes find the gates of the last reset with gradients."""
        return _LastGates()

    def _call_for(self, mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
        run = self.adapt(mutable, self.blend(mixture, mutable, row))
        if not mutable.return_mask:
            return run
        gating, index, binding = self._gating, row.index, self.binding

        def run_with_mask(*args: object, **kwargs: object) -> tuple[object, Tensor]:
            return run(*args, **kwargs), hard_mask(gating.gates.paths[index], len(mutable), binding.device)

        return run_with_mask

    def blend(self, mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
        if isinstance(mutable, LayerChoice):
            return self._gated_layer(mutable, row.index)
        return self._gated_places(mutable, row.index) if row.n_chosen is not None else self._gated_any(mutable, row)

    def _gated_layer(self, mutable: LayerChoice, index: int) -> Forward:
        gating, binding = self._gating, self.binding
        candidates, reduction, at_once = mutable.candidates, mutable.reduction, self.mode == "full"
        silent = {position for position, candidate in enumerate(candidates) if is_zero(candidate)}

        def run(*args: object, **kwargs: object) -> object:
            gates = gating.gates
            (chosen,) = gates.paths[index]
            if not torch.is_grad_enabled():
                return reduce_hard([candidates[chosen](*args, **kwargs)], reduction)
            call = Call(mutable, args, kwargs, binding.device)
            others = [one for one in gates.involved[index] if one != chosen and one not in silent]
            output = gate_layer(call, chosen, others, call.tensors(args, kwargs), gates.chances[index], at_once)
            return reduce_hard([output], reduction)

        return run

    def _gated_places(self, mutable: InputChoice, index: int) -> Forward:
        gating, reduction = self._gating, mutable.reduction

        def choose(inputs: Sequence[Tensor | None]) -> object:
            gates = gating.gates
            outputs = [inputs[position] for position in gates.paths[index]]
            if torch.is_grad_enabled():
                present = _present(inputs, gates.involved[index])
                chances = gates.chances[index]
                places = zip(outputs, chances if chances.dim() == 2 else chances.unsqueeze(0), strict=True)
                outputs = [None if one is None else gate_among(mutable, one, present, own) for one, own in places]
            return reduce_hard(outputs, reduction)  # type: ignore[arg-type]  # one that is None is handed on

        return choose

    def _gated_any(self, mutable: InputChoice, row: RelaxedRow) -> Forward:
        gating, index, reduction = self._gating, row.index, mutable.reduction

        def choose(inputs: Sequence[Tensor | None]) -> object:
            path, chances = gating.gates.paths[index], gating.gates.chances[index]
            output = reduce_hard([inputs[position] for position in path], reduction)  # type: ignore[misc]
            if output is None or not torch.is_grad_enabled():
                return output
            present = _present(inputs, range(row.count))
            return gate_among(mutable, output, present, chances, len(path) if reduction == "mean" else 0)

        return choose


def _present(inputs: Sequence[Tensor | None], positions: Iterable[int]) -> dict[int, Tensor]:
    """The inputs at ``positions``; one that is None, as an empty choice is, has a gate without gradient."""
    return {position: tensor for position in positions if (tensor := inputs[position]) is not None}


def _takes_several(row: RelaxedRow) -> bool:
    return row.n_chosen is not None and row.n_chosen != 1


def _gumbel(uniform: Tensor) -> Tensor:
    """Gumbel's distribution from uniform numbers in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp_min(torch.finfo(uniform.dtype).tiny)))
