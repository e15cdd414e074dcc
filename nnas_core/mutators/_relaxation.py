"""Architecture parameters: logits that a differentiable algorithm trains, and the weights that they become.

What the algorithms have in common is here: one matrix of logits for all keys, one call that turns it into weights,
and the candidates mixed by those weights. How logits become weights is what an algorithm adds in ``relaxed``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.activation_checkpointing import recomputed
from nnas_core.mutables.choices import InputChoice, LayerChoice
from nnas_core.mutables.mutator import Mutator, require_dense
from nnas_core.mutables.plans import hard_mask, hard_plan, is_zero, soft_run
from nnas_core.mutables.reduction import gate, reduce_hard
from nnas_core.mutators._weight_rows import WeightRows
from nnas_core.plugins.arguments import check_range

__all__ = ["ONE_AT_A_TIME", "RelaxedMutator", "RelaxedRow"]

ONE_AT_A_TIME = "random, spos, fairnas, enas, gdas"
"""What serves choices that can only run what is chosen."""


class RelaxedRow:
    """One key that has logits: a row of the matrix.

    Attributes:
        key: of the decision.
        index: of the row.
        mutable: the first of the key.
        count: of candidates; the row's first ``count`` entries are theirs.
        n_chosen: how many a decision takes: 1 (a LayerChoice, always), more, or None for any number.
    """

    __slots__ = ("count", "index", "key", "mutable", "n_chosen")

    def __init__(self, index: int, mutable: LayerChoice | InputChoice) -> None:
        self.key = mutable.key
        self.index = index
        self.mutable = mutable
        self.count = len(mutable)
        self.n_chosen = mutable.choice.n_chosen


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
    """Whether an InputChoice has logits; without, all of its inputs take part, unweighted."""

    runs_all: ClassVar[bool] = True
    """Whether all candidates run in a forward pass; without, those that ``paths`` returns."""

    has_fixed_graph: ClassVar[bool] = True
    """Whether, with ``runs_all``, forward passes differ in nothing but weights, so that the model can be compiled."""

    recomputes: bool = False
    """Whether activations of candidates are computed once more in the backward pass: see ``recompute``."""

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
        self._generator = generator
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
                hint=f"use a mutator that needs none, such as {ONE_AT_A_TIME}",
            )
        for mutable in self.undedup_mutables:
            if isinstance(mutable, LayerChoice | InputChoice):
                self.check(mutable)
        width = max(row.count for row in self.rows) + int(zero)
        valid = torch.zeros(len(self.rows), width, dtype=torch.bool)
        for row in self.rows:
            valid[row.index, : row.count] = True
            if zero and isinstance(row.mutable, LayerChoice):
                valid[row.index, -1] = True
        device, dtype = self._device(), self._dtype()
        initial = 1e-3 * torch.randn(valid.shape, generator=generator, dtype=torch.float64)
        self.logits = nn.Parameter(initial.to(device, dtype))
        self.valid: Tensor
        self.register_buffer("valid", valid.to(device))

    def relaxes(self, mutable: LayerChoice | InputChoice) -> bool:
        """Whether ``mutable`` has logits; all inputs of an InputChoice that has none take part, unweighted."""
        return isinstance(mutable, LayerChoice) or self.relaxes_inputs

    def check(self, mutable: LayerChoice | InputChoice) -> None:
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
                hint=f"use reduction 'sum' or 'mean', or a mutator that runs what is chosen only: {ONE_AT_A_TIME}",
            )

    def _dtype(self) -> torch.dtype:
        floating = (one.dtype for one in self.model.parameters() if one.dtype in (torch.float32, torch.float64))
        return next(floating, torch.float32)

    def noise(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in (0, 1) of ``shape``, from the mutator's generator, where and as the logits are."""
        drawn = torch.rand(tuple(shape), generator=self._generator, dtype=torch.float64)
        limits = torch.finfo(self.logits.dtype)  # rounding to float32 may reach 1
        return drawn.to(self.logits.device, self.logits.dtype).clamp_(limits.tiny, 1 - limits.eps)

    # ---- what an algorithm adds

    def relaxed(self) -> Tensor:
        """The weights ``[K, W]`` of the next forward passes, differentiable in ``logits``; zero where not valid."""
        raise NotImplementedError(f"{type(self).__name__} must define relaxed")

    def paths(self) -> Sequence[Sequence[int]]:
        """With ``runs_all`` false: the candidates to run, a sequence of indices a row. Called after ``relaxed``."""
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

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> weights ``[n]``; what does not take part in the relaxation: all true."""
        weights = self.relaxed()
        masks = {row.key: weights[row.index, : row.count] for row in self.rows}
        return {one.key: masks[one.key] if one.key in masks else _all_true(one) for one in self.choices}

    def sample_final(self) -> Mapping[str, Tensor]:
        """The most probable candidate of each LayerChoice; of an InputChoice, the ``n_chosen`` most probable, or those
        more probable than not.
        """
        with torch.no_grad():
            scores = self.probabilities().tolist()
        final = {row.key: self._best(row, scores[row.index][: row.count]) for row in self.rows}
        return {one.key: final[one.key] if one.key in final else _all_true(one) for one in self.choices}

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
        return torch.optim.Adam(self.parameters(), self.learning_rate, betas, weight_decay=self.weight_decay)

    # ---- reset: one matrix, one unbind, and nothing for each mutable

    def reset(self) -> None:
        """Relax the logits anew."""
        self._require_bound()
        if self._decides_itself:
            super().reset()  # a subclass decides in its own way
            return
        weights = self.relaxed()
        if "_blended" not in self.__dict__:
            self.__dict__["_weights"] = WeightRows()
            self.__dict__["_paths"] = []
            self.__dict__["_blended"] = self._blend_all()
        self._weights.renew(weights)
        if not self.runs_all:
            self._paths[:] = self.paths()
        self._calls[:] = self._blended
        self.__dict__["_current"] = _LazyMasks(self)

    _weights: WeightRows
    _paths: list[Sequence[int]]
    _blended: list[Callable[..., Any]]

    @property
    def _decides_itself(self) -> bool:
        return type(self).sample_search is not RelaxedMutator.sample_search or self._takes_over_forward

    @property
    def is_dense(self) -> bool:
        """Whether every forward pass runs all candidates, by the same graph with other weights."""
        return self.runs_all and not self._decides_itself

    def recompute(self) -> None:
        """Keep no activations of candidates: run each LayerChoice once more in the backward pass.

        Raises:
            UsageError: this algorithm does not run all candidates.
        """
        require_dense(self, "recompute")
        self.recomputes = True
        self.reblend()

    def reblend(self) -> None:
        """Make anew what the choices call; needed after ``valid`` or the candidates changed."""
        for name in (*_CACHES, "_current"):
            self.__dict__.pop(name, None)

    def _blend_all(self) -> list[Callable[..., Any]]:
        positions = {row.key: row for row in self.rows}
        calls: list[Callable[..., Any]] = list(self._calls)
        for group in self._shared.values():
            for mutable in group:
                calls[mutable._slot] = self._with_mask(mutable, positions.get(mutable.key))
        return calls

    def _with_mask(self, mutable: LayerChoice | InputChoice, row: RelaxedRow | None) -> Callable[..., Any]:
        if row is None:
            everything = tuple(range(len(mutable)))
            plan = hard_plan(mutable, everything, hard_mask(everything, len(mutable), self._device()))
            return plan.run_with_mask if mutable.return_mask else plan.run
        run = self.blend(mutable, row)
        if self.recomputes and isinstance(mutable, LayerChoice):
            run = recomputed(run, mutable, self._weights.hold)
        if not mutable.return_mask:
            return run
        weights, index, count = self._weights, row.index, row.count

        def run_with_mask(*args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
            return run(*args, **kwargs), weights[index][:count]

        return run_with_mask

    def blend(self, mutable: LayerChoice | InputChoice, row: RelaxedRow) -> Callable[..., Any]:
        """What ``mutable`` calls, now and after every later ``reset``: its candidates, weighted or selected.

        The weights of the current reset are ``self.weights_of(row)``, to be called in each forward pass.
        """
        if self.runs_all:
            kept = [index for index, ok in enumerate(self.valid[row.index, : row.count].tolist()) if ok]
            return soft_run(mutable, kept, self.weights_of(row))
        return self._selected_run(mutable, row)

    def weights_of(self, row: RelaxedRow) -> Callable[[], Tensor]:
        """A function that gives the weights ``[W]`` of a row as the last reset left them."""
        weights, index = self._weights, row.index
        return lambda: weights[index]

    def _selected_run(self, mutable: LayerChoice | InputChoice, row: RelaxedRow) -> Callable[..., Any]:
        weights, paths, index, reduction = self._weights, self._paths, row.index, mutable.reduction
        if isinstance(mutable, InputChoice):

            def choose(inputs: Sequence[Tensor]) -> Any:
                own = weights[index]
                return reduce_hard([gate(inputs[chosen], own[chosen]) for chosen in paths[index]], reduction)

            return choose
        candidates = mutable.candidates

        def run(*args: Any, **kwargs: Any) -> Any:
            own = weights[index]
            outputs = [gate(candidates[chosen](*args, **kwargs), own[chosen]) for chosen in paths[index]]
            return reduce_hard(outputs, reduction)

        return run

    def candidates_changed(self, mutable: LayerChoice) -> None:
        super().candidates_changed(mutable)
        self.reblend()

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.reblend()  # what is valid may have changed

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in _CACHES}

    def _bind(self, model: nn.Module) -> None:
        super()._bind(model)
        for row in self.__dict__.get("rows", ()):  # a copy: its rows point to the mutables of the original
            row.mutable = self._choices[row.key]


_CACHES = ("_blended", "_weights", "_paths")


def _all_true(mutable: LayerChoice | InputChoice) -> Tensor:
    return torch.ones(len(mutable), dtype=torch.bool)


class _LazyMasks(Mapping[str, Tensor]):
    """The weights of the last reset by key, made only if somebody looks."""

    __slots__ = ("_mutator",)

    def __init__(self, mutator: RelaxedMutator) -> None:
        self._mutator = mutator

    def __getitem__(self, key: str) -> Tensor:
        mutator = self._mutator
        for row in mutator.rows:
            if row.key == key:
                return mutator._weights[row.index][: row.count]
        return _all_true(mutator._choices[key]).to(mutator._device())

    def __iter__(self) -> Iterator[str]:
        return iter(self._mutator._choices)

    def __len__(self) -> int:
        return len(self._mutator._choices)
