"""Run one path, and learn which from gates whose gradients re-run the other candidates without storing anything.

Source: Cai, Zhu, Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware",
arXiv:1812.00332 (sections 3.2 and 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, InputError, UsageError, UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import per_binding
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.plans import hard_mask
from nnas_core.mutators._gated_paths import GatedPath, Gates, LastGates, gated_any, gated_layer, gated_places
from nnas_core.mutators._gates import ungated
from nnas_core.mutators._latency import latency_matrix, require_same_latencies
from nnas_core.mutators._mixture import Mixture, RelaxedRow
from nnas_core.mutators._path_distribution import PathDistribution
from nnas_core.mutators._relaxation import RelaxedMutator
from nnas_core.mutators._rewards import RewardedTrainer, batch_statistics
from nnas_core.plugins.arguments import check_range
from nnas_core.space.choice import Decision
from nnas_core.space.latency_table import Latencies, read_latencies
from nnas_core.space.sizes import size_in_words
from nnas_core.training.task import Batch

__all__ = ["ProxylessMutator", "ProxylessTrainer"]

_MODES = ("full", "full_v2", "two")
_UPDATES = ("gradient", "reinforce")
_WARMUP_SHARE = 25 / 145  # NNI: 25 epochs of warm-up before 120 of search
_MOST_DECISIONS = 1000  # of an InputChoice that takes k inputs: each has its probability


class ProxylessTrainer(RewardedTrainer):
    """Steps of the weights alone, for the warm-up; then steps of the architecture after every few of them.

    Attributes:
        warmup_epochs: at the beginning, without steps of the architecture.

    Raises:
        BindingError: the mutator is no ``ProxylessMutator``.
        UsageError: the warm-up leaves no epoch for the architecture; or rewards are to be multiplied by a latency term,
            and of the metric less is better.
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
        if self.searching.latency_target is not None and self.task.metric_mode == "min":
            raise UsageError(
                "the reward is multiplied by a latency term, and of this task's metric less is better",
                hint='use update="gradient" with latency_weight, or a metric of which more is better',
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

    def architecture_gradients(self, batch: Batch, held_out: Batch) -> Sequence[Tensor | None]:
        """Those of the loss and the expected latency (section 3.3.1), or of the expected reward (section 3.3.2)."""
        mutator = self.searching
        if mutator.update == "reinforce":
            return self.policy_gradient(held_out)
        with self.weights_at_rest():
            mutator.reset()
            loss = self.loss_of(held_out)[0]
            if mutator.latency_weight:
                loss = loss + mutator.latency_weight * mutator.expected_latency()
            return self.gradients(loss)

    def policy_gradient(self, held_out: Batch) -> Sequence[Tensor | None]:
        """Measures ``samples`` paths on a batch of held-out data, and differentiates the mutator's surrogate."""
        mutator = self.searching
        paths = [mutator.draw()[0] for _ in range(mutator.samples)]
        with batch_statistics(self.model):
            measured = [mutator.reward(self.reward_of(mutator.by_key(path), held_out), path) for path in paths]
        self.model.train()
        if math.isnan(sum(measured)):
            return [None for _ in self.architecture_parameters]  # the metric has no value in this batch
        self._averages.update({"reward": sum(measured) / len(measured)}, 1)
        return self.gradients(mutator.surrogate(paths, measured))

    def update_architecture(self, gradients: Sequence[Tensor | None]) -> None:
        """A step of the architecture's optimizer; mode ``"two"`` then leaves the other candidates as they were."""
        mutator = self.searching
        before = mutator.logits.detach().clone()
        super().update_architecture(gradients)
        if mutator.mode == "two" and mutator.update == "gradient":
            mutator.rescale(before)

    def validate_one_epoch(self, epoch: int) -> dict[str, float]:
        with torch.no_grad():  # a reset with gradients prepares a step of the architecture
            return super().validate_one_epoch(epoch)


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

    With a table of latencies the search heeds them, in one of the two forms of section 3.3:

    - ``update="gradient"``: ``latency_weight`` times the expected latency, ``sum_j p_j F_j`` of each key, is added to
      the loss (3.3.1). In mode ``two`` the sum is over the two, whose probability together stays as it is.
    - ``update="reinforce"``: gates have no gradients. ``samples`` paths are drawn, and the logits follow the gradient
      of the log-probability of each, times its reward (3.3.2): the metric on held-out data, times
      ``(latency / latency_target)^latency_exponent``, less a moving average of rewards. It serves without a table too.

    Args:
        model: to be bound.
        generator: source of paths and initial logits, on the CPU; torch's default generator if None.
        mode: whether all others run in the backward pass (full_v2) or the forward pass (full), or one of them (two).
        warmup_epochs: epochs at the beginning that train weights only; null: 25 of 145, NNI's share.
        every: train the architecture in one of so many batches.
        steps: of the architecture, each on a batch of its own, in such a batch.
        update: how logits learn: by the gradients of gates, or by rewards of sampled paths (reinforce).
        latency_table: a file of the schema latency-table, or key -> candidate -> latency; or a list a key.
        latency_weight: what a unit of expected latency adds to the loss; for update="gradient".
        latency_target: the latency at which a reward is the metric itself; for update="reinforce".
        latency_exponent: of latency / latency_target, 0 or less; the paper takes -0.07, as MnasNet does.
        samples: paths that a step of "reinforce" measures.
        baseline_decay: of the moving average of rewards that is subtracted from each.
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
        update: Literal["gradient", "reinforce"] = "gradient",
        latency_table: str | Latencies | None = None,
        latency_weight: float | None = None,
        latency_target: float | None = None,
        latency_exponent: float = -0.07,
        samples: int = 8,
        baseline_decay: float = 0.99,
        learning_rate: float = 1e-3,
        betas: Sequence[float] = (0.0, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        if mode not in _MODES:
            raise UsageError(f"mode={mode!r} is none of {', '.join(_MODES)}")
        check_range("every", every, "[1, inf)")
        check_range("steps", steps, "[1, inf)")
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        check_range("samples", samples, "[1, inf)")
        check_range("baseline_decay", baseline_decay, "[0, 1)")
        check_range("latency_exponent", latency_exponent, "(-inf, 0]")
        _check_latency_options(update, latency_table is not None, latency_weight, latency_target)
        numbers = [float(beta) for beta in betas]  # Adam refuses a whole number
        super().__init__(model, generator, learning_rate=learning_rate, betas=numbers, weight_decay=weight_decay)
        self.mode = mode
        self.warmup_epochs = warmup_epochs
        self.every, self.steps = every, steps
        self.update = update
        self.latency_weight = latency_weight or 0.0
        self.latency_target = latency_target
        self.latency_exponent = latency_exponent
        self.samples = samples
        self.baseline_decay = baseline_decay
        self.baseline: float | None = None
        self._read_latencies(latency_table)
        self.distribution = PathDistribution(self.rows, self.logits)

    def _read_latencies(self, table: str | Latencies | None) -> None:
        self.latencies = {} if table is None else read_latencies(table, self.space)
        costs = latency_matrix(self.latencies, self.rows, self.logits)
        self.costs: Tensor
        self.register_buffer("costs", costs, persistent=False)
        least = sum((row.n_chosen or 0) * min(self.latencies[row.key]) for row in self.rows if self.latencies)
        if self.latency_target is not None and least <= 0:
            raise InputError(
                "there are architectures with a latency of 0, and a reward has a power of the latency in it",
                where=table if isinstance(table, str) else "latency_table",
                hint='give some candidate of each architecture a latency, or use update="gradient"',
            )

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
        chances = self.distribution.chances(self.logits, self.valid)
        chances = [one.sum(0) if one.dim() == 2 else one for one in chances]
        return torch.stack([nn.functional.pad(one, (0, self.valid.shape[1] - len(one))) for one in chances])

    def probabilities(self) -> Tensor:
        """``relaxed()``: nothing is noise but the choice of a path."""
        return self.relaxed()

    def draw(self, pairs: bool = False) -> tuple[list[Decision], Tensor]:
        """A decision a row, and what took part ``[K, W]``; with ``pairs`` two candidates a row that takes one."""
        return self.distribution.draw(self.logits, self.valid, self.generator, pairs)

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask of a path, sampled by ``probabilities()``; with gradients enabled, its choices are gated."""
        gated = torch.is_grad_enabled() and self.logits.requires_grad
        paths, kept = self.draw(pairs=gated and self.mode == "two")
        if not gated:
            return self.hard(self.by_key(paths))
        pair = kept.to(self.valid.device)
        involved = [[index for index, on in enumerate(row) if on] for row in kept.tolist()]
        gates = Gates(self.distribution.chances(self.logits, pair), pair, involved, paths)
        return GatedPath(self.binding.choices, self.by_key(paths), gates, self._gating, self.mixture)

    def by_key(self, paths: Sequence[Decision]) -> dict[str, Decision]:
        """The decisions of a path by key."""
        return {row.key: path for row, path in zip(self.rows, paths, strict=True)}

    # ---- latencies and rewards

    def expected_latency(self) -> Tensor:
        """``[]``: the expected latency of the gates of the last reset with gradients, differentiable in the logits.

        What takes no part keeps its probability, and adds a constant that is left out.
        """
        gates = self._gating.gates
        mass = (self.logits.detach().masked_fill(~self.valid, -torch.inf).softmax(dim=1) * gates.pair).sum(dim=1)
        terms = []
        for row, chances in zip(self.rows, gates.chances, strict=True):
            own = chances.sum(dim=0) if chances.dim() == 2 else chances
            latency = own @ self.costs[row.index, : len(own)]
            terms.append(latency * mass[row.index] if row.n_chosen == 1 else latency)
        return torch.stack(terms).sum()

    def log_probability(self, path: Sequence[Decision]) -> Tensor:
        """``[]``: of a path that ``draw`` may give, differentiable in the logits."""
        return self.distribution.log_probability(self.logits, self.valid, path)

    def reward(self, metric: float, path: Sequence[Decision]) -> float:
        """The metric of a path, times ``(latency / latency_target)^latency_exponent`` if there is a target.

        Raises:
            UserCodeError: the metric is negative, and the factor would reward what is slow.
        """
        if self.latency_target is None or math.isnan(metric):
            return metric
        if metric < 0:
            raise UserCodeError(
                f"the metric is {metric:.4g}, and proxyless multiplies it by a latency term: it must not be negative",
                hint='add a constant to the metric, or use update="gradient"',
            )
        pairs = zip(self.rows, path, strict=True)
        latency = sum(self.latencies[row.key][index] for row, decision in pairs for index in decision)
        return float(metric * (latency / self.latency_target) ** self.latency_exponent)

    def surrogate(self, paths: Sequence[Sequence[Decision]], rewards: Sequence[float]) -> Tensor:
        """``[]``: the scalar to descend after ``paths`` brought ``rewards``; the baseline takes the rewards in.

        Its gradient is the mean over paths of ``-(R - b) grad log p``; b is the moving average of the mean rewards of
        the steps before, and at first the mean of these.
        """
        mean = sum(rewards) / len(rewards)
        baseline = mean if self.baseline is None else self.baseline
        terms = [-(reward - baseline) * self.log_probability(path) for path, reward in zip(paths, rewards, strict=True)]
        self.baseline = self.baseline_decay * baseline + (1 - self.baseline_decay) * mean
        return torch.stack(terms).mean()

    def get_extra_state(self) -> dict[str, object]:
        """The baseline, and the latencies for runs that are gone on with."""
        return {"baseline": self.baseline, "latencies": self.latencies}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what ``get_extra_state`` returned.

        Raises:
            InputError: the latencies differ; every difference is listed.
        """
        require_same_latencies(state["latencies"], self.latencies, self.space)
        self.baseline = state["baseline"]

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
    def _gating(self) -> LastGates:
        """Where forward passes find the gates of the last reset with gradients."""
        return LastGates()

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
            return gated_layer(mutable, row.index, self._gating, self.binding.device, self.mode == "full")
        call = gated_any if row.n_chosen is None else gated_places
        return call(mutable, row.index, self._gating)


def _check_latency_options(update: str, has_table: bool, weight: float | None, target: float | None) -> None:
    if update not in _UPDATES:
        raise UsageError(f"update={update!r} is none of {', '.join(_UPDATES)}")
    options = {"gradient": ("latency_weight", weight, "[0, inf)"), "reinforce": ("latency_target", target, "(0, inf)")}
    for form, (name, value, interval) in options.items():
        if value is not None:
            check_range(name, value, interval)
        if (value is not None) != (has_table and update == form):
            raise UsageError(
                f'{name} belongs to a table of latencies with update="{form}", and it to {name}',
                hint=f"give latency_table, update={form} and {name}, or not {name}",
            )
