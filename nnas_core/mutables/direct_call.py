"""A module that is called again and again, in fewer steps of Python than ``module(...)`` takes, with the same result.

``nn.Module.__call__`` looks up hooks, four of the module's and four global ones, attribute by attribute. Here that is a
few look-ups in one dictionary, and truth tests. Networks whose kernels are small spend most of their time there.
"""

from __future__ import annotations

from typing import Any

import torch.nn as nn
from torch.nn.modules import module as torch_module

from nnas_core.mutables.base import Forward

__all__ = ["direct_call"]

_CALL = nn.Module.__call__

_GLOBAL_HOOKS = (
    torch_module._global_forward_pre_hooks,
    torch_module._global_forward_hooks,
    torch_module._global_backward_pre_hooks,
    torch_module._global_backward_hooks,
)


def direct_call(module: nn.Module) -> Forward:
    """Return what can be called in place of ``module``; hooks and ``module.compile()`` count, also later ones.

    A module whose class has a way of its own to be called is returned as it is.
    """
    if type(module).__call__ is not _CALL:
        return module
    own = vars(module)
    all_before, all_after, all_back_before, all_back = _GLOBAL_HOOKS

    def call(*args: object, **kwargs: object) -> Any:
        if (
            own["_forward_pre_hooks"]
            or own["_forward_hooks"]
            or own["_backward_pre_hooks"]
            or own["_backward_hooks"]
            or all_before
            or all_after
            or all_back_before
            or all_back
            or "_compiled_call_impl" in own
            or nn.Module.__call__ is not _CALL  # torch.fx puts its own there while it traces
        ):
            return module(*args, **kwargs)
        return module.forward(*args, **kwargs)

    return call
