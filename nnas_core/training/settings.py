"""The typed parts of every command that runs a model, and the one place where their defaults stand.

Nothing here needs torch, so that the command line can take its defaults from the fields (``DataSettings.batch_size``)
before anything is loaded. On the command line, in ``config.json`` and on the wire to a worker the fields of all parts
stand side by side under their names; ``to_options`` and ``from_options`` go from the one form to the other.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

from nnas_core._listing import shortened
from nnas_core.errors import InputError, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "RECALIBRATE",
    "AccelerationSettings",
    "DataSettings",
    "ModelReference",
    "OptimizerSettings",
    "RecipeSettings",
    "SetupSettings",
    "Split",
    "TrainingSettings",
    "cadence",
    "check_device",
    "from_options",
    "option_names",
    "to_options",
]

_T = TypeVar("_T", bound="DataclassInstance")

RECALIBRATE = 10
"""Training batches for the BatchNorm statistics of an architecture with inherited weights; 0: those of the supernet."""

_INTERNAL = {"internal": True}
"""Metadata of a field that is no option: nobody gives it, and it is not stored."""


@dataclass(frozen=True)
class ModelReference:
    """Names the user's model.

    Attributes:
        model: ``file.py[:NAME]`` or ``package.module[:NAME]``.
        model_arg: the arguments that it is built with.
        task: a Python file with datasets, loss and metrics; None: they stand beside the model.
    """

    model: str
    model_arg: Mapping[str, object] = field(default_factory=dict)
    task: str | None = None


class Split(TypedDict):
    """Decides which samples are held out; a checkpoint remembers it."""

    seed: int
    valid_fraction: float


@dataclass(frozen=True)
class DataSettings:
    """Says how data is divided and loaded.

    Attributes:
        batch_size: samples a batch.
        workers: loader processes; 0 loads in this process.
        valid_fraction: of the training set, where the task has no ``valid_dataset``; 0 < fraction < 1.
        drop_last: leave out the last training batch when it is not full.
        seed: of the order, and of the split unless ``split_seed`` says otherwise.
        split_seed: of the split; that of the search whose weights are used, so that no sample changes sides.
    """

    batch_size: int = 64
    workers: int = 0
    valid_fraction: float = 0.2
    drop_last: bool = False
    seed: int = 0
    split_seed: int | None = field(default=None, metadata=_INTERNAL)

    @property
    def split(self) -> Split:
        """Decides which samples are held out."""
        return {
            "seed": self.seed if self.split_seed is None else self.split_seed,
            "valid_fraction": self.valid_fraction,
        }

    def with_split(self, split: Split | None) -> DataSettings:
        """These settings with the split that a checkpoint remembers."""
        if split is None:
            return self
        return replace(self, split_seed=split["seed"], valid_fraction=split["valid_fraction"])


@dataclass(frozen=True)
class OptimizerSettings:
    """Numbers of the default optimizer and schedule (SGD with momentum, cosine).

    Attributes:
        learning_rate: at the first step.
        momentum, weight_decay: of SGD.
        schedule: ``"cosine"`` down to ``min_learning_rate`` at the last step, or ``"none"``.
    """

    learning_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    schedule: str = "cosine"
    min_learning_rate: float = 1e-3


@dataclass(frozen=True)
class AccelerationSettings:
    """Options that make a search quicker or leaner and leave its numbers as they are.

    Attributes:
        memory_format: ``"contiguous"``, ``"channels-last"``, or ``"auto"``: the quicker one, where that is safe.
        compile: let ``torch.compile`` make one program of the supernet.
        recompute: keep no activations of candidates, see ``Mutator.recompute``.
    """

    memory_format: str = "auto"
    compile: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class RecipeSettings:
    """How a network is trained that is to be published; every part is off by default.

    Attributes:
        drop_path: probability, at the end of the training, that a path beside another is left out for a sample.
        auxiliary_weight: of the loss of an auxiliary head; None: ``AUXILIARY_WEIGHT``.
        cutout: side of a square of each image, in pixels, that is set to zero.
        mixup: both parameters of the Beta distribution that two samples are mixed with.
        label_smoothing: the share of a target that is spread over all classes.
        ema: decay of the moving average of the weights, which is measured and kept instead of them.
    """

    drop_path: float = 0.0
    auxiliary_weight: float | None = None
    cutout: int = 0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SetupSettings:
    """A model, its data, and where it runs: common to all commands that run one.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    model: ModelReference
    data: DataSettings = DataSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    device: str = "auto"

    @property
    def seed(self) -> int:
        """The seed of all randomness, which is that of the data."""
        return self.data.seed


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(SetupSettings):
    """A training of a model.

    Attributes:
        epochs: in all.
        clip_grad: the largest norm of the gradient; 0 for no limit.
    """

    epochs: int = 50
    clip_grad: float = 5.0


# ---- texts with a form


def cadence(text: str) -> tuple[int | None, int | None]:
    """Reads ``checkpoint_every``.

    Args:
        text: steps (``"500"``), seconds (``"30s"``), minutes (``"5m"``) or hours (``"1h"``).

    Returns:
        Steps, or None and seconds; both at least 1.

    Raises:
        UsageError: something else.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smh]?)", text)
    if match is None or int(match[1]) == 0:
        raise UsageError(
            f"`checkpoint_every` {shortened(text, 80)!r} is no cadence", hint="give steps (500) or time (30s, 5m, 1h)"
        )
    number = int(match[1])
    return (None, number * {"s": 1, "m": 60, "h": 3600}[match[2]]) if match[2] else (number, None)


def check_device(name: str) -> None:
    """Refuses what is no name of a device, whatever devices there are.

    Raises:
        UsageError: neither ``auto``, ``cpu``, ``cuda`` nor ``cuda:N``.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise UsageError(f"no device is named {shortened(name, 80)!r}", hint="use auto, cpu, cuda or cuda:N")


# ---- side by side under their names


def option_names(kind: type[DataclassInstance]) -> list[str]:
    """The names of all options in a dataclass and in its parts, in their order."""
    names: list[str] = []
    for one, part in _fields(kind):
        names += [one.name] if part is None else option_names(part)
    return names


def to_options(settings: DataclassInstance) -> dict[str, object]:
    """The options in a dataclass and in its parts by name, as ``config.json`` and workers have them."""
    options: dict[str, object] = {}
    for one, part in _fields(type(settings)):
        value = getattr(settings, one.name)
        if part is not None:
            options.update(to_options(value))
        else:
            options[one.name] = _as_json(value)
    return options


def _as_json(value: object) -> object:
    """An option as JSON has it: read-only collections as what it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def from_options(kind: type[_T], options: Mapping[str, object], where: str | None = None) -> _T:
    """Make a dataclass with its parts of options by name.

    Args:
        kind: the dataclass.
        options: by name; those of others are left alone, absent ones are defaults.
        where: the file that they are from, for errors.

    Raises:
        InputError: an option without a default is absent.
    """
    found: dict[str, object] = {}
    for one, part in _fields(kind):
        if part is not None:
            found[one.name] = from_options(part, options, where)
        elif one.name in options:
            value = options[one.name]
            found[one.name] = tuple(value) if isinstance(value, list) and isinstance(one.default, tuple) else value
        elif one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"the option {one.name!r} is missing", where=where)
    make: Callable[..., _T] = kind
    return make(**found)


def _fields(kind: type[DataclassInstance]) -> Iterator[tuple[Field[object], type[DataclassInstance] | None]]:
    """The options of a dataclass, each with its own dataclass if it is a part."""
    hints = typing.get_type_hints(kind)
    for one in fields(kind):
        hint = hints[one.name]
        if "internal" not in one.metadata:
            yield one, hint if isinstance(hint, type) and is_dataclass(hint) else None
