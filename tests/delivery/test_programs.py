"""Programs of torch.export and models of ONNX: any batch, any length, and what they cannot take is named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn as nn

from nnas_core.delivery import onnx_file, programs
from nnas_core.delivery.comparison import Sample, require_equal, run
from nnas_core.errors import NoResultError, UserCodeError


def samples_of(network: nn.Module, shapes: list[tuple[int, ...]]) -> list[Sample]:
    """Batches of random numbers, and the network's own outputs."""
    batches = [torch.randn(shape) for shape in shapes]
    return [Sample((x,), {}, run(network, (x,), {})) for x in batches]


class Lengths(nn.Module):
    """Takes ``[length, batch, 4]``."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean(0))


def test_lengths_may_be_any_and_the_batch_need_not_come_first() -> None:
    network = Lengths()
    samples = samples_of(network, [(5, 2, 4), (5, 3, 4), (3, 1, 4)])
    program = programs.exported(network, samples)
    content = programs.written(program)
    programs.require_whole(content, samples)
    session = onnxruntime.InferenceSession(onnx_file.written(program, samples, 18))
    (given,), (output,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape[1:]) == ("x", ["batch", 4])
    assert isinstance(given.shape[0], str)
    assert (output.name, output.shape) == ("output", ["batch", 2])
    x = torch.randn(9, 6, 4)
    with torch.no_grad():
        expected = network(x)
    assert torch.equal(program.module()(x), expected)
    assert np.allclose(session.run(None, {"x": x.numpy()})[0], expected.numpy(), rtol=1e-5, atol=1e-5)


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def test_an_operation_that_onnx_lacks_is_named_with_its_module() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Bessel()))
    samples = samples_of(network, [(2, 4), (3, 4), (1, 4)])
    program = programs.exported(network, samples)
    with pytest.raises(UserCodeError, match=r"ONNX has no operator for aten\.special_bessel_j0\.default$") as caught:
        onnx_file.written(program, samples, 18)
    assert caught.value.where == "1.1"


class Sized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4) if len(x) == 2 else x


def test_a_network_that_depends_on_the_size_of_its_batch_is_named() -> None:
    network = nn.Sequential(nn.Linear(4, 4), Sized())
    samples = samples_of(network, [(2, 4), (3, 4), (1, 4)])
    with pytest.raises(UserCodeError, match=r"torch\.export cannot trace it: "):
        programs.exported(network, samples)


class Counting(nn.Module):
    """Adds how often it was called, which no program does."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_a_program_with_other_outputs_is_refused() -> None:
    network = Counting()
    samples = samples_of(network, [(2, 4), (3, 4), (1, 4)])
    with pytest.raises(NoResultError, match=r"the outputs of the program of torch\.export are not those of"):
        programs.exported(network, samples)


@dataclass
class Output:
    """As models of a library return them."""

    logits: torch.Tensor


class Classed(nn.Module):
    def forward(self, x: torch.Tensor) -> Output:
        return Output(x + 1)


def test_outputs_in_a_class_are_compared_and_no_program_has_them() -> None:
    samples = samples_of(Classed(), [(2, 4), (3, 4), (1, 4)])
    require_equal(Classed(), samples, "it")
    other = [Sample(one.args, one.kwargs, Output(one.args[0] + 2)) for one in samples]
    with pytest.raises(NoResultError, match="the outputs of it are not those of the supernet"):
        require_equal(Classed(), other, "it")
    with pytest.raises(UserCodeError, match=r"torch\.export cannot trace it: ") as caught:
        programs.exported(Classed(), samples)
    assert caught.value.hint == (
        "let forward() take and return tensors in lists, tuples and dictionaries, in no class of your own"
    )


class Silent(nn.Module):
    def forward(self, x: torch.Tensor) -> int:
        return 3


def test_a_network_without_tensors_in_its_output_proves_nothing() -> None:
    samples = samples_of(Silent(), [(2, 4), (3, 4), (1, 4)])
    with pytest.raises(NoResultError, match="the network returns no tensor, but int: there is nothing to compare"):
        require_equal(Silent(), samples, "it")
