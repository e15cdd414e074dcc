"""What the tests of ProxylessNAS share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nnas_core.mutators.proxyless import ProxylessMutator

MODES = ["full", "full_v2", "two"]


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double()


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def proxyless(model: nn.Module, seed: int = 0, spread: float = 1.0, **options: Any) -> ProxylessMutator:
    """A mutator whose logits differ visibly."""
    mutator = ProxylessMutator(model, torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():
        mutator.logits.copy_(spread * points(*mutator.logits.shape, seed=99))
    return mutator
