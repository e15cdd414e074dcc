"""``nnas export``: a network out of a supernet, in files that need no nnas, each proven before it is written."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
import torch.nn as nn
from torch import Tensor

from nnas_core import random_state
from nnas_core.delivery import onnx_file, programs, weights
from nnas_core.delivery.comparison import SIZES, Sample, require_equal, run
from nnas_core.delivery.source import network as source
from nnas_core.delivery.source.constructions import Constructions
from nnas_core.errors import InputError, NnasError, UsageError, UserCodeError
from nnas_core.files import atomic_writer, check_writable
from nnas_core.mutables.base import Mutable
from nnas_core.mutables.mutator import Mutator
from nnas_core.mutables.settling import settle
from nnas_core.plugins.loading import as_user_error, check_source, split_reference
from nnas_core.runs.checkpoint import taking_state
from nnas_core.runs.digests import candidates_of, check_candidates
from nnas_core.runs.trained import Trained
from nnas_core.runs.weights import check_space, check_weights
from nnas_core.space.architecture import Architecture
from nnas_core.training.profiling import Arguments
from nnas_core.training.settings import DataSettings, ModelReference, SetupSettings
from nnas_core.workflows.example_inputs import ExampleInputs, multiply_adds
from nnas_core.workflows.settings import ExportSettings
from nnas_core.workflows.setup import Setup

__all__ = ["Delivered", "ExportReport", "check_ahead", "export"]


@dataclass(frozen=True)
class Delivered:
    """A file that was written.

    Attributes:
        kind: an attribute of ``ExportSettings``: ``"weights"``, ``"exported"``, ``"onnx"`` or ``"python"``.
        path: of the file.
        size: its bytes.
    """

    kind: str
    path: str
    size: int


@dataclass(frozen=True)
class ExportReport:
    """The answer of an export.

    Attributes:
        architecture: of the network.
        parameters: of the network, as many numbers; one that several modules share counts once.
        macs: multiply-adds of one sample.
        alone: true if the weights were trained for this architecture alone, false if they are inherited.
        files: what was written.
        failures: what could not be made, by kind.
    """

    architecture: Architecture
    parameters: int
    macs: int
    alone: bool
    files: list[Delivered] = field(default_factory=list)
    failures: dict[str, NnasError] = field(default_factory=dict)

    @property
    def cost(self) -> dict[str, float]:
        """Parameters and multiply-adds, as an architecture document has them."""
        return {"parameters": self.parameters, "macs": self.macs}

    def failure(self, settings: ExportSettings) -> NnasError | None:
        """What to raise for the files that could not be made: of the class of the first; None if all were."""
        if not self.failures:
            return None
        first = next(iter(self.failures.values()))
        problems = [f"`{kind}`: {str(one).splitlines()[0]}" for kind, one in self.failures.items()]
        kept = [f"{one.path}" for one in self.files]
        count = "one file" if len(problems) == 1 else f"{len(problems)} files"
        others = f", written: {', '.join(kept)}" if kept else ""
        error = type(first)(f"{count} could not be made{others}", problems=problems, hint=first.hint)
        return error.with_traceback(first.__traceback__)


def check_ahead(settings: ExportSettings, beside: str = "-") -> None:
    """Refuse what cannot work before the model is loaded.

    Args:
        settings: what to write.
        beside: where the architecture goes; ``-`` is no file.

    Raises:
        UsageError: a package is missing, or a name says no format.
        EnvironmentFailure: a file cannot be written.
    """
    if settings.weights is not None:
        weights.check_name(settings.weights)
    if settings.onnx is not None:
        weights.require_packages("onnx", onnx_file.PACKAGES)
    paths = list(settings.files.values())
    places = [os.path.realpath(path) for path in (*paths, beside) if path != "-"]
    if len(set(places)) < len(places):
        raise UsageError("several outputs are to be written to one file", hint="give each a name of its own")
    for path in paths:
        if path == "-":
            raise UsageError("a network is written to files, not to standard output", hint="give the path of a file")
        check_writable(path)


def export(settings: ExportSettings, trained: Trained, document: object | None, where: str | None) -> ExportReport:
    """Take a network out of its supernet, and write it.

    Args:
        settings: what to write, and the model.
        trained: weights, and the architecture where ``document`` is None.
        document: an architecture, in any form.
        where: its file, for errors.

    Raises:
        ArchitectureError: the architecture does not fit.
        InputError: model and weights do not belong together.
        UsageError: an output is the model's own file, or the checkpoint.
        UserCodeError: the model fails.
    """
    header = trained.header
    architecture = trained.chosen(document, where)
    split = header.get("split")
    arguments = header.get("model_arg", {}) if settings.model_arg is None else settings.model_arg
    reference = ModelReference(settings.model or header["model"], arguments, settings.task or trained.task)
    data = DataSettings(seed=header["seed"]).with_split(split)
    with random_state.seeded(header["seed"]):
        constructions = Constructions()
        with constructions.recorded() if settings.python is not None else nullcontext():
            setup = _setup(SetupSettings(model=reference, data=data, device="cpu"), settings)
        _refuse_inputs(settings, [trained.path, where, *map(_file_of, (*setup.modules, *setup.task.user.modules))])
        decided = frozenset(id(one) for one in setup.model.modules() if any(map(_is_choice, one.modules())))
        network, samples = _network(setup, trained, architecture, settings.input_shape)
        require_equal(network, samples, "the network that was taken out")
        one = samples[SIZES.index(1)]
        report = ExportReport(
            architecture,
            sum(parameter.numel() for parameter in network.parameters()),
            multiply_adds(network, (one.args, one.kwargs)),
            trained.alone,
        )
        title = f"The network that was chosen for {Path(reference.model).name}, with its architecture's layers alone."
        makers = {
            **_makers(settings, network, samples),
            "python": lambda: source.written(network, samples, setup.modules, decided, constructions, title),
        }
        _write(settings, makers, report)
    return report


def _setup(of: SetupSettings, settings: ExportSettings) -> Setup:
    """The model and its data; where a file of the run is not where it was, it is said what to do."""
    for name, file in (("model", split_reference(of.model.model)[0]), ("task", of.model.task)):
        try:
            if file is not None and getattr(settings, name) is None:
                check_source(file)
        except InputError as error:
            hint = f"it is the {name} of the run: say with `{name}` where it is now"
            raise InputError(error.message, where=error.where, hint=hint) from error
    return Setup(of)


def _file_of(module: ModuleType) -> str | None:
    return getattr(module, "__file__", None)


def _refuse_inputs(settings: ExportSettings, inputs: list[str | None]) -> None:
    """Refuse to write over a file that the network is made of."""
    taken = {os.path.realpath(file) for file in inputs if file is not None}
    for path in settings.files.values():
        if os.path.realpath(path) in taken:
            raise UsageError(f"{path} is a file that the network is made of", hint="give the output another name")


def _is_choice(module: nn.Module) -> bool:
    return isinstance(module, Mutable)


def _network(
    setup: Setup, trained: Trained, architecture: Architecture, shape: tuple[int, ...] | None
) -> tuple[nn.Module, list[Sample]]:
    """The network with its weights, and what the supernet, decided so, makes of batches of ``SIZES``."""
    model, path = setup.model, trained.path
    if _is_double(model, trained.weights):
        model.double()
    if not trained.alone:
        check_space(trained.header, setup.space, path)
        check_candidates(trained.header.get("digests", {}).get("candidates"), candidates_of(model), path)
        _load(model, trained)
        mutator = Mutator(model)
        batches = _batches(ExampleInputs(setup, model, shape, mutator))
        mutator.apply_architecture(architecture)
        samples = [_sample(model, one) for one in batches]
        mutator.unbind()
        return settle(model, architecture).eval(), samples
    if trained.space != setup.space:
        raise InputError(
            "belongs to another search space",
            where=path,
            problems=setup.space.differences(trained.space, ("the model", "the run")),
            hint="give the `model`, and the `model_arg`, of the run",
        )
    network = settle(model, architecture)
    _load(network, trained)
    network.eval()
    return network, [_sample(network, one) for one in _batches(ExampleInputs(setup, network, shape))]


def _load(model: nn.Module, trained: Trained) -> None:
    with taking_state(trained.path):
        check_weights(model, trained.weights, trained.path)
        model.load_state_dict(trained.weights)


def _batches(inputs: ExampleInputs) -> list[Arguments]:
    return [inputs.of(size) for size in SIZES]


def _is_double(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """True if a model was trained in double precision; one may have buffers of it all the same."""
    trained = [(one.dtype, state[name].dtype) for name, one in model.named_parameters() if name in state]
    return any(own != there == torch.float64 for own, there in trained)


def _sample(model: nn.Module, inputs: Arguments) -> Sample:
    args, kwargs = inputs
    try:
        return Sample(args, kwargs, run(model, args, kwargs))
    except NnasError:
        raise
    except Exception as error:
        if as_user_error(error) is not None:
            raise
        first = next(iter(str(error).strip().splitlines()), "")
        raise UserCodeError(
            f"the model fails on its example input: {type(error).__name__}: {first}",
            hint="give `input_shape`, the shape of one sample",
        ) from error


def _makers(settings: ExportSettings, network: nn.Module, samples: list[Sample]) -> dict[str, Callable[[], bytes]]:
    """What makes and proves the content of each kind of file; the network is traced once for all that need it."""

    @functools.cache
    def trace() -> torch.export.ExportedProgram | NnasError:
        try:
            return programs.exported(network, samples)
        except NnasError as error:  # once for all that need the program
            return error

    def traced() -> torch.export.ExportedProgram:
        program = trace()
        if isinstance(program, NnasError):
            raise program
        return program

    def exported() -> bytes:
        content = programs.written(traced())
        programs.require_whole(content, samples)
        return content

    return {
        "weights": lambda: weights.written(network, samples, settings.weights or ""),
        "exported": exported,
        "onnx": lambda: onnx_file.written(traced(), samples, settings.opset),
    }


def _write(settings: ExportSettings, makers: Mapping[str, Callable[[], bytes]], report: ExportReport) -> None:
    """Make each file, and write it; what fails is noted, and the others go on."""
    for kind, path in settings.files.items():
        try:
            content = makers[kind]()
            with atomic_writer(path) as stream:
                stream.write(content)
        except NnasError as error:
            report.failures[kind] = error
        else:
            report.files.append(Delivered(kind, path, len(content)))
