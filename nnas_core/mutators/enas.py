"""Let a controller propose single paths, and reinforce what does well on validation data.

Source: Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", arXiv:1802.03268.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn as nn
from numpy.typing import NDArray
from torch import Tensor

from nnas_core.errors import BindingError, UsageError
from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutators._controller.policy import Controller, Evaluated
from nnas_core.mutators._rewards import RewardedTrainer, batch_statistics
from nnas_core.plain_optimizers import Adam
from nnas_core.space.choice import Decision
from nnas_core.training.task import Batch

__all__ = ["EnasMutator", "EnasTrainer"]


_BATCHES_A_STEP = 10  # NNI: 500 steps of the weights and 50 of the controller an epoch


class EnasTrainer(RewardedTrainer):
    """Steps of the weights with sampled architectures, and in between, evenly, ``mutator_steps`` of the controller.

    A controller's step draws ``aggregate`` architectures, measures each on one batch of held-out data, and follows the
    policy gradient (section 2.2). It comes after a step of the weights as a whole, so a training that was interrupted
    goes on to the bit. Where the data do not say how many batches there are, the controller makes a step after each of
    the first ones, or after every tenth.

    The reward is measured in evaluation mode, except that BatchNorm normalises by the batch, as in the authors'
    program: its running statistics mix all architectures. They are left as they are.
    """

    @property
    def searching(self) -> EnasMutator:
        """The mutator.

        Raises:
            BindingError: it has no controller.
        """
        return self.mutator_of(EnasMutator)

    @property
    def remarks(self) -> Sequence[str]:
        """What the controller costs."""
        steps, batches, samples = self.steps_wanted(self.epoch), self.steps_of(self.epoch), self.searching.aggregate
        if steps is None:
            return ()
        forward = f"{steps} steps of the controller an epoch measure {samples} architectures each"
        return (f"{forward}: {steps * samples:,} forward passes beside {batches:,} steps of the weights",)

    def train_batch(self, batch: Batch) -> None:
        """One step of the weights, and the steps of the controller that are due then."""
        self.weight_step(batch)
        for _ in range(self.steps_due()):
            self.controller_step()

    def steps_due(self) -> int:
        """Steps of the controller after the current batch."""
        given, batches = self.searching.mutator_steps, self.steps_of(self.epoch)
        wanted = self.steps_wanted(self.epoch)
        if wanted is None:
            return int(self.batch % _BATCHES_A_STEP == 0 if given is None else self.batch < given)
        return (self.batch + 1) * wanted // batches - self.batch * wanted // batches

    def steps_wanted(self, epoch: int) -> int | None:
        """Steps of the controller in an epoch; None if the data do not say how many batches it has."""
        given, batches = self.searching.mutator_steps, self.steps_of(epoch)
        if not batches:
            return None
        return max(1, round(batches / _BATCHES_A_STEP)) if given is None else given

    def controller_step(self) -> None:
        """Draw architectures, measure them, and update the controller."""
        mutator = self.searching
        masks = mutator.draw(mutator.aggregate)
        with batch_statistics(self.model):
            measured_rewards = [
                self.reward_of(mutator.decisions(mask), self.to_device(next(self.held_out))) for mask in masks
            ]
        self.model.train()
        known = [not math.isnan(reward) for reward in measured_rewards]
        if not any(known):
            return  # batches in which the metric has no value: the recall of a class that is not in them
        rewards = [reward for reward, is_known in zip(measured_rewards, known, strict=True) if is_known]
        loss, evaluated = mutator.surrogate(masks[known], rewards)
        self.architecture_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_grad:
            nn.utils.clip_grad_norm_(self.architecture_parameters, self.clip_grad)
        self.architecture_optimizer.step()
        measured = {"reward": sum(rewards) / len(rewards), "entropy": evaluated.entropy.mean().item()}
        self._averages.update({f"controller_{name}": value for name, value in measured.items()}, 1)


class EnasMutator(Mutator):
    """Samples single paths from an LSTM controller, which is trained by REINFORCE.

    The controller makes one step a key, over the tree of mutables (``nnas_core.mutators._controller``). Candidates may
    differ in number; an InputChoice takes any number of its inputs (with a penalty that keeps them near
    ``skip_target``), or ``n_chosen``: the log-probability is that of the set, not of an order.

    ``export`` gives a sample, as NNI does. The paper derives an architecture by measuring several samples and keeping
    the best (section 2.2): the parameter ``derive`` of a search does.

    The defaults are NNI's. With them it may settle early: on 64 architectures with a planted reward it found the best
    with 7 of 10 seeds; with ``temperature=5``, ``tanh_constant=2.5`` and ``entropy_weight=0.1`` (the paper's, for
    convolutional networks) and ``learning_rate=0.01`` with 40 of 40.

    Different from NNI: the start vector is learnt; the entropy's own gradient is followed too, without which one
    choice would have none; the baseline starts at the first rewards, and is updated after its use; the penalty is
    that of the probabilities that are sampled; several inputs without tags are told apart. NNI's ``branch_bias``, a
    constant that favours classes with "conv" in their name at keys with "reduce" in theirs, is left out: it would
    depend on names.

    Args:
        model: to be bound.
        generator: source of samples and of the controller's initial weights, on the CPU; torch's default generator if
            None.
        lstm_size: numbers in a state of the LSTM.
        lstm_num_layers: its layers.
        tanh_constant: limit logits to plus or minus this, by a tanh; null: no limit.
        temperature: divide logits by this, before the tanh; null: as 1.
        cell_exit_extra_step: make one more step at the end of each scope, whose state stands for the scope.
        skip_target: probability with which an input is chosen that the penalty asks for, where any number is taken.
        entropy_reduction: of the inputs where any number is taken: ``sum`` or ``mean``.
        entropy_weight: of the policy's entropy, beside the reward; the paper has 0.1 for convolutional networks.
        skip_weight: of the penalty.
        baseline_decay: of the moving average of rewards that is subtracted from each.
        learning_rate: of Adam, for the controller.
        mutator_steps: steps of the controller an epoch; null: one for every ten batches, at least 1 (NNI: 50 for 500).
        aggregate: architectures that a step of the controller samples.
    """

    derives = True
    samples_within = True
    trainer = EnasTrainer

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator | None = None,
        *,
        lstm_size: int = 64,
        lstm_num_layers: int = 1,
        tanh_constant: float | None = 1.5,
        temperature: float | None = None,
        cell_exit_extra_step: bool = False,
        skip_target: float = 0.4,
        entropy_reduction: Literal["sum", "mean"] = "sum",
        entropy_weight: float = 1e-4,
        skip_weight: float = 0.8,
        baseline_decay: float = 0.999,
        learning_rate: float = 3.5e-4,
        mutator_steps: int | None = None,
        aggregate: int = 20,
    ) -> None:
        counts = {
            "lstm_size": lstm_size,
            "lstm_num_layers": lstm_num_layers,
            "mutator_steps": 1 if mutator_steps is None else mutator_steps,
            "aggregate": aggregate,
        }
        for name, count in counts.items():
            _require(count >= 1, name, count, "at least 1")
        for name, number in {"tanh_constant": tanh_constant, "temperature": temperature}.items():
            _require(number is None or 0 < number < math.inf, name, number, "above 0, or null")
        for name, number in {"entropy_weight": entropy_weight, "skip_weight": skip_weight}.items():
            _require(0 <= number < math.inf, name, number, "at least 0")
        _require(0 < learning_rate < math.inf, "learning_rate", learning_rate, "above 0")
        _require(0 < skip_target < 1, "skip_target", skip_target, "between 0 and 1")
        _require(0 <= baseline_decay < 1, "baseline_decay", baseline_decay, "at least 0 and below 1")
        _require(entropy_reduction in ("sum", "mean"), "entropy_reduction", entropy_reduction, "'sum' or 'mean'")
        super().__init__(model)
        self.generator = generator
        self.entropy_weight = entropy_weight
        self.skip_weight = skip_weight
        self.baseline_decay = baseline_decay
        self.learning_rate = learning_rate
        self.mutator_steps = mutator_steps
        self.aggregate = aggregate
        self.baseline: float | None = None
        floating = (one.dtype for one in model.parameters() if one.dtype in (torch.float32, torch.float64))
        self.controller = Controller(
            self.mutables,
            generator,
            size=lstm_size,
            layers=lstm_num_layers,
            tanh_constant=tanh_constant,
            temperature=temperature,
            exit_step=cell_exit_extra_step,
            skip_target=skip_target,
            mean_entropy=entropy_reduction == "mean",
            dtype=next(floating, torch.float32),
        )
        self.controller.to(self.binding.device)

    # ---- sampling

    def sample_search(self) -> Mapping[str, Tensor]:
        """key -> bool mask, sampled from the controller."""
        return self.hard(self.draw_within(lambda: self.decisions(self.draw(1)[0])))

    def sample_final(self) -> Mapping[str, Tensor]:
        """Another sample."""
        return self.sample_search()

    def decision_weights(self) -> Mapping[str, Sequence[float]]:
        """The shares of 256 samples that take each candidate; always drawn by the same random numbers."""
        draws = self.controller.draw(256, torch.Generator().manual_seed(0))
        shares = draws.masks.mean(axis=0).tolist()
        places = self.controller.script.places
        return {one.choice.key: shares[one.start : one.start + len(one.choice.candidates)] for one in places}

    def draw(self, count: int) -> NDArray[np.bool_]:
        """Sample ``count`` architectures: masks ``[count, N]`` for ``decisions`` and ``surrogate``."""
        return self.controller.draw(count, self.generator).masks

    def decisions(self, mask: NDArray[np.bool_]) -> dict[str, Decision]:
        """The architecture of a mask ``[N]``, by key."""
        return self.controller.decisions(mask)

    def candidates_changed(self, mutable: LayerChoice) -> None:
        """Called when the candidates of a bound LayerChoice were replaced or deleted.

        Raises:
            BindingError: there are fewer now: the controller still decides about those it was made for.
        """
        super().candidates_changed(mutable)
        known = {place.choice.key: len(place.choice.candidates) for place in self.controller.script.places}
        if len(mutable) != known[mutable.key]:
            raise BindingError(
                f"{mutable.key!r} has {len(mutable)} candidates now, the controller decides about {known[mutable.key]}",
                where=mutable.name,
                hint="take candidates out before the mutator is bound",
            )

    # ---- learning

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam with ``learning_rate``, for the controller."""
        return Adam(self.controller.parameters(), lr=self.learning_rate)

    def surrogate(self, masks: NDArray[np.bool_], rewards: Sequence[float]) -> tuple[Tensor, Evaluated]:
        """Return the scalar to descend, after ``masks`` brought ``rewards``; the baseline takes the rewards in.

        Its gradient is the mean over samples of ``-(R - b) grad log p - entropy_weight grad H + skip_weight grad KL``,
        with ``R = reward + entropy_weight H``; b, the baseline, is the moving average of all R before, and at first
        the mean of these. So it estimates the gradient of expected reward and entropy without bias, and adds that of
        the penalty in the states that were reached, as the authors' program does.

        Args:
            masks: ``[B, N]``, of architectures sampled from the controller as it is.
            rewards: B numbers.

        Returns:
            A scalar to differentiate, and what the controller says about ``masks``.
        """
        evaluated = self.controller(masks)
        entropy = evaluated.entropy
        returns = torch.tensor(rewards, dtype=entropy.dtype).to(entropy.device) + self.entropy_weight * entropy.detach()
        seen = returns.tolist()
        baseline = sum(seen) / len(seen) if self.baseline is None else self.baseline
        reinforced = -(returns - baseline) * evaluated.log_probability
        loss = (reinforced - self.entropy_weight * entropy + self.skip_weight * evaluated.penalty).mean()
        for number in seen:
            baseline = self.baseline_decay * baseline + (1 - self.baseline_decay) * number
        self.baseline = baseline
        return loss, evaluated

    def get_extra_state(self) -> dict[str, object]:
        """The baseline."""
        return {"baseline": self.baseline}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``get_extra_state`` returned."""
        self.baseline = state["baseline"]


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}, it must be {expected}", hint="see `nnas list mutators`")
