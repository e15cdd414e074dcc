"""A network as a model of ONNX, compared with the supernet by onnxruntime."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnas_core.delivery.comparison import SIZES, Sample, require_near
from nnas_core.delivery.programs import quiet
from nnas_core.errors import NnasError, NoResultError, UserCodeError
from nnas_core.mutables.nested import tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["OPSETS", "PACKAGES", "written"]

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What the extra ``[onnx]`` installs."""

OPSETS = (18, 23)
"""The first and the last version of ONNX's operators that torch writes."""


def written(program: ExportedProgram, samples: list[Sample], opset: int) -> bytes:
    """The model as the content of a file, proven by onnxruntime on all samples.

    Inputs have the names of ``forward()``'s arguments; outputs are ``output``, or ``output_0`` and so on; the first
    dimension of the batch is ``batch``.

    Args:
        program: of the network.
        samples: to compare on.
        opset: the version of ONNX's operators, see ``OPSETS``.

    Raises:
        UserCodeError: ONNX has no operator for something; the module is named.
        NoResultError: outputs differ by more than 1e-5.
    """
    names = [str(name) for name in program.graph_signature.user_inputs]
    outputs = len(list(tensors(samples[0].output)))
    given = ["output"] if outputs == 1 else [f"output_{number}" for number in range(outputs)]
    with quiet():
        try:
            made = torch.onnx.export(
                program, (), None, dynamo=True, verbose=False, opset_version=opset, output_names=given
            )
        except Exception as error:
            raise _explained(error, program) from error
        if made is None:
            raise NoResultError("torch.onnx.export gave no model")
        proto = made.model_proto
        _name_the_batch(proto.graph, names, samples)
        try:
            content: bytes = proto.SerializeToString()
        except Exception as error:  # of protobuf's own class above 2 GiB
            raise NoResultError(f"ONNX cannot hold it in one file: {_first_line(error)}") from error
        _require_equal(content, names, samples)
    return content


def _name_the_batch(graph: Any, names: list[str], samples: list[Sample]) -> None:
    """Torch numbers its symbols; the one of the batch gets its name."""
    leaves = zip(*(_leaves(sample) for sample in samples), strict=True)
    shapes = dict(zip(names, ([getattr(one, "shape", ()) for one in found] for found in leaves), strict=True))
    inputs = [one for value in graph.input for one in value.type.tensor_type.shape.dim]
    others = [one for value in (*graph.output, *graph.value_info) for one in value.type.tensor_type.shape.dim]
    first = ""
    for value in graph.input:
        sizes = zip(*shapes[value.name], strict=False)
        symbols = [one.dim_param for one in value.type.tensor_type.shape.dim]
        first = first or next((symbol for symbol, found in zip(symbols, sizes, strict=False) if found == SIZES), "")
    for dimension in (*inputs, *others):
        if first and re.search(rf"\b{re.escape(first)}\b", dimension.dim_param):
            dimension.dim_param = re.sub(rf"\b{re.escape(first)}\b", "batch", dimension.dim_param)


def _require_equal(content: bytes, names: list[str], samples: list[Sample]) -> None:
    import onnxruntime  # type: ignore[import-untyped]  # late: it is an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        wanted = {one.name for one in session.get_inputs()}
    except Exception as error:
        raise NoResultError(f"onnxruntime does not load the model: {_first_line(error)}") from error
    for size, sample in zip(SIZES, samples, strict=True):
        given = {name: leaf for name, leaf in zip(names, _leaves(sample), strict=True) if name in wanted}
        try:
            fed = {name: leaf.detach().numpy() for name, leaf in given.items() if isinstance(leaf, Tensor)}
            found = session.run(None, fed)
        except NnasError:
            raise
        except Exception as error:
            raise NoResultError(f"onnxruntime fails on a batch of {size}: {_first_line(error)}") from error
        require_near([torch.from_numpy(one) for one in found], sample.output, "the model of ONNX")


def _leaves(sample: Sample) -> list[object]:
    """The arguments one by one, in the order of the program's inputs."""
    found: list[object] = torch.utils._pytree.tree_leaves((sample.args, dict(sample.kwargs)))
    return found


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _explained(error: BaseException, program: ExportedProgram) -> NnasError:
    """The failure of a conversion, at the module whose operation it was."""
    texts: list[str] = []
    step: BaseException | None = error
    while step is not None:
        texts.append(str(step))
        step = step.__cause__
    missing = [name for text in texts for name in re.findall(r"op='\w+\.(\w+)'", text)]
    for node in program.graph.nodes:
        # what is missing may be a part that torch takes the operation to pieces with
        if node.op == "call_function" and any(name in str(node.target) for name in missing):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            return UserCodeError(
                f"ONNX has no operator for {node.target}",
                where=(stack[-1][0] if stack else "") or "the model",
                hint="choose another candidate there, or take the program of torch.export",
            )
    innermost = texts[-1].strip().splitlines()
    return UserCodeError(f"torch.onnx.export cannot convert it: {innermost[0] if innermost else type(error).__name__}")
