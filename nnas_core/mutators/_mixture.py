"""Candidates that are mixed or selected by weights: calls that are made once, and weights that every reset renews."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nnas_core.mutables.base import Forward
from nnas_core.mutables.binding import Binding, Decided
from nnas_core.mutables.choices import AnyChoice
from nnas_core.mutables.plans import Plan, full_mask, hard_plan
from nnas_core.mutators._weight_rows import WeightRows

__all__ = ["Adapt", "Blend", "CallFor", "Mixture", "RelaxedRow"]


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

    def __init__(self, index: int, mutable: AnyChoice) -> None:
        self.key = mutable.key
        self.index = index
        self.mutable = mutable
        self.count = len(mutable)
        self.n_chosen = mutable.choice.n_chosen


CallFor = Callable[["Mixture", AnyChoice, RelaxedRow], Forward]
Adapt = Callable[[AnyChoice, Forward], Forward]


class Mixture:
    """The calls of a model's choices, whatever the weights are.

    Args:
        binding: of the model.
        rows: of the logits.
        call_for: makes the call of a choice whose key has a row; all inputs of another one take part, unweighted.
        adapt: of the mutator, for the latter.

    Attributes:
        weights: of the last reset.
        paths: of the last reset: the candidates that run, a sequence of indices a row, where not all do.
        calls: by the slots of the choices.
    """

    def __init__(self, binding: Binding, rows: Sequence[RelaxedRow], call_for: CallFor, adapt: Adapt) -> None:
        self.weights = WeightRows()
        self.paths: list[Sequence[int]] = []
        self.rows = {row.key: row for row in rows}
        self._device = binding.device
        self._adapt = adapt
        self.calls = [
            call_for(self, choice, self.rows[choice.key]) if choice.key in self.rows else self._unweighted(choice)
            for group in binding.groups.values()
            for choice in group
        ]

    def _unweighted(self, choice: AnyChoice) -> Forward:
        plan = hard_plan(choice, tuple(range(len(choice))), full_mask(choice).to(self._device))
        plan = Plan(self._adapt(choice, plan.run), plan.mask)
        return plan.run_with_mask if choice.return_mask else plan.run

    def renew(self, weights: Tensor, paths: Sequence[Sequence[int]]) -> None:
        """Take the weights ``[K, W]`` and the paths of a reset."""
        self.weights.renew(weights)
        self.paths[:] = paths

    def weights_of(self, row: RelaxedRow) -> Callable[[], Tensor]:
        """A function that gives the weights ``[W]`` of a row as the last reset left them."""
        weights, index = self.weights, row.index
        return lambda: weights[index]

    def with_mask(self, run: Forward, choice: AnyChoice, row: RelaxedRow) -> Forward:
        """``run``, which returns the weights of its candidates too."""
        weights, index, count = self.weights, row.index, row.count

        def run_with_mask(*args: object, **kwargs: object) -> tuple[object, Tensor]:
            return run(*args, **kwargs), weights[index][:count]

        return run_with_mask


class Blend(Decided):
    """The weights of one reset.

    Args:
        mixture: takes them.
        binding: of the model.
        weights: ``[K, W]``.
        paths: a sequence of indices a row, where not all candidates run.
    """

    def __init__(self, mixture: Mixture, binding: Binding, weights: Tensor, paths: Sequence[Sequence[int]]) -> None:
        super().__init__(binding.choices)
        self.weights = weights
        self.paths = paths
        self._mixture = mixture
        self._binding = binding

    def mask(self, key: str) -> Tensor:
        row = self._mixture.rows.get(key)
        if row is None:
            return full_mask(self._choices[key]).to(self._binding.device)
        return self.weights[row.index, : row.count]

    def install(self, binding: Binding) -> bool:
        if binding.is_taken_over:
            return False
        self._mixture.renew(self.weights, self.paths)
        binding.calls[:] = self._mixture.calls
        return True
