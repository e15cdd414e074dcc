"""Rewards of architectures: the metric that one has on a batch of held-out data, with the weights as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnas_core.space.choice import Decision
from nnas_core.training.bilevel import BilevelTrainer
from nnas_core.training.task import Batch

__all__ = ["RewardedTrainer", "batch_statistics"]


class RewardedTrainer(BilevelTrainer):
    """Measures architectures one by one, for algorithms that follow a policy gradient."""

    @torch.no_grad()
    def reward_of(self, decisions: Mapping[str, Decision], batch: Batch) -> float:
        """The task's first metric of an architecture on a batch, negated where less is better.

        Returns:
            NaN if the metric has no value in that batch.

        Raises:
            NoResultError: it is infinite.
        """
        self.searching.decide(decisions)
        with self.autocast():
            output, target = self.task.forward_batch(self.network, batch)  # type: ignore[arg-type]
        values = self.task.metrics(output, target)
        value = next((number for name, number in values.items() if name != "loss"), next(iter(values.values())))
        if not math.isnan(value):
            self.require_finite(torch.tensor(value), "reward")
        return -value if self.task.metric_mode == "min" else value


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which BatchNorm normalises by the batch and keeps nothing of it."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, tracks in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = False, tracks
