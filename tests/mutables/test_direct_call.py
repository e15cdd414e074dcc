"""``direct_call``: whatever torch does when a module is called happens, hooks of every kind included."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
from torch import fx
from torch.nn.modules import module as torch_module

from nnas_core.mutables.choices import LayerChoice
from nnas_core.mutables.direct_call import direct_call
from nnas_core.mutators.random import RandomMutator

HOOKS = {
    "forward_pre": nn.Module.register_forward_pre_hook,
    "forward": nn.Module.register_forward_hook,
    "backward_pre": nn.Module.register_full_backward_pre_hook,
    "backward": nn.Module.register_full_backward_hook,
}

GLOBAL_HOOKS = {
    "forward_pre": torch_module.register_module_forward_pre_hook,
    "forward": torch_module.register_module_forward_hook,
    "backward_pre": torch_module.register_module_full_backward_pre_hook,
    "backward": torch_module.register_module_full_backward_hook,
}


def run(call: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A forward and a backward pass."""
    call(torch.ones(2, 3, requires_grad=True)).sum().backward()


def test_the_result_is_that_of_the_module() -> None:
    linear = nn.Linear(3, 4)
    x = torch.randn(2, 3)
    assert torch.equal(direct_call(linear)(x), linear(x))
    both = nn.Bilinear(3, 3, 2)
    assert torch.equal(direct_call(both)(x, input2=x), both(x, x))


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_that_is_added_later_is_called(kind: str) -> None:
    linear, seen = nn.Linear(3, 4), []
    call = direct_call(linear)
    handle = HOOKS[kind](linear, lambda module, *_: seen.append(module))
    run(call)
    assert seen == [linear]
    handle.remove()
    run(call)
    assert seen == [linear]


@pytest.mark.parametrize("kind", GLOBAL_HOOKS)
def test_a_global_hook_is_called(kind: str) -> None:
    linear, seen = nn.Linear(3, 4), []
    call = direct_call(linear)
    handle = GLOBAL_HOOKS[kind](lambda module, *_: seen.append(module))
    try:
        run(call)
    finally:
        handle.remove()
    assert seen == [linear]


def test_every_kind_of_hook_that_torch_has_is_looked_at() -> None:
    module = nn.Linear(3, 4)
    kinds = {name for name, value in vars(module).items() if name.endswith("_hooks") and "state_dict" not in name}
    assert kinds == {"_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"}


def test_a_forward_that_is_exchanged_later_is_called() -> None:
    linear = nn.Linear(3, 4)
    call = direct_call(linear)
    linear.forward = lambda x: x + 1  # type: ignore[method-assign]
    assert torch.equal(call(torch.ones(3)), torch.full((3,), 2.0))


def test_a_module_that_is_compiled_later_runs_compiled() -> None:
    class AddOne(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    module, compiled = AddOne(), []

    def backend(graph: fx.GraphModule, _: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    call = direct_call(module)
    module.compile(backend=backend)
    assert torch.equal(call(torch.ones(2)), torch.full((2,), 2.0))
    assert len(compiled) == 1
    torch._dynamo.reset()


def test_a_class_with_a_call_of_its_own_keeps_it() -> None:
    class Counted(nn.Identity):
        calls = 0

        def __call__(self, *args: object) -> object:
            self.calls += 1
            return super().__call__(*args)

    module = Counted()
    assert direct_call(module) is module


def test_torch_fx_sees_the_chosen_candidate_as_a_module() -> None:
    model = nn.Sequential(LayerChoice([nn.Linear(3, 3), nn.Tanh()], key="op"))
    mutator = RandomMutator(model)
    mutator.decide({"op": (0,)})
    graph = fx.symbolic_trace(model).graph
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0.0"]


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_of_a_choice_that_is_added_after_a_reset_is_called(kind: str) -> None:
    choice, seen = LayerChoice([nn.Linear(3, 3), nn.Linear(3, 3)], key="op"), []
    RandomMutator(choice).reset()
    handle = getattr(choice, f"register_{'full_' if 'backward' in kind else ''}{kind}_hook")(
        lambda module, *_: seen.append(module)
    )
    run(choice)
    assert seen == [choice]
    handle.remove()
    run(choice)
    assert seen == [choice]


def test_a_hook_counts_after_all_hooks_were_thrown_away() -> None:
    linear, seen = nn.Linear(3, 4), []
    call = direct_call(linear)
    linear._forward_hooks = OrderedDict()
    linear.register_forward_hook(lambda module, *_: seen.append(module))
    call(torch.ones(3))
    assert seen == [linear]
