"""DARTS in stages: deeper models with fewer candidates, and skip connections held back.

Source: Chen, Xie, Wu, Tian, "Progressive Differentiable Architecture Search: Bridging the Depth Gap between Search and
Evaluation", arXiv:1904.12760.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nnas_core.errors import UsageError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.choices import AnyChoice, InputChoice
from nnas_core.mutables.plans import hard_mask, soft_run
from nnas_core.mutators._mixture import Mixture, RelaxedRow
from nnas_core.mutators._relaxation import hint_for_outputs
from nnas_core.mutators._skips import SkipConnections
from nnas_core.mutators.darts import DartsMutator, DartsTrainer
from nnas_core.plugins.arguments import check_range
from nnas_core.space.architecture import Architecture
from nnas_core.training.bilevel import warmup_of
from nnas_core.training.optimizers import State
from nnas_core.training.task import Batch

__all__ = ["PdartsMutator", "PdartsTrainer"]

_PAPER_WARMUP = 10 / 25
"""The part of a stage in which the paper leaves the architecture alone."""

_PAPER_SKIP_DROPOUT = (0.0, 0.4, 0.7)
"""On CIFAR-10."""


class PdartsTrainer(DartsTrainer):
    """A DARTS training a stage, each with a new model, optimizer and logits, and with the candidates that survived.

    The epochs are divided evenly; the last stage takes the remainder. A model that a program made, and that cannot be
    built again (no ``rebuild``), keeps its weights from stage to stage; all else is new there too.

    Raises:
        BindingError: the mutator is no PdartsMutator, or ``depth_arg`` is given and the model cannot be built again.
        UsageError: the epochs are too few for the stages or for ``warmup_epochs``.
        UserCodeError: a deeper model has another search space.
    """

    def __post_init__(self) -> None:
        mutator = self.mutator_of(PdartsMutator)
        length = self.epochs // mutator.stages
        if length == 0:
            raise UsageError(
                f"{self.epochs} epochs are too few for {mutator.stages} stages",
                hint=f"give {mutator.stages} or more `epochs`: they are divided among the stages",
            )
        warmup_of(mutator.warmup_epochs, _PAPER_WARMUP, length)  # of the shortest stage: refused now, not then
        self.stage = 0
        self.in_stages = mutator.stages > 1
        if mutator.depth_arg is not None:
            self._enter(0, mutator.alive())
        super().__post_init__()
        self.model_arguments = self._arguments(0)

    @property
    def progressing(self) -> PdartsMutator:
        """The mutator of the stage of now."""
        return self.mutator_of(PdartsMutator)

    # ---- stages

    def stage_of(self, epoch: int) -> int:
        """The stage, from 0, that an epoch belongs to."""
        stages = self.progressing.stages
        return min(epoch // (self.epochs // stages), stages - 1)

    def _place(self, epoch: int) -> tuple[int, int, int]:
        """Which epoch of its stage it is (from 0), how many the stage has, and how many of them are warm-up."""
        stages = self.progressing.stages
        length = self.epochs // stages
        stage = self.stage_of(epoch)
        epochs = self.epochs - stage * length if stage == stages - 1 else length
        warmup = warmup_of(self.progressing.warmup_epochs, _PAPER_WARMUP, epochs)
        return epoch - stage * length, epochs, warmup

    def _arguments(self, stage: int) -> dict[str, object]:
        mutator = self.progressing
        return {} if mutator.depth_arg is None else {mutator.depth_arg: mutator.layers[stage]}

    def _enter(self, stage: int, survivors: Mapping[str, Sequence[int]]) -> None:
        mutator = self.progressing
        arguments = self._arguments(stage)
        model = self.model if self.rebuild is None and not arguments else self.another_model(arguments)
        self.mutator = mutator.successor(model, survivors)
        self.model = model
        self.network = self.accelerated()
        self.model_arguments = arguments
        self.stage = stage

    @property
    def schedule_steps(self) -> int:
        """Of the stage of now."""
        length = self.epochs // self.progressing.stages
        is_last = self.stage == self.progressing.stages - 1
        epochs = self.epochs - self.stage * length if is_last else length
        return epochs * len(self.train_batches)

    def start_epoch(self, epoch: int) -> None:
        """Enter the next stage if this is its first epoch."""
        super().start_epoch(epoch)
        stage = self.stage_of(epoch)
        if stage != self.stage:
            self._enter(stage, self.progressing.survivors(stage))
            self.build_optimizers()
        self._set_skip_dropout(epoch)

    def _set_skip_dropout(self, epoch: int) -> None:
        """As the authors' code: from the stage's rate down linearly in the warm-up, then from it anew, as exp(-3 x)."""
        mutator = self.progressing
        number, epochs, warmup = self._place(epoch)
        left = (epochs - number - 1) / epochs
        if number >= warmup:
            left = math.exp(-3 * (number - warmup) / (epochs - warmup))
        mutator.skip_rate = mutator.rate_of(self.stage_of(epoch)) * left

    def train_batch(self, batch: Batch) -> None:
        """In the warm-up of a stage one step of the weights, later one of the architecture before it."""
        number, _, warmup = self._place(self.epoch)
        if number < warmup:
            self.weight_step(batch)
        else:
            super().train_batch(batch)

    # ---- going on later

    def state_dict(self) -> State:
        return {**super().state_dict(), "stage": self.stage}

    def prepare_for(self, state: Mapping[str, Any]) -> None:
        """Build the model, the mutator and the optimizers of the stage that ``state`` is of."""
        super().prepare_for(state)
        if state["stage"] != self.stage:
            self._enter(state["stage"], self.progressing.alive())  # who survived stands in the mutator's state
            self.build_optimizers()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.epoch < self.epochs:
            self._set_skip_dropout(self.epoch)


class PdartsMutator(DartsMutator):
    """DARTS whose weakest candidates are dropped after each stage, while the model grows (sections 3.2 and 3.3).

    A candidate that was dropped is not run, not trained and not chosen any more. Architectures are those of the whole
    space throughout. Nothing is dropped where a LayerChoice has one candidate.

    Skip connections, which train fastest, are held back twice: their outputs pass a dropout that fades in each stage,
    and of the final architecture at most ``max_skips`` a group are kept: where there are more, the one of the least
    weight becomes the best other candidate, until there are not. A group is a MutableScope that is in no other one (a
    cell), or everything outside of scopes; or what ``skip_groups`` says. LayerChoices without another candidate, and
    those that some InputChoice could have chosen and none has, do not count.

    Args:
        model: to be bound. With ``depth_arg``, the trainer builds that of the first stage anew.
        generator: source of the initial logits, on the CPU; torch's default generator if None.
        depth_arg: the model argument that grows, say ``"layers"``; null: the depth stays as it is.
        layers: the value of ``depth_arg`` in each stage (the paper: 5, 11, 17).
        drop: how many candidates each LayerChoice loses after each stage (what is lost after the last one changes
            nothing, the best is taken then); null: it keeps 1, 11/16, 3/8 of them (8, 5, 3 as the paper), at least 2.
        skip: names of the candidates that are skip connections; null: every ``nn.Identity``, and those whose name
            begins with skip or identity.
        skip_dropout: the rate for each stage, from 0 to less than 1; null: 0, 0.4, 0.7, as in the paper.
        max_skips: skip connections left in a group of the final architecture; null: any number.
        skip_groups: beginnings of keys of LayerChoices, each of which makes a group, or of scopes, each of which is
            one (["normal"] limits the normal cells alone, as the paper does); others are not limited.
        warmup_epochs: of each stage, in which only weights are trained; null: 2 of 5, as in the paper (10 of 25).
        learning_rate: of Adam, for the logits (the paper: 6e-4).
        betas: of Adam.
        weight_decay: of Adam.
        order: 1, as in the paper; 2: take the weights as they are after one step of theirs, exactly, as ``darts`` can.
        zero: let one more logit a LayerChoice stand for no candidate, as NNI does; it is never dropped.

    Raises:
        UsageError: an option is out of range, contradicts another one, or does not fit the model.
    """

    trainer = PdartsTrainer
    has_fixed_graph = False  # the rate of the dropout behind skip connections is a part of it

    skip_rate = 0.0
    """Of the dropout behind skip connections; the trainer sets it before each epoch."""

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        depth_arg: str | None = None,
        layers: Sequence[int] | None = None,
        drop: Sequence[int] | None = None,
        skip: Sequence[str] | None = None,
        skip_dropout: Sequence[float] | None = None,
        max_skips: int | None = 2,
        skip_groups: Sequence[str] | None = None,
        warmup_epochs: int | None = None,
        learning_rate: float = 3e-4,
        betas: Sequence[float] = (0.5, 0.999),
        weight_decay: float = 1e-3,
        order: Literal[1, 2] = 1,
        zero: bool = True,
    ) -> None:
        self.stages = len(drop if drop is not None else layers if layers is not None else _PAPER_SKIP_DROPOUT)
        _check_stages(self.stages, depth_arg, layers, drop, skip_dropout)
        check_range("warmup_epochs", warmup_epochs or 0, "[0, inf)")
        skips = SkipConnections(skip, max_skips, skip_groups)
        super().__init__(
            model,
            generator,
            order=order,
            learning_rate=learning_rate,
            betas=betas,
            weight_decay=weight_decay,
            zero=zero,
        )
        self.depth_arg, self.layers, self.drop = depth_arg, tuple(layers or ()), drop
        self.skip_dropout, self.warmup_epochs, self.skips = skip_dropout, warmup_epochs, skips
        self._check_fit()

    def _check_fit(self) -> None:
        """Compare the options with the candidates that there are."""
        for row in self.rows:
            if self.drop is not None and 1 < row.count <= sum(self.drop):
                raise UsageError(
                    f"drop={list(self.drop)} takes {sum(self.drop)} of the {row.count} candidates of {row.key!r},"
                    f" it may take {row.count - 1}",
                    hint="drop fewer, or leave drop out: then each LayerChoice keeps a part of its candidates",
                )
        self.skips.check(self.rows, self.mutables, lambda row: self._keeps(row, self.stages - 1))

    # ---- candidates

    def alive(self) -> dict[str, list[int]]:
        """key of a LayerChoice -> the candidates that are left, by their numbers in the whole space."""
        return {row.key: self.kept(row) for row in self.rows}

    def survivors(self, stage: int) -> dict[str, list[int]]:
        """Return the candidates that ``stage`` (from 1) starts with: of those that are left, the largest logits."""
        logits = self.logits.tolist()
        alive = self.alive()
        kept = {}
        for row in self.rows:
            strongest = sorted(alive[row.key], key=lambda index, own=logits[row.index]: -own[index])  # type: ignore[misc]
            kept[row.key] = sorted(strongest[: self._keeps(row, stage)])
        return kept

    def _keeps(self, row: RelaxedRow, stage: int) -> int:
        """How many candidates a LayerChoice has in a stage."""
        if row.count == 1 or stage == 0:
            return row.count
        if self.drop is not None:
            return row.count - sum(self.drop[:stage])
        part = 1 - 5 / 8 * stage / (self.stages - 1)
        return max(int(row.count * part), min(row.count, max(2, len(self.skips.of(row.mutable)) + 1)))

    def rate_of(self, stage: int) -> float:
        """The rate of the dropout behind skip connections at the beginning of a stage."""
        if self.skip_dropout is not None:
            return self.skip_dropout[stage]
        return _PAPER_SKIP_DROPOUT[min(stage, len(_PAPER_SKIP_DROPOUT) - 1)]

    def successor(self, model: nn.Module, survivors: Mapping[str, Sequence[int]]) -> PdartsMutator:
        """A mutator with the options of this one and new logits.

        Args:
            model: to be bound; with the same search space. If it is that of this mutator, this one lets go of it.
            survivors: key -> the candidates that are left.
        """
        memo: dict[int, Any] = {id(row.mutable): row.mutable for row in self.rows}  # replaced when the twin is bound
        if self.generator is not None:
            memo[id(self.generator)] = self.generator
        attributes = copy.deepcopy(self.__getstate__()[0], memo)
        if model is self.model:
            self.unbind()
        twin = type(self).__new__(type(self))
        twin.__setstate__((attributes, model))
        twin.check_all()
        initial = 1e-3 * torch.randn(self.logits.shape, generator=self.generator, dtype=torch.float64)
        with torch.no_grad():
            twin.logits.copy_(initial)
            for row in twin.rows:
                twin.valid[row.index, : row.count] = False
                twin.valid[row.index, list(survivors[row.key])] = True
        return twin

    # ---- skip connections

    def blend(self, mixture: Mixture, mutable: AnyChoice, row: RelaxedRow) -> Forward:
        """The candidates that are left, weighted; with dropout behind skip connections."""
        skips = self.skips.of(mutable)

        def wrap(index: int, candidate: Forward) -> Forward:
            return functools.partial(self._run_skip, mutable, candidate) if index in skips else candidate

        return soft_run(mutable, self.kept(row), mixture.weights_of(row), wrap, hint_for_outputs)

    def _run_skip(self, mutable: nn.Module, candidate: Forward, *args: object, **kwargs: object) -> object:
        output = candidate(*args, **kwargs)
        return F.dropout(output, self.skip_rate) if mutable.training and self.skip_rate else output

    def sample_final(self) -> Mapping[str, Tensor]:
        """The strongest of the candidates that are left, and the inputs from them, within the limit of skips."""
        final = dict(super().sample_final())
        with torch.no_grad():
            weights = self.relaxed().masked_fill(~self.valid, -1.0).tolist()
        while (row := self.skips.surplus(self.rows, self.mutables, weights, self._read(final))) is not None:
            for index in self.skips.of(row.mutable):
                weights[row.index][index] = -1.0
            self._choose(weights, final)
        return final

    def accepts(self, architecture: Architecture) -> bool:
        """True if ``architecture`` has no more skips than the limit, or more where nothing else is there."""
        final = {key: torch.tensor(mask) for key, mask in architecture.masks().items()}
        equal = [[0.0] * self.valid.shape[1]] * len(self.valid)
        within = self.skips.surplus(self.rows, self.mutables, equal, self._read(final)) is None
        return within and super().accepts(architecture)

    def _read(self, final: Mapping[str, Tensor]) -> dict[str, int]:
        """key -> the candidate that was chosen, without the LayerChoices that no InputChoice has chosen."""
        offered: set[str] = set()
        taken: set[str] = set()
        for mutable in self.choices:
            if isinstance(mutable, InputChoice):
                offered.update(mutable.choose_from)
                chosen = final[mutable.key].tolist()
                taken.update(tag for tag, one in zip(mutable.choose_from, chosen, strict=True) if one)
        return {row.key: int(final[row.key].int().argmax()) for row in self.rows if row.key not in offered - taken}

    def _choose(self, weights: Sequence[Sequence[float]], final: dict[str, Tensor]) -> None:
        """Decide by ``weights`` ``[K][W]``: each LayerChoice first, then the inputs that come from the strongest."""
        strength = {}
        for row in self.rows:
            own = weights[row.index][: row.count]
            strength[row.key] = max(own)
            final[row.key] = hard_mask((own.index(max(own)),), row.count, torch.device("cpu"))
        for mutable in self.choices:
            if isinstance(mutable, InputChoice) and mutable.n_chosen is not None:
                final[mutable.key] = self._strongest(mutable, strength)


def _check_stages(
    stages: int,
    depth_arg: str | None,
    layers: Sequence[int] | None,
    drop: Sequence[int] | None,
    skip_dropout: Sequence[float] | None,
) -> None:
    if (depth_arg is None) != (layers is None):
        given, missing = ("layers", "depth_arg") if depth_arg is None else ("depth_arg", "layers")
        raise UsageError(f"{given} needs {missing}", hint='give both, say depth_arg="layers" and layers=[5,11,17]')
    for name, values in (("layers", layers), ("drop", drop), ("skip_dropout", skip_dropout)):
        if values is not None and (len(values) != stages or not values):
            raise UsageError(
                f"{name}={list(values)} has {len(values)} entries, it must have one for each of {stages or 1} stages",
                hint="layers, drop and skip_dropout have one entry a stage",
            )
    for name, numbers, interval in (
        ("layers", layers, "[1, inf)"),
        ("drop", drop, "[0, inf)"),
        ("skip_dropout", skip_dropout, "[0, 1)"),
    ):
        for number in numbers or ():
            check_range(name, number, interval)
