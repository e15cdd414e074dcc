"""Make a search quicker or leaner and leave its numbers as they are: memory format, compiler, recomputation."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn

from nnas_core import random_state
from nnas_core.errors import EnvironmentFailure, UsageError, UserCodeError
from nnas_core.mutables.base import Forward
from nnas_core.mutables.mutator import Mutator, require_dense
from nnas_core.mutables.nested import copied, tensors
from nnas_core.mutables.untouched import untouched
from nnas_core.space.choice import Decision
from nnas_core.training.data import Batches, to_device, to_float64
from nnas_core.training.memory_format import has_images, set_memory_format
from nnas_core.training.settings import AccelerationSettings
from nnas_core.training.task import Batch, Output, Target, Task

__all__ = ["Acceleration", "CompiledNetwork", "Rehearsal", "Shapes", "require_compiler"]

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Acceleration(AccelerationSettings):
    """The options, and what they amount to for a model; for ``memory_format`` see ``choose``."""

    def check(self, mutator: Mutator) -> None:
        """Refuse what cannot work, or would do nothing.

        Raises:
            UsageError: the mutator does not run all candidates in one fixed graph, the model has no images, or two
                options exclude each other.
            EnvironmentFailure: there is no compiler.
        """
        if self.compile and self.recompute:
            raise UsageError(
                "`compile` and `recompute` exclude each other: the compiler decides itself what to compute once more",
                hint="take `recompute` if memory is short, else `compile`",
            )
        if self.memory_format == "channels-last" and not has_images(mutator.model):
            raise UsageError(
                "`memory_format` channels-last does nothing: the model has no weights of four dimensions",
                hint="leave it out",
            )
        if self.recompute:
            require_dense(mutator, "recompute")
        if self.compile:
            require_dense(mutator, "compile")
            if not mutator.has_fixed_graph:
                raise UsageError(
                    f"`compile` needs one fixed graph, that of {type(mutator).__name__} changes in the training",
                    hint="leave it out, or use a mutator such as darts",
                )
            require_compiler()

    def choose(self, rehearsal: Rehearsal, warn: Callable[[str], None]) -> torch.memory_format | None:
        """The memory format of four-dimensional weights; None: as the model has them.

        ``auto`` takes channels-last where convolutions are quicker so: on the CPU, and on a GPU in bfloat16. It does
        only if all candidates run in every step, so that one pass tries everything: a ``view`` after a convolution
        may fail in channels-last. A model that fails there becomes contiguous.

        Args:
            warn: told, in one line, that the model fails in channels-last.
        """
        if self.memory_format == "channels-last":
            return torch.channels_last
        if self.memory_format == "contiguous":
            return torch.contiguous_format
        if not rehearsal.may_try_channels_last:
            return None
        set_memory_format(rehearsal.model, torch.channels_last)
        reason = rehearsal.failure()
        if reason is None:
            return torch.channels_last
        set_memory_format(rehearsal.model, torch.contiguous_format)
        if rehearsal.failure() is None:
            warn(
                f"the model fails in the memory format channels-last ({reason}); it runs in contiguous, which may be"
                " slower: use reshape() instead of view()"
            )
        return torch.contiguous_format

    def prepare(
        self, rehearsal: Rehearsal, warn: Callable[[str], None]
    ) -> Callable[[nn.Module, Mutator | None], Forward]:
        """Return the function that a trainer calls with its model, and with each that it builds later.

        Returns:
            (model, its mutator) -> what forward passes call.
        """
        memory_format = self.choose(rehearsal, warn)
        shapes = rehearsal.shapes() if self.compile else frozenset()

        def accelerate(model: nn.Module, mutator: Mutator | None) -> Forward:
            if memory_format is not None:
                set_memory_format(model, memory_format)
            if self.recompute and mutator is not None:
                mutator.recompute()
            return CompiledNetwork(model, shapes) if self.compile else model

        return accelerate


class Rehearsal:
    """Run passes of first batches, of which nothing remains.

    Args:
        mutator: bound to the model that is tried.
        task: its loss and metrics are tried too.
        training, validation: data, in order of importance. The first batch of each is tried.
        device, precision: as in ``Trainer``.
        generators: the private ones that may be drawn from.
    """

    def __init__(
        self,
        mutator: Mutator,
        task: Task,
        training: Sequence[Batches],
        validation: Sequence[Batches],
        device: torch.device,
        precision: str,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self.model = mutator.model
        self._mutator = mutator
        self._task = task
        self._training = training
        self._validation = validation
        self._device = device
        self._precision = precision
        self._generators = generators

    @property
    def may_try_channels_last(self) -> bool:
        """True if it is likely to be quicker, and one forward pass tries everything that may fail in it."""
        one_pass = self._mutator.is_dense
        quicker = self._precision != "float64" if self._device.type == "cpu" else self._precision == "bfloat16"
        return one_pass and quicker and has_images(self.model)

    def failure(self) -> str | None:
        """Why the model cannot run as it is, in the first line of torch's error; None if it can.

        Errors that no memory format could be the reason of are left to the training.
        """
        try:
            self._run(self._training[:1], training=True)
            self._run(self._training[:1], training=False)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, UserCodeError) as error:
            return _first_line(error)
        return None

    @functools.cached_property
    def _first_batch(self) -> Batch:
        with random_state.untouched(self._generators):
            return next(iter(self._training[0].epoch(0)), None)

    def attempt(self, decisions: Mapping[str, Decision]) -> Exception | None:
        """Run one architecture on the first training batch, without gradients; what it raised.

        Raises:
            torch.OutOfMemoryError: that is no mistake of the model's.
        """
        batch = copied(self._first_batch)
        if batch is None:
            return None  # the training says so
        try:
            with self._without_a_trace(training=True):
                self._mutator.decide(decisions)
                self._forward(batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever the user's model raises)
            return error
        return None

    def shapes(self) -> frozenset[Shapes]:
        """The shapes of the tensors that the model is called with."""
        seen: set[Shapes] = set()
        handle = self.model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.add(_shapes(args, kwargs)), with_kwargs=True
        )
        try:
            self._run(self._training, training=True)
            self._run(self._validation, training=False)
        finally:
            handle.remove()
        return frozenset(seen)

    def _run(self, data: Sequence[Batches], training: bool) -> None:
        with self._without_a_trace(training):
            for batches in data:
                for batch in itertools.islice(batches.epoch(0), 1):
                    self._mutator.reset()
                    output, target = self._forward(batch)
                    self._task.loss(output, target)
                    self._task.metrics(output, target)

    @contextmanager
    def _without_a_trace(self, training: bool) -> Iterator[None]:
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16")
        with torch.no_grad(), untouched(self.model, self._mutator, self._generators), autocast:
            self.model.train(training)
            yield

    def _forward(self, batch: Batch) -> tuple[Output, Target]:
        moved = to_device(batch, self._device)
        moved = to_float64(moved) if self._precision == "float64" else moved
        return self._task.forward_batch(self.model, moved)


class CompiledNetwork:
    """A model that ``torch.compile`` made one program of; otherwise it is the model.

    There is a program for each mode (training the architecture, training the weights, evaluation) and each of the given
    shapes. Inputs of other shapes, an unfull last batch say, run uncompiled: compiling takes longer than they do.

    Args:
        model: whose attributes this has too.
        shapes: of the tensors that the model is called with.
        backend: of ``torch.compile``.
    """

    def __init__(self, model: nn.Module, shapes: Iterable[Shapes], backend: str | Forward = "inductor") -> None:
        compiled = torch.compile(model, backend=backend, dynamic=False)
        self.__dict__.update(_model=model, _shapes=frozenset(shapes), _compiled=compiled)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """A forward pass.

        Raises:
            EnvironmentFailure: the compiler failed.
        """
        if _shapes(args, kwargs) not in self._shapes:
            return self._model(*args, **kwargs)
        import torch._functorch.config as compiling

        try:
            # the backward pass with the forward pass: an error of the compiler must not look like one of the loss
            with compiling.patch(force_non_lazy_backward_lowering=True):
                return self._compiled(*args, **kwargs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            reason = _first_line(error.inner_exception)
            cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "torchinductor_USER among the temporary files")
            raise EnvironmentFailure(
                f"torch.compile failed: {reason}",
                hint=f"leave out `compile`; if a run was killed while it compiled, delete {cache} and try again",
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _shapes(args: Sequence[object], kwargs: Mapping[str, object]) -> Shapes:
    """The shapes of all tensors in nested arguments."""
    return tuple(tuple(tensor.shape) for tensor in tensors([args, kwargs]))


def require_compiler() -> None:
    """Refuse to compile where that cannot work.

    Raises:
        EnvironmentFailure: there is no C++ compiler.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as torch looks for it
    if shutil.which(name) is None:
        raise EnvironmentFailure(
            f"torch.compile needs a C++ compiler, and {name!r} is not on the PATH",
            hint="install it, set CXX to another one, or leave out `compile`",
        )
