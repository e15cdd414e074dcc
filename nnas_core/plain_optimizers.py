"""Optimizers of torch that are ready at once.

torch keeps some methods of every optimizer from its compiler, and imports the whole compiler for that when one of them
is first called, which takes about as long as the import of torch itself. Here they are without it; who compiles
something has the compiler imported already.
"""

from __future__ import annotations

import inspect

import torch

__all__ = ["SGD", "Adam"]


class _Plain(torch.optim.Optimizer):
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class SGD(_Plain, torch.optim.SGD):
    """``torch.optim.SGD``, but not ``differentiable``."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class Adam(_Plain, torch.optim.Adam):
    """``torch.optim.Adam``, but not ``differentiable``."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
