"""The optimizer that a model's weights get where the user's module defines none, and the state of any optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.optim.sgd import sgd

from nnas_core.mutables.nested import changed
from nnas_core.plain_optimizers import SGD
from nnas_core.training.settings import OptimizerSettings

__all__ = ["FusedSGD", "State", "clip_gradients", "default_optimizer", "longer_schedule", "optimizer_state"]

State: TypeAlias = dict[str, Any]
"""Tensors and plain data by name, as a checkpoint holds them."""


def default_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD in one fused kernel where all parameters allow it."""
    everything = list(parameters)
    fused = bool(everything) and all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") and p.layout == torch.strided for p in everything
    )
    sgd_class = FusedSGD if fused else SGD
    return sgd_class(everything, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


class FusedSGD(SGD):
    """``torch.optim.SGD(..., fused=True)`` for supernets, of whose parameters most have no gradient in a step.

    torch's refuses a group in which only some parameters have a momentum buffer, which is what a single path leads to.
    A buffer of zeros is what plain SGD starts from (without dampening), so all are made beforehand. And it looks into
    each parameter and its state, and sorts them, which takes longer than the update of a small network; here the states
    are at hand.

    Args:
        parameters: strided floating-point tensors on the CPU or a GPU.
        lr, momentum, weight_decay: as in ``torch.optim.SGD``.
    """

    _groups: list[_Group]
    _groups_of: object = None
    """The ``state`` that ``_groups`` were made of; loading a state makes another one."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as in ``torch.optim.SGD``."""
        super().add_param_group(param_group)
        self._groups_of = None
        group = self.param_groups[-1]
        if group["momentum"]:
            for parameter in group["params"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _grouped(self) -> list[_Group]:
        """The parameters of each group, with their states."""
        if self._groups_of is not self.state:
            self._groups = [_Group(group["params"], self.state) for group in self.param_groups]
            self._groups_of = self.state
        return self._groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with ``set_to_none`` false, set them to zero."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient; ``closure`` as in ``torch.optim.SGD``."""
        watched = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or _watching_all()
        return self._seen_update(closure) if watched else self._update(closure)

    # torch wraps every step for its hooks and its profiler, which takes longer than the update of a small network
    step.hooked = True  # type: ignore[attr-defined]

    @torch.no_grad()
    def _update(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale: Tensor | None = getattr(self, "grad_scale", None)  # torch.amp.GradScaler leaves them here
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for options, group in zip(self.param_groups, self._grouped(), strict=True):
            updated, gradients, buffers = group.with_gradients(options["momentum"] != 0)
            numbers = {name: options[name] for name in _NUMBERS}
            if not updated:
                continue
            if group.is_uniform and grad_scale is None and found_inf is None:
                torch._fused_sgd_(updated, gradients, buffers, **numbers, is_first_step=False)
            else:  # this one sorts them by device and type
                numbers.update(has_sparse_grad=False, foreach=False, fused=True)
                sgd(updated, gradients, [*buffers], **numbers, grad_scale=grad_scale, found_inf=found_inf)
        return loss

    _seen_update = torch.optim.Optimizer.profile_hook_step(_update)


def _watching_all() -> bool:
    """True if somebody watches the steps of every optimizer."""
    return bool(_global_optimizer_pre_hooks or _global_optimizer_post_hooks) or torch._C._autograd._profiler_enabled()


_NUMBERS = ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
"""The options of a group that the update has by the same names."""


class _Group:
    """The parameters of one group beside their states: an optimizer's ``state`` hashes tensors in Python.

    Attributes:
        is_uniform: all of them are on one device and of one type, as the kernel wants it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], state: Mapping[Tensor, dict[str, Tensor]]) -> None:
        self._states = [(parameter, state[parameter]) for parameter in parameters]
        self.is_uniform = len({(one.device, one.dtype) for one in parameters}) == 1

    def with_gradients(self, has_momentum: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters that have a gradient, their gradients, and with momentum their buffers."""
        updated: list[Tensor] = []
        gradients: list[Tensor] = []
        buffers: list[Tensor] = []
        for parameter, state in self._states:
            gradient = parameter.grad
            if gradient is not None:
                updated.append(parameter)
                # momentum and decay move every row, so that a sparse gradient saves nothing here
                gradients.append(gradient.to_dense() if gradient.is_sparse else gradient)
                if has_momentum:
                    buffers.append(state["momentum_buffer"])
        return updated, gradients, buffers


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> Tensor:
    """Scale all gradients together so that their norm is at most ``largest``, sparse ones included.

    Args:
        parameters: whose gradients.
        largest: of the norm.

    Returns:
        The norm before.
    """
    listed = list(parameters)
    try:
        return nn.utils.clip_grad_norm_(listed, largest)
    except NotImplementedError:  # torch has no norm of a sparse gradient
        gradients: list[Tensor] = []
        for parameter in listed:
            gradient = parameter.grad
            if gradient is not None and gradient.is_sparse:
                parameter.grad = gradient.coalesce()  # rows that came several times count with their sum
                gradients.append(parameter.grad._values())
            elif gradient is not None:
                gradients.append(gradient)
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for one in gradients:
            one.mul_(factor)
        return norm


def optimizer_state(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler | None) -> State:
    """Of both, under ``optimizer`` and ``scheduler``: tensors and plain data."""
    schedule = _plain(_without_numpy(scheduler.state_dict())) if scheduler is not None else {}
    return {"optimizer": _without_numpy(optimizer.state_dict()), "scheduler": schedule}


def longer_schedule(
    optimizer: torch.optim.Optimizer,
    build: Callable[[], torch.optim.lr_scheduler.LRScheduler | None],
    state: Mapping[str, Any],
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Makes the schedule of a training with more steps, as it is after those that were done.

    The state of the shorter one cannot be loaded: a cosine that has reached its end would go up again.

    Args:
        optimizer: in the state of then; its rates become those of the new schedule.
        build: makes the schedule, at its first step.
        state: of the shorter one.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.pop("initial_lr", group["lr"])
    schedule = build()
    with warnings.catch_warnings():
        # torch wants a step of the optimizer before the first: those were made then
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(state.get("last_epoch", 0) if schedule is not None else 0):
            schedule.step()  # type: ignore[union-attr]  # there is one
    return schedule


def _without_numpy(state: State) -> State:
    """Numbers of numpy, which a schedule may well compute, as Python's own: no checkpoint may hold the others."""
    return changed(state, lambda one: one.item() if isinstance(one, np.generic) else one)


def _plain(state: State) -> State:
    """A scheduler's state without bound methods and the like, which no checkpoint may hold."""
    allowed: tuple[type, ...] = (str, int, float, bool, type(None), list, dict, Tensor)
    return {name: value for name, value in state.items() if isinstance(value, allowed)}
