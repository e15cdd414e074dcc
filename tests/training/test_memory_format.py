"""The order of entries in memory, and what a fused optimizer needs of it."""

from __future__ import annotations

import torch
from torch import nn

from nnas_core.training.memory_format import laid_out_as, match_layouts


def test_a_fused_optimizer_needs_the_strides_of_its_weights_and_gets_them() -> None:
    weight = nn.Parameter(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    stepped = []
    for rearranged in (False, True):
        mine = nn.Parameter(weight.detach().clone())
        optimizer = torch.optim.SGD([mine], lr=0.1, momentum=0.9, fused=True)
        mine.grad = torch.ones_like(mine)
        optimizer.step()
        optimizer.state[mine]["momentum_buffer"].copy_(weight.detach())
        if rearranged:
            mine.data = mine.data.contiguous(memory_format=torch.channels_last)
            match_layouts(optimizer)
            assert optimizer.state[mine]["momentum_buffer"].stride() == mine.stride()
        mine.grad = laid_out_as(mine, weight.detach())
        optimizer.step()
        stepped.append(mine.detach())
    assert torch.equal(*stepped)


def test_what_has_the_strides_already_is_not_copied() -> None:
    one = torch.ones(2, 3)
    assert laid_out_as(torch.zeros(2, 3), one) is one
