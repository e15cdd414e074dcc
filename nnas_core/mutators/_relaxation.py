"""Architecture parameters: logits that a differentiable algorithm trains, and the weights that they become.

What the algorithms have in common is here: one matrix of logits for all keys, and one call that turns it into weights.
How logits become weights is what an algorithm adds in ``relaxed``; what the model then runs, ``_mixture`` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.activation_checkpointing import recomputed
from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import per_binding
from nnas_core.mutables.choices import AnyChoice, InputChoice, LayerChoice
from nnas_core.mutables.mutator import Mutator, require_dense
from nnas_core.mutables.plans import full_mask, hard_mask, is_zero, soft_run
from nnas_core.mutables.reduction import gate, reduce_hard
from nnas_core.mutators._mixture import Blend, Mixture, RelaxedRow
from nnas_core.mutators._serving import mutators_that
from nnas_core.plain_optimizers import Adam
from nnas_core.plugins.arguments import check_range

__all__ = ["RelaxedMutator", "hint_for_outputs", "one_at_a_time"]


class RelaxedMutator(Mutator):
    """Logits for the choices of a model, and candidates mixed by the weights that these become.

    A subclass defines ``relaxed``. It may define ``paths`` to run only some candidates, unweighted in value.

    Args:
        model: to be bound.
        generator: source of randomness, on the CPU; torch's default generator if None.
        learning_rate, betas, weight_decay: of Adam, which trains the logits.
        zero: give each LayerChoice one more weight that stands for no candidate, as NNI's DARTS does.

    Attributes:
        logits: ``[K, W]``: a row a key, W the largest number of candidates (one more with ``zero``: the last column).
        valid: ``[K, W]``, bool: which entries mean something. Call ``reblend`` after taking candidates out.
        rows: the K rows.

    Raises:
        BindingError: the model has a choice that cannot be relaxed; it is named.
    """

    relaxes_inputs: ClassVar[bool] = True
    """True if an InputChoice has logits; else all of its inputs take part, unweighted."""

    runs_all: ClassVar[bool] = True
    """True if all candidates run in a forward pass; else those that ``paths`` returns."""

    serves_any_reduction: ClassVar[bool] = False

    has_fixed_graph: ClassVar[bool] = True

    _samples_by_itself: ClassVar[bool] = False
    """True if the class decides in a way of its own."""

    recomputes: bool = False
    """True if activations of candidates are computed once more in the backward pass: see ``recompute``."""

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        zero: bool = False,
    ) -> None:
        super().__init__(model)
        self.generator = generator
        check_range("learning_rate", learning_rate, "(0, inf)")
        check_range("weight_decay", weight_decay, "[0, inf)")
        if len(betas) != 2:
            raise UsageError(f"betas={list(betas)} are not two numbers", hint="give two, such as [0.5, 0.999]")
        for beta in betas:
            check_range("betas", beta, "[0, 1)")
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.zero = zero
        relaxed = [one for one in self.choices if self.relaxes(one)]
        self.rows = [RelaxedRow(index, mutable) for index, mutable in enumerate(relaxed)]
        if not self.rows:
            raise BindingError(
                f"{type(self).__name__} has nothing to train: the model has no LayerChoice",
                hint=f"use a mutator that needs none, such as {one_at_a_time()}",
            )
        self.check_all()
        width = max(row.count for row in self.rows) + int(zero)
        valid = torch.zeros(len(self.rows), width, dtype=torch.bool)
        for row in self.rows:
            valid[row.index, : row.count] = True
            if zero and isinstance(row.mutable, LayerChoice):
                valid[row.index, -1] = True
        device, dtype = self.binding.device, self._dtype()
        initial = 1e-3 * torch.randn(valid.shape, generator=generator, dtype=torch.float64)
        self.logits = nn.Parameter(initial.to(device, dtype))
        self.valid: Tensor
        self.register_buffer("valid", valid.to(device))

    def relaxes(self, mutable: AnyChoice) -> bool:
        """Return true if ``mutable`` has logits; all inputs of an InputChoice that has none take part, unweighted."""
        return isinstance(mutable, LayerChoice) or self.relaxes_inputs

    def check_all(self) -> None:
        """Check every choice of the model, as ``check`` does one."""
        for mutable in self.undedup_mutables:
            if isinstance(mutable, LayerChoice | InputChoice):
                self.check(mutable)

    def check(self, mutable: AnyChoice) -> None:
        """Refuse a mutable that this algorithm cannot serve; called for each while binding.

        Raises:
            BindingError: naming the mutable and what can serve it.
        """
        where = mutable.name
        if isinstance(mutable, LayerChoice):
            if len(mutable) > 0 and all(is_zero(candidate) for candidate in mutable.candidates):
                raise BindingError(
                    f"{mutable.key!r} has only zero operations as candidates: nothing to learn there",
                    where=where,
                    hint="give it a candidate that computes something",
                )
            changes_shape = mutable.reduction in ("concat", "none")
        else:
            fixed = mutable.n_chosen is not None and mutable.n_chosen != mutable.n_candidates
            changes_shape = mutable.reduction in ("concat", "none") and fixed
        if self.runs_all and changes_shape:
            raise BindingError(
                f"{type(self).__name__} runs all candidates of {mutable.key!r} at once, which its reduction"
                f" {mutable.reduction!r} would turn into another shape than a chosen one has",
                where=where,
                hint=f"use reduction 'sum' or 'mean', or a mutator that runs what is chosen only: {one_at_a_time()}",
            )

    def _dtype(self) -> torch.dtype:
        floating = (one.dtype for one in self.model.parameters() if one.dtype in (torch.float32, torch.float64))
        return next(floating, torch.float32)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in (0, 1) of ``shape``, from the mutator's generator, where and as the logits are."""
        drawn = torch.rand(tuple(shape), generator=self.generator, dtype=torch.float64)
        limits = torch.finfo(self.logits.dtype)  # rounding to float32 may reach 1
        return drawn.to(self.logits.device, self.logits.dtype).clamp_(limits.tiny, 1 - limits.eps)

    # ---- what an algorithm adds

    def relaxed(self) -> Tensor:
        """The weights ``[K, W]`` of the next forward passes, differentiable in ``logits``; zero where not valid."""
        raise NotImplementedError(f"{type(self).__name__} must define relaxed")

    def paths(self, weights: Tensor) -> Sequence[Sequence[int]]:
        """With ``runs_all`` false: the candidates to run, a sequence of indices a row.

        Args:
            weights: what ``relaxed`` returned.
        """
        raise NotImplementedError(f"{type(self).__name__} must define paths")

    def probabilities(self) -> Tensor:
        """``[K, W]``: what the logits say without any noise; zero where not valid.

        Rows that take one candidate: softmax. Rows that take any number: a sigmoid an entry. Rows that take k: k times
        the softmax.
        """
        masked = self.logits.masked_fill(~self.valid, -torch.inf)
        weights = masked.softmax(dim=1)
        if all(row.n_chosen == 1 for row in self.rows):
            return weights
        pieces = list(weights.unbind())
        for row in self.rows:
            if row.n_chosen is None:
                pieces[row.index] = torch.sigmoid(masked[row.index])
            elif row.n_chosen != 1:
                pieces[row.index] = weights[row.index] * row.n_chosen
        return torch.stack(pieces)

    def decision_weights(self) -> Mapping[str, Sequence[float]]:
        """``probabilities()`` of each key, 1 at most; where ``zero`` has a share, the rest is that of no candidate."""
        with torch.no_grad():
            rows = self.probabilities().clamp(max=1).tolist()
        return {row.key: rows[row.index][: row.count] for row in self.rows}

    def sample_final(self) -> Mapping[str, Tensor]:
        """The most probable candidate of each LayerChoice; of an InputChoice, the ``n_chosen`` most probable, or those
        more probable than not.
        """
        with torch.no_grad():
            scores = self.probabilities().tolist()
        final = {row.key: self._best(row, scores[row.index][: row.count]) for row in self.rows}
        return {one.key: final[one.key] if one.key in final else full_mask(one) for one in self.choices}

    def _best(self, row: RelaxedRow, scores: Sequence[float]) -> Tensor:
        allowed = [index for index, ok in enumerate(self.valid[row.index, : row.count].tolist()) if ok]
        if row.n_chosen is None:
            chosen = [index for index in allowed if scores[index] > 0.5]
        else:
            chosen = sorted(allowed, key=lambda index: -scores[index])[: row.n_chosen]
        return hard_mask(tuple(sorted(chosen)), row.count, torch.device("cpu"))

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam over the logits."""
        betas = (self.betas[0], self.betas[1])
        return Adam(self.parameters(), self.learning_rate, betas, weight_decay=self.weight_decay)

    # ---- what forward passes run

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> weights ``[n]``; what does not take part in the relaxation: all true."""
        weights = self.relaxed()
        return Blend(self.mixture, self.binding, weights, () if self.runs_all else self.paths(weights))

    @per_binding
    def mixture(self) -> Mixture:
        """The calls of all choices, now and after every later reset."""
        return Mixture(self.binding, self.rows, self._call_for, self.adapt)

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls._samples_by_itself = cls.sample_search is not RelaxedMutator.sample_search

    @property
    def is_dense(self) -> bool:
        return self.runs_all and not self._samples_by_itself and not self.takes_over_forward

    def recompute(self) -> None:
        """Keep no activations of candidates: run each LayerChoice once more in the backward pass.

        Raises:
            UsageError: this algorithm does not run all candidates.
        """
        require_dense(self, "recompute")
        self.recomputes = True
        self.reblend()

    def reblend(self) -> None:
        """Make anew what the choices call; needed after ``valid`` changed."""
        RelaxedMutator.mixture.forget(self)

    def _call_for(self, mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
        run = self.adapt(mutable, self.blend(mixture, mutable, row))
        if self.recomputes and isinstance(mutable, LayerChoice):
            run = recomputed(run, mutable, mixture.weights.hold)
        return mixture.with_mask(run, mutable, row) if mutable.return_mask else run

    def blend(self, mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
        """Return the call of ``mutable``, now and after every later ``reset``: its candidates, weighted or selected.

        Args:
            mixture: the weights of the current reset are ``mixture.weights[row.index]``, in each forward pass, and
                the candidates to run ``mixture.paths[row.index]``.
            mutable: one of the choices of the row's key.
            row: of the logits.
        """
        if self.runs_all:
            return soft_run(mutable, self.kept(row), mixture.weights_of(row), hint=hint_for_outputs)
        return _selected_run(mixture, mutable, row)

    def kept(self, row: RelaxedRow) -> list[int]:
        """The candidates of a row that were not taken out."""
        return [index for index, ok in enumerate(self.valid[row.index, : row.count].tolist()) if ok]

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self.reblend()  # what is valid may have changed

    def _bind(self, model: nn.Module) -> None:
        super()._bind(model)
        for row in vars(self).get("rows", ()):  # a copy: its rows point to the mutables of the original
            row.mutable = self.binding.choices[row.key]


def _selected_run(mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
    weights, paths, index, reduction = mixture.weights, mixture.paths, row.index, mutable.reduction
    if isinstance(mutable, InputChoice):

        def choose(inputs: Sequence[Tensor]) -> object:
            own = weights[index]
            return reduce_hard([gate(inputs[chosen], own[chosen]) for chosen in paths[index]], reduction)

        return choose
    candidates = mutable.candidates

    def run(*args: object, **kwargs: object) -> object:
        own = weights[index]
        outputs = [gate(candidates[chosen](*args, **kwargs), own[chosen]) for chosen in paths[index]]
        return reduce_hard(outputs, reduction)

    return run


def hint_for_outputs() -> str:
    """What to do about candidates whose outputs cannot be mixed."""
    return f"let the candidates give equal shapes, or use a mutator that runs what is chosen only: {one_at_a_time()}"


def one_at_a_time() -> str:
    """Name the mutators that serve choices of any reduction."""
    return mutators_that(lambda mutator: mutator.serves_any_reduction)
