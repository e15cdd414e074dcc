"""Proximal policy optimization: a recurrent policy decides key after key, and learns from batches of trials.

Source: Schulman et al., "Proximal Policy Optimization Algorithms", arXiv:1707.06347 (equations 7 and 9); Schulman et
al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv:1506.02438 (equation 16).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import UsageError
from nnas_core.plain_optimizers import Adam
from nnas_core.plugins.arguments import check_count, check_range
from nnas_core.randomness import derive_seed
from nnas_core.space.choice import Choice
from nnas_core.space.encoding import Code
from nnas_core.space.search_space import SearchSpace
from nnas_core.tuners._code_tuner import LearningTuner
from nnas_core.tuners._ranks import ranks

__all__ = ["Policy", "PpoTuner", "advantages_of", "loss_of"]

_HEATING, _HOTTEST = 1.5, 50.0
"""A batch of known architectures multiplies the temperature by the first, up to the second."""

_MOST_STEPS = 2000
"""More would take longer than seconds for each proposal."""


class PpoTuner(LearningTuner):
    """Reinforcement learning in which an architecture is an episode and each key a step, or several.

    A recurrent network reads what was decided so far and gives the probabilities of what is decided next, and an
    estimate of the reward, see ``Policy``. When ``trials_per_update`` trials have succeeded, it learns from them in
    ``epochs_per_update`` passes over minibatches, and they are forgotten. Trials may run at the same time, more than
    ``trials_per_update`` too: each counts with the probability that it had when it was proposed.

    The reward comes at the last step. It is the rank of the value among all that are known, from -1 for the lowest to
    1 for the highest, so it does not matter what the values measure. A trial that fails is not learned from.

    No architecture is proposed twice. Where a batch of ``trials_per_update`` draws has known ones only, as when the
    policy has come to be sure, it draws at a higher temperature, and where that does not help, at random; until it
    learns again. What was drawn so counts with the probability that it had there.

    Args:
        trials_per_update: trials that the policy learns from at a time.
        epochs_per_update: passes over them.
        minibatch_size: trials in a step of Adam.
        lr: learning rate of Adam, positive.
        cliprange: epsilon of equation 7: how far the ratio of the new probability to the old one is followed.
        ent_coef: weight of the entropy, c2 of equation 9.
        vf_coef: weight of the squared error of the estimate, c1 of equation 9.
        max_grad_norm: longer gradients are shortened to this length, positive.
        gamma: discount a step, from 0 to 1.
        lam: lambda of generalized advantage estimation, from 0 (what the next estimate says) to 1 (what came).
        hidden_size: units of the LSTM.
        embedding_size: numbers that stand for what was decided at the step before.
        seed: of the study.
        optimize_mode: ``"maximize"`` or ``"minimize"``.

    Attributes:
        policy: as it is now; there once the tuner has its search space.

    Raises:
        UsageError: an argument is out of range.
    """

    name = "ppo"

    policy: Policy

    def __init__(
        self,
        trials_per_update: int = 5,
        epochs_per_update: int = 4,
        minibatch_size: int = 5,
        lr: float = 0.01,
        cliprange: float = 0.2,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        gamma: float = 1.0,
        lam: float = 0.95,
        hidden_size: int = 64,
        embedding_size: int = 32,
        seed: int = 0,
        optimize_mode: str = "maximize",
    ) -> None:
        super().__init__(seed, optimize_mode)
        check_count("ppo: trials_per_update", trials_per_update)
        check_count("ppo: epochs_per_update", epochs_per_update)
        check_count("ppo: minibatch_size", minibatch_size)
        check_range("ppo: lr", lr, "(0, inf)")
        check_range("ppo: cliprange", cliprange, "(0, inf)")
        check_range("ppo: ent_coef", ent_coef, "[0, inf)")
        check_range("ppo: vf_coef", vf_coef, "[0, inf)")
        check_range("ppo: max_grad_norm", max_grad_norm, "(0, inf]")
        check_range("ppo: gamma", gamma, "[0, 1]")
        check_range("ppo: lam", lam, "[0, 1]")
        check_count("ppo: hidden_size", hidden_size)
        check_count("ppo: embedding_size", embedding_size)
        self._trials = trials_per_update
        self._epochs = epochs_per_update
        self._minibatch = minibatch_size
        self._rate = lr
        self._clip = cliprange
        self._entropy = ent_coef
        self._value = vf_coef
        self._norm = max_grad_norm
        self._gamma = gamma
        self._lam = lam
        self._sizes = (hidden_size, embedding_size)
        self._draws = torch.Generator().manual_seed(derive_seed(seed, "tuner", "ppo", "policy"))

    def _begin(self) -> None:
        """Begins with a policy that knows nothing."""
        steps = sum(map(_steps_of, self._codes.space))
        if steps > _MOST_STEPS:
            raise UsageError(
                f"tuner 'ppo' decides in at most {_MOST_STEPS} steps, and this search space takes {steps}",
                hint="take a tuner for spaces of any size: evolution, local-search or random",
            )
        self.policy = Policy(self._codes.space, *self._sizes, self._draws)
        self._optimizer = Adam(self.policy.parameters(), lr=self._rate, eps=1e-5)
        self._values: list[float] = []  # all that are known
        self._running: dict[int, Tensor] = {}  # the log-probabilities that proposals had
        self._batch: list[tuple[Code, Tensor]] = []  # to learn from: of the last of them
        self._source = self._proposals()

    def _propose(self, parameter_id: int) -> Code | None:
        """Proposes what the policy draws."""
        drawn = next(self._source, None)
        code, temperature = drawn if drawn is not None else (self._unseen.draw(self._rng), math.inf)
        if code is not None:
            self._running[parameter_id] = self._log_probability(code, temperature)
        return code

    def _learn(self, code: Code, value: float, parameter_id: int | None) -> None:
        """Lets the policy learn once enough trials have come; one of elsewhere counts as if it had drawn it now."""
        log_p = None if parameter_id is None else self._running.pop(parameter_id, None)
        self._values.append(value)
        self._batch.append((code, self._log_probability(code) if log_p is None else log_p))
        if len(self._batch) == self._trials:
            if self.policy.steps:
                self._update()
            self._batch.clear()
            self._source = self._proposals()

    def trial_end(self, parameter_id: int, success: bool, **kwargs: object) -> None:
        """Forgets the proposal of a trial that failed."""
        self._running.pop(parameter_id, None)

    def _proposals(self) -> Iterator[tuple[Code, float]]:
        """Unknown architectures that the policy draws, as long as it is what it is now; and their temperatures."""
        temperature = 1.0
        while temperature <= _HOTTEST and self.policy.steps and self._unseen:
            drawn = self.policy.draw(self._trials, self._draws, temperature).T.tolist()
            known = True
            for code in map(self.policy.code, drawn):
                if code in self._unseen:
                    known = False
                    yield code, temperature
            if known:
                temperature *= _HEATING

    @torch.no_grad()
    def _log_probability(self, code: Code, temperature: float = 1.0) -> Tensor:
        """Computes the log-probability of each step, ``[T]``."""
        if not self.policy.steps:
            return torch.zeros(0)
        actions = torch.tensor(self.policy.actions(code)).unsqueeze(1)
        log_p: Tensor = self.policy(actions, temperature)[0]
        return log_p.gather(2, actions.unsqueeze(2))[:, 0, 0]

    def _update(self) -> None:
        codes, log_ps = zip(*self._batch, strict=True)
        actions = torch.tensor([self.policy.actions(code) for code in codes]).T
        old = torch.stack(log_ps, dim=1)
        rewards = torch.from_numpy(ranks(self._values)[-len(codes) :].copy())
        with torch.no_grad():
            values = self.policy(actions)[1]
        advantages = advantages_of(rewards, values, self._gamma, self._lam)
        for _ in range(self._epochs):
            for part in torch.split(torch.randperm(len(codes), generator=self._draws), self._minibatch):
                log_p, estimates = self.policy(actions[:, part])
                loss = loss_of(
                    log_p,
                    actions[:, part],
                    old[:, part],
                    advantages[:, part],
                    estimates,
                    (advantages + values)[:, part],
                    cliprange=self._clip,
                    vf_coef=self._value,
                    ent_coef=self._entropy,
                )
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.policy.parameters(), self._norm)
                self._optimizer.step()


def advantages_of(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """Generalized advantage estimates (equation 16) of episodes whose reward comes at the last step.

    Args:
        rewards: ``[B]``.
        values: estimates ``[T, B]`` at each step, before its decision.
        gamma: discount a step.
        lam: lambda.

    Returns:
        ``[T, B]``.
    """
    advantages = torch.empty_like(values)
    advantages[-1] = rewards - values[-1]
    for step in range(len(values) - 2, -1, -1):
        advantages[step] = gamma * values[step + 1] - values[step] + gamma * lam * advantages[step + 1]
    return advantages


def loss_of(
    log_p: Tensor,
    actions: Tensor,
    old: Tensor,
    advantages: Tensor,
    values: Tensor,
    returns: Tensor,
    *,
    cliprange: float,
    vf_coef: float,
    ent_coef: float,
) -> Tensor:
    """Returns the negative of equation 9, a mean over steps and episodes.

    Args:
        log_p: of all actions ``[T, B, W]``, minus infinity where one is impossible.
        actions: that were taken ``[T, B]``.
        old: log-probabilities ``[T, B]`` that they had.
        advantages: ``[T, B]``.
        values: estimates ``[T, B]``.
        returns: what they should be ``[T, B]``.
        cliprange: epsilon of equation 7.
        vf_coef, ent_coef: weights of the squared error and of the entropy.
    """
    ratio = (log_p.gather(2, actions.unsqueeze(2)).squeeze(2) - old).exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - cliprange, 1 + cliprange) * advantages)
    finite = torch.where(log_p.isinf(), 0.0, log_p)  # 0 * log 0 is 0
    entropy = -(log_p.exp() * finite).sum(2)
    return -(surrogate - vf_coef * (values - returns).square() + ent_coef * entropy).mean()


def _steps_of(choice: Choice) -> int:
    """Counts the steps that a decision at a key takes."""
    if choice.size == 1:
        return 0
    return 1 if choice.n_chosen == 1 else len(choice.candidates)


class Policy(nn.Module):
    """A distribution over architectures, decided step by step in the order of the keys.

    A choice of one candidate is one step, whose actions are its candidates. One of several, or of any number, is a
    step a candidate, which is left (0) or taken (1). So each architecture is made in one way only, and its
    probability is the product of those of its steps. Where the number to take is fixed, the logits get the logarithms
    of how many of the rest must be left and taken: with equal logits each set is equally likely, and no other number
    can be taken. A key with one decision has no step.

    An LSTM reads the embedding of the action before. Each step has its own linear layers for the logits and for the
    estimate of the reward; both begin at 0, so that all decisions at a key are equally likely at first.

    Args:
        space: of the architectures.
        hidden_size: H, units of the LSTM.
        embedding_size: E.
        generator: of the initial weights.

    Attributes:
        steps: T, how many an architecture takes; 0 in a space of a single one.
    """

    def __init__(self, space: SearchSpace, hidden_size: int, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self._spans: list[tuple[int, Choice, range]] = []  # the place of each choice in a code, and its steps
        self._counted: dict[int, tuple[Choice, int]] = {}  # of steps to a fixed number: the choice, its first step
        widths: list[int] = []
        for place, choice in enumerate(space):
            if choice.size > 1:
                single = choice.n_chosen == 1
                span = range(len(widths), len(widths) + _steps_of(choice))
                self._spans.append((place, choice, span))
                if not single and choice.n_chosen is not None:
                    self._counted.update(dict.fromkeys(span, (choice, span.start)))
                widths += [len(choice.candidates) if single else 2 for _ in span]
        self._keys = len(space)
        self.steps = len(widths)
        width = max(widths, default=0)
        impossible = torch.arange(width) >= torch.tensor(widths, dtype=torch.long).unsqueeze(1)
        self._mask = torch.zeros(self.steps, width, dtype=torch.float64).masked_fill(impossible, -math.inf)
        with torch.random.fork_rng(devices=[]):  # it fills its weights from the global generator
            self.lstm = nn.LSTM(embedding_size, hidden_size, dtype=torch.float64)
        for weights in self.lstm.parameters():
            _fill(weights, 1 / math.sqrt(hidden_size), generator)
        self.embedding = nn.Parameter(torch.empty(self.steps, width, embedding_size, dtype=torch.float64))
        _fill(self.embedding, 1.0, generator)
        self.head = nn.Parameter(torch.zeros(self.steps, width, hidden_size, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(self.steps, width, dtype=torch.float64))
        self.value_head = nn.Parameter(torch.zeros(self.steps, hidden_size, dtype=torch.float64))
        self.value_bias = nn.Parameter(torch.zeros(self.steps, dtype=torch.float64))

    def actions(self, code: Code) -> list[int]:
        """Returns the actions ``[T]`` that make an architecture."""
        found: list[int] = []
        for place, choice, span in self._spans:
            if choice.n_chosen == 1:
                found.append(code[place])
            else:
                taken = set(choice.decision(code[place]))
                found += [int(index in taken) for index in range(len(span))]
        return found

    def code(self, actions: Sequence[int]) -> Code:
        """Returns the architecture that actions make; the inverse of ``actions``."""
        code = [0] * self._keys
        for place, choice, span in self._spans:
            if choice.n_chosen == 1:
                code[place] = actions[span.start]
            else:
                code[place] = choice.number(tuple(step - span.start for step in span if actions[step]))
        return tuple(code)

    def forward(self, actions: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probabilities of all actions ``[T, B, W]``, and estimates ``[T, B]``, before each of ``actions``.

        Args:
            actions: ``[T, B]``, of B architectures.
            temperature: of the logits; at infinity all decisions at a key are equally likely.
        """
        before = self.embedding[torch.arange(self.steps - 1).unsqueeze(1), actions[:-1]]
        hidden, _ = self.lstm(torch.cat([self._start(actions), before]))
        prior = self._mask.unsqueeze(1).repeat(1, actions.shape[1], 1)
        for step in self._counted:
            prior[step] = self._prior(step, actions)
        logits = (hidden @ self.head.transpose(1, 2) + self.bias.unsqueeze(1)) / temperature + prior
        values = (hidden * self.value_head.unsqueeze(1)).sum(2) + self.value_bias.unsqueeze(1)
        return logits.log_softmax(2), values

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Returns the actions ``[T, count]`` of architectures that are drawn independently."""
        actions = torch.zeros(self.steps, count, dtype=torch.long)
        given, state = self._start(actions), None
        for step in range(self.steps):
            hidden, state = self.lstm(given, state)
            logits = (hidden[0] @ self.head[step].T + self.bias[step]) / temperature + self._prior(step, actions)
            actions[step] = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
            given = self.embedding[step, actions[step]].unsqueeze(0)
        return actions

    def _start(self, actions: Tensor) -> Tensor:
        """Returns the input of the first step, ``[1, B, E]``."""
        return self.embedding.new_zeros(1, actions.shape[1], self.embedding.shape[2])

    def _prior(self, step: int, actions: Tensor) -> Tensor:
        """Returns an offset for the logits of a step, given the actions before it: ``[B, W]``, or ``[W]`` for all."""
        if step not in self._counted:
            return self._mask[step]
        choice, start = self._counted[step]
        rest = len(choice.candidates) - (step - start)
        take = (choice.n_chosen or 0) - actions[start:step].sum(0)
        prior = self._mask[step].repeat(actions.shape[1], 1)
        prior[:, :2] = torch.stack([rest - take, take], dim=1).double().log()
        return prior


def _fill(weights: Tensor, limit: float, generator: torch.Generator) -> None:
    """Draws weights uniformly between ``-limit`` and ``limit``."""
    weights.data.copy_((2 * torch.rand(weights.shape, generator=generator, dtype=torch.float64) - 1) * limit)
