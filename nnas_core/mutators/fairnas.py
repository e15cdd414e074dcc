"""Train as many single paths a step as there are candidates, each candidate once, and update once.

Source: Chu, Zhang, Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search",
arXiv:1907.01845 (section 3.2, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.nested import copied
from nnas_core.plugins.arguments import check_range
from nnas_core.space.choice import Choice, Decision
from nnas_core.training.in_place import repeated_if_changed_in_place
from nnas_core.training.task import Batch
from nnas_core.training.trainer import Trainer

__all__ = ["FairnasMutator", "FairnasTrainer"]


class FairnasTrainer(Trainer):
    """Algorithm 1 of the paper: a step is a fair round of paths on one batch, and one update.

    The metrics of an epoch are means over all paths, and its samples count once for each path that saw them.

    Raises:
        BindingError: the mutator is no ``FairnasMutator``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.searching  # noqa: B018  # refuses another mutator before anything is trained

    @property
    def searching(self) -> FairnasMutator:
        """The mutator, whose rounds this loop trains."""
        return self.mutator_of(FairnasMutator)

    @repeated_if_changed_in_place
    def weight_step(self, batch: Batch) -> None:
        """The gradients of a round of paths, accumulated, and one update of the weights."""
        mutator = self.searching
        mutator.start_round()
        self.optimizer.zero_grad()
        for _ in range(mutator.paths):
            loss, output, target = self.training_step(copied(batch))  # a path may change its own
            self.backward(loss / mutator.paths if mutator.gradients == "mean" else loss)
            self.record(loss, output, target)
        self.update_weights()


class FairnasMutator(Mutator):
    """Strict fairness: in each round of m paths, all candidates of a key are used equally often.

    With n candidates at every LayerChoice, m is n: a random permutation a key says which path uses which candidate, and
    all permutations are equally likely and independent (equation 4). So a candidate is never more than a round behind,
    where m independent draws leave about a third of the candidates out.

    Keys that differ in n, and InputChoices, are served as fairly. Each key has its own round: n paths for one of n;
    n / gcd(n, k) for an InputChoice that takes k of n, where a random order of its inputs, read around in stretches of
    k, uses each k / gcd(n, k) times; 2 for one of any number, a random subset and what that leaves out. m is the least
    common multiple of these, and a key with a round of c paths goes through m / c rounds. Every single path is
    uniformly distributed. m multiplies the time of a step, so ``max_paths`` bounds it.

    The gradients of the m paths add up, as in the paper. Weights outside of the choices take part in all m paths, and a
    candidate in m / n, so their updates are about that much longer than in a step of one path: choose the learning rate
    by that, or let ``gradients="mean"`` divide by m, which keeps the update of shared weights as it is and makes that
    of a candidate 1 / n of it. ``clip_grad`` limits the accumulated gradient.

    Where no round was started, as in validation and in other loops, ``reset`` draws a path by itself, uniformly.

    Args:
        model: to be bound.
        generator: source of permutations, on the CPU; torch's default generator if None.
        gradients: of the paths of a step, added up (the paper) or averaged.
        max_paths: the most that a step may have.

    Attributes:
        paths: that a round has, m.

    Raises:
        UsageError: an option is out of its range.
        BindingError: a round has more paths than ``max_paths``.
    """

    derives = True
    trainer = FairnasTrainer
    draws_uniformly = True

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        gradients: Literal["sum", "mean"] = "sum",
        max_paths: int = 60,
    ) -> None:
        if gradients not in ("sum", "mean"):
            raise UsageError(f"gradients={gradients!r} is neither 'sum' nor 'mean'")
        check_range("max_paths", max_paths, "[1, inf)")
        super().__init__(model)
        self.generator = generator
        self.gradients = gradients
        self.max_paths = max_paths
        self._ahead: list[dict[str, Decision]] = []  # the paths that are left of the round, the next one last
        self._plan()

    def _plan(self) -> None:
        """Find the number of paths of a round."""
        self._plain = {one.key: one.choice for one in self.choices}
        self.paths = math.lcm(*map(_round_of, self._plain.values()))
        if self.paths <= self.max_paths:
            return
        needs: dict[int, list[str]] = {}
        for key, choice in self._plain.items():
            needs.setdefault(_round_of(choice), []).append(key)
        shown = (
            f"{count} at {keys[0]!r}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            for count, keys in sorted(needs.items())
        )
        raise BindingError(
            f"a fair step would train {self.paths:,} paths, more than max_paths={self.max_paths}: the least common"
            f" multiple of {', '.join(shown)}",
            hint="give choices numbers of candidates that divide each other, raise max_paths (m paths take m times as"
            " long), or use random or spos",
        )

    def start_round(self) -> None:
        """Draw a new round; the next ``paths`` resets go through it."""
        rounds = {key: self._rounds(choice, self.paths) for key, choice in self._plain.items()}
        self._ahead = [{key: paths[number] for key, paths in rounds.items()} for number in reversed(range(self.paths))]

    def _rounds(self, choice: Choice, paths: int) -> list[Decision]:
        """The decisions of one key for at least ``paths`` paths: whole rounds of its own."""
        count, taken, length = len(choice.candidates), choice.n_chosen, _round_of(choice)
        drawn = torch.rand(math.ceil(paths / length), count, generator=self.generator, dtype=torch.float64)
        decisions: list[Decision] = []
        if taken is None:
            for subset in (drawn < 0.5).tolist():
                decisions += [tuple(i for i, on in enumerate(subset) if on is chosen) for chosen in (True, False)]
            return decisions
        for order in drawn.argsort(dim=1).tolist():
            around = order * (taken + 1)
            decisions += [tuple(sorted(around[n * taken : (n + 1) * taken])) for n in range(length)]
        return decisions

    def _next(self) -> dict[str, Decision]:
        if self._ahead:
            return self._ahead.pop()
        return {key: self._rounds(choice, 1)[0] for key, choice in self._plain.items()}

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask of the next path of the round; after its last one, of any path."""
        return self.hard(self._next())

    def sample_final(self) -> Mapping[str, Tensor]:
        """A path drawn uniformly: this algorithm ranks nothing, so draw several and keep the best on held-out data."""
        return self.hard({key: self._rounds(choice, 1)[0] for key, choice in self._plain.items()})

    def candidates_changed(self, mutable: LayerChoice) -> None:
        super().candidates_changed(mutable)
        self._ahead = []
        self._plan()


def _round_of(choice: Choice) -> int:
    """The number of paths in which all candidates can be used equally often."""
    if choice.n_chosen is None:
        return 2
    return len(choice.candidates) // math.gcd(len(choice.candidates), choice.n_chosen)
