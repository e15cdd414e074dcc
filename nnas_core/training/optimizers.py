"""The optimizer that a model's weights get where the user's module defines none, and the state of any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.optim.sgd import sgd

from nnas_core.mutables.nested import changed
from nnas_core.training.settings import OptimizerSettings

__all__ = ["FusedSGD", "State", "default_optimizer", "optimizer_state"]

State: TypeAlias = dict[str, Any]
"""Tensors and plain data by name, as a checkpoint holds them."""


def default_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD in one fused kernel where all parameters allow it."""
    everything = list(parameters)
    fused = bool(everything) and all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") and p.layout == torch.strided for p in everything
    )
    sgd_class = FusedSGD if fused else torch.optim.SGD
    return sgd_class(everything, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


class FusedSGD(torch.optim.SGD):
    """``torch.optim.SGD(..., fused=True)`` for supernets, of whose parameters most have no gradient in a step.

    torch's refuses a group in which only some parameters have a momentum buffer, which is what a single path leads to.
    A buffer of zeros is what plain SGD starts from (without dampening), so all are made beforehand. And it looks into
    each parameter and its state, which takes longer than the update of a small network; here that is done for those
    with a gradient alone.

    Args:
        parameters: strided floating-point tensors on the CPU or a GPU.
        lr, momentum, weight_decay: as in ``torch.optim.SGD``.
    """

    _states: list[list[dict[str, Tensor]]]
    _states_of: object = None
    """The ``state`` that ``_states`` were found in; loading a state makes another one."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as in ``torch.optim.SGD``."""
        super().add_param_group(param_group)
        self._states_of = None
        group = self.param_groups[-1]
        if group["momentum"]:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _states_by_group(self) -> list[list[dict[str, Tensor]]]:
        """The state of each parameter, group by group; ``self.state`` hashes tensors in Python, so it is asked once."""
        if self._states_of is not self.state:
            self._states = [[self.state[parameter] for parameter in group["params"]] for group in self.param_groups]
            self._states_of = self.state
        return self._states

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with ``set_to_none`` false, set them to zero."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient; ``closure`` as in ``torch.optim.SGD``."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, states in zip(self.param_groups, self._states_by_group(), strict=True):
            updated: list[Tensor] = []
            gradients: list[Tensor] = []
            buffers: list[Tensor | None] = []
            has_momentum = group["momentum"] != 0
            for parameter, state in zip(group["params"], states, strict=True):
                gradient = parameter.grad
                if gradient is not None:
                    updated.append(parameter)
                    gradients.append(gradient)
                    if has_momentum:
                        buffers.append(state["momentum_buffer"])
            sgd(
                updated,
                gradients,
                buffers,
                has_sparse_grad=False,
                foreach=False,
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),  # torch.amp.GradScaler leaves them here
                found_inf=getattr(self, "found_inf", None),
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
            )
        return loss


def optimizer_state(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler | None) -> State:
    """Of both, under ``optimizer`` and ``scheduler``: tensors and plain data."""
    schedule = _plain(_without_numpy(scheduler.state_dict())) if scheduler is not None else {}
    return {"optimizer": _without_numpy(optimizer.state_dict()), "scheduler": schedule}


def _without_numpy(state: State) -> State:
    """Numbers of numpy, which a schedule may well compute, as Python's own: no checkpoint may hold the others."""
    return changed(state, lambda one: one.item() if isinstance(one, np.generic) else one)


def _plain(state: State) -> State:
    """A scheduler's state without bound methods and the like, which no checkpoint may hold."""
    allowed: tuple[type, ...] = (str, int, float, bool, type(None), list, dict, Tensor)
    return {name: value for name, value in state.items() if isinstance(value, allowed)}
