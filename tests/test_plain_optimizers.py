"""The optimizers that are ready at once do what torch's do, and leave its compiler alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from nnas_core import plain_optimizers

PAIRS = [
    (plain_optimizers.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    (plain_optimizers.Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.01, "amsgrad": True}),
]

PROGRAM = """
import sys, torch
from nnas_core.mutables.cost import count_flops
from nnas_core.plain_optimizers import SGD, Adam
from nnas_core.training.profiling import peak_activation_memory
parameter = torch.nn.Parameter(torch.ones(2))
for optimizer in (SGD([parameter], lr=0.1), Adam([parameter])):
    optimizer.zero_grad()
    parameter.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
image, kernel = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
assert count_flops(lambda: torch.conv2d(image, kernel)) == 18
assert peak_activation_memory(lambda: torch.conv2d(image, kernel), [kernel], image) == 40
assert "torch._dynamo" not in sys.modules
torch.optim.SGD([parameter], lr=0.1)
assert "torch._dynamo" in sys.modules  # torch's own import it; when they no longer do, ours have no use
"""


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS, ids=["SGD", "Adam"])
def test_they_are_torch_s_to_the_bit(
    ours: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], options: dict[str, object]
) -> None:
    def trained(kind: type[torch.optim.Optimizer]) -> list[Tensor]:
        parameters = [nn.Parameter(torch.arange(3.0)), nn.Parameter(torch.ones(2, 2))]
        optimizer = kind(parameters, **options)  # type: ignore[arg-type]
        for step in range(3):
            optimizer.zero_grad()
            sum(((one + step) ** 2).sum() for one in parameters[: 1 + step]).backward()  # type: ignore[union-attr]
            optimizer.step()
            assert torch.is_grad_enabled()
        other = kind(parameters, **options)  # type: ignore[arg-type]
        other.load_state_dict(optimizer.state_dict())
        sum((one**3).sum() for one in parameters).backward()  # type: ignore[union-attr]
        other.step()
        return parameters  # type: ignore[return-value]

    for mine, other in zip(trained(ours), trained(theirs), strict=True):
        assert mine.tolist() == other.tolist()


def test_hooks_see_their_steps() -> None:
    parameter = nn.Parameter(torch.ones(2))
    for kind in (plain_optimizers.SGD, plain_optimizers.Adam):
        optimizer = kind([parameter], lr=0.1)
        seen: list[int] = []
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append(1))
        optimizer.step()
        assert seen == [1]


def test_torch_s_compiler_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
