"""Every option that decides what a command computes, typed; nothing here needs torch, see ``training.settings``.

SearchSettings     training: CheckpointedSettings, mutator, trainer, precision, acceleration, derive
RetrainSettings    training: CheckpointedSettings, architecture, checkpoint, init, seeds, recipe: RecipeSettings
ExportSettings     source, model, what to write and where
EvaluateSettings   setup: SetupSettings, checkpoint, recalibrate, on
CountSettings      setup: SetupSettings, goals: GoalSettings
ProfileSettings    setup: SetupSettings, which architectures, on what, for how long
TuneSettings       training: TrainingSettings, study, goals: GoalSettings, algorithms, checkpoint, recalibrate
CommandSettings    study, goals, algorithms, trial_command: no model
AssessSettings     how many random architectures, how trained, and what else a run or a study does not say

CheckpointedSettings        a TrainingSettings in a run folder
TrainingSettings   a SetupSettings with epochs
SetupSettings      model: ModelReference, data: DataSettings, optimizer: OptimizerSettings, device
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nnas_core.errors import UsageError
from nnas_core.training.settings import (
    RECALIBRATE,
    AccelerationSettings,
    OptimizerSettings,
    RecipeSettings,
    SetupSettings,
    TrainingSettings,
    option_names,
    to_options,
)

if TYPE_CHECKING:
    from nnas_core.space.goals import Constraint, Objective
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.study.storage.records import StudySettings

__all__ = [
    "AlgorithmSettings",
    "AssessSettings",
    "CheckpointedSettings",
    "CommandSettings",
    "CountSettings",
    "EvaluateSettings",
    "ExportSettings",
    "GoalSettings",
    "ProfileSettings",
    "RetrainSettings",
    "SearchSettings",
    "TuneSettings",
]


@dataclass(frozen=True, kw_only=True)
class CheckpointedSettings(TrainingSettings):
    """A training that writes checkpoints into a run folder.

    Attributes:
        checkpoint_every: when to write a checkpoint besides each epoch, see ``CheckpointCadence``.
    """

    checkpoint_every: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """A one-shot search.

    Attributes:
        training: of the supernet.
        mutator: a registered name, or ``file.py:Class``.
        mutator_arg: for its constructor.
        trainer: whose loop to use instead of the mutator's own: a registered mutator's name, or ``file.py:Class``.
        precision: ``"float32"``, ``"float64"``, or ``"bfloat16"`` (autocast).
        derive: measure so many architectures at most with the weights of the supernet, and hand out the best on
            validation data; 0: hand out what the algorithm says; None: that too, or, where the algorithm gains by it,
            the best of as many as a fifth of the search pays for, and of all in spaces of up to 100.
        try_candidates: run each candidate once on the first batch before training, and list those that fail.
        constraint: limits that what is handed out must meet, see ``Constraint.parse``: of costs, or of metrics.
        latency_table: a file, by which a constraint on ``latency_ms`` is; and the mutator's argument, if it has it.
    """

    training: CheckpointedSettings
    mutator: str
    mutator_arg: Mapping[str, object] = field(default_factory=dict)
    trainer: str | None = None
    precision: str = "float32"
    acceleration: AccelerationSettings = field(default_factory=AccelerationSettings)
    derive: int | None = None
    try_candidates: bool = True
    constraint: Sequence[str] = ()
    latency_table: str | None = None


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """A training of one architecture alone.

    Attributes:
        training: of the extracted model.
        architecture: in any form.
        checkpoint: of a supernet, whose weights may be the start, and whose held-out samples stay held out; None: of
            none.
        init: ``"inherited"`` starts from the weights of ``checkpoint``, ``"scratch"`` from the model's own; None:
            inherited with a checkpoint, else from scratch.
        seeds: train so many times, with this seed and those after it.
        recipe: what else is done in training.
    """

    training: CheckpointedSettings
    architecture: object
    checkpoint: str | None = None
    init: str | None = None
    seeds: int = 1
    recipe: RecipeSettings = field(default_factory=RecipeSettings)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """An evaluation with inherited weights.

    Attributes:
        setup: the model and its data.
        checkpoint: of the supernet.
        recalibrate: training batches for the BatchNorm statistics; 0: off.
        on: ``"valid"`` or ``"test"``: the data to measure on.
    """

    setup: SetupSettings
    checkpoint: str
    recalibrate: int = RECALIBRATE
    on: str = "valid"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """A network for others, in files that need no nnas.

    Attributes:
        model: the model; None: that of the checkpoint.
        model_arg: the arguments that it is built with; None: those of the checkpoint.
        task: a file with data; None: that of the run, else beside the model.
        input_shape: of one sample, for random inputs; None: the first samples of the training data.
        weights: a file for the ``state_dict``: ``.safetensors``, ``.pt`` or ``.pth``.
        exported: a file for a program of ``torch.export``.
        onnx: a file for a model of ONNX.
        opset: the version of ONNX's operators.
        python: a file for the source of the network.
    """

    model: str | None = None
    model_arg: Mapping[str, object] | None = None
    task: str | None = None
    input_shape: tuple[int, ...] | None = None
    weights: str | None = None
    exported: str | None = None
    onnx: str | None = None
    opset: int = 18
    python: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """What is to be written: name of the attribute -> file, in the order in which they are made."""
        named = {"weights": self.weights, "exported": self.exported, "onnx": self.onnx, "python": self.python}
        return {name: path for name, path in named.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """A measurement of what architectures cost; without any named, the smallest and the largest.

    Attributes:
        setup: the model and its data, and the size of the batch that latencies are of.
        smallest, largest: measure the one with the fewest or most parameters; multiply-adds decide among equals.
        random: measure so many random ones.
        input_shape: of one sample, for random inputs; None: the first sample of the training data.
        threads: of the kernels on a CPU; None: as torch has it.
        seconds: to measure each latency for; a tenth for each candidate of a table.
        latency_table: measure every candidate, and write a latency table there.
    """

    setup: SetupSettings
    smallest: bool = False
    largest: bool = False
    random: int = 0
    input_shape: tuple[int, ...] | None = None
    threads: int | None = None
    seconds: float = 1.0
    latency_table: str | None = None


@dataclass(frozen=True)
class GoalSettings:
    """What architectures are asked for.

    Attributes:
        constraint: limits that all must meet, see ``Constraint.parse``.
        objective: what is to be large or small, see ``Objective.parse``; empty: the metric.
        latency_table: a file, by which ``latency_ms`` is known of every architecture.
    """

    constraint: Sequence[str] = ()
    objective: Sequence[str] = ()
    latency_table: str | None = None

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """The limits, in one order."""
        from nnas_core.space.goals import constraints_of  # late: a help text has no use for it

        return constraints_of(self.constraint)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, as they were written."""
        from nnas_core.space.goals import objectives_of  # late: as above

        return objectives_of(self.objective)

    @property
    def names(self) -> list[str]:
        """What limits and objectives are about, each once."""
        limited, aims = [one.name for one in self.constraints], [one.name for one in self.objectives]
        return list(dict.fromkeys([*limited, *aims]))

    def config(self, metric: str | None, mode: str, costs: Collection[str] = ()) -> dict[str, object]:
        """What a resumed study must have again.

        Args:
            metric: the study's own, whose direction is ``mode``.
            mode: ``"maximize"`` or ``"minimize"``.
            costs: names of those that the task has.
        """
        towards = [str(one.towards(metric, mode, costs)) for one in self.objectives]
        found: dict[str, object] = {"constraint": list(map(str, self.constraints)), "objective": towards}
        if self.latency_table is not None:
            from nnas_core.files import read_bytes  # late: as above

            if self.latency_table == "-":
                raise UsageError("`latency_table` needs a file, not standard input: it is read again to go on")
            found["latency_table"] = "sha256:" + hashlib.sha256(read_bytes(self.latency_table)).hexdigest()
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, kw_only=True)
class CountSettings:
    """A count of architectures.

    Attributes:
        setup: the model, and its data, on which costs are measured.
        goals: of these the constraints.
    """

    setup: SetupSettings
    goals: GoalSettings = GoalSettings()


@dataclass(frozen=True)
class AlgorithmSettings:
    """The algorithms of a study, each a registered name or ``file.py:Class``, and arguments for its constructor.

    Attributes:
        tuner, tuner_arg: proposes the trials.
        assessor, assessor_arg: ends trials early; None: they all end by themselves.
    """

    tuner: str = "bayes"
    tuner_arg: Mapping[str, object] = field(default_factory=dict)
    assessor: str | None = None
    assessor_arg: Mapping[str, object] = field(default_factory=dict)

    def study(
        self,
        name: str,
        space: SearchSpace,
        seed: int,
        optimize_mode: str,
        config: Mapping[str, object],
        metric: str | None = "value",
    ) -> StudySettings:
        """What a study with these algorithms is made with; a resumed one must have the same assessor again.

        Args:
            name, space, seed, optimize_mode, config: as for ``StudySettings``.
            metric: what trials report on the way; None: that is not known.

        Raises:
            UsageError: the assessor would see another number than the one that is searched for.
        """
        from nnas_core.study.storage.records import StudySettings  # needs numpy, which a help text has no use for

        aims = config.get("objective")
        if isinstance(aims, list) and aims:  # the first is the value of a trial
            aim, _, towards = str(aims[0]).rpartition(":")
            optimize_mode = "minimize" if towards == "min" else "maximize"
            if self.assessor is not None and metric is not None and aim not in (metric, "value"):
                raise UsageError(
                    f"`assessor` {self.assessor!r} goes by {metric!r}, which trials report on the way, and the first "
                    f"`objective` is {aim!r}",
                    hint=f"leave the assessor out, or name {metric} first",
                )
        if self.assessor is not None:
            config = {**config, "assessor": self.assessor, "assessor_arg": dict(self.assessor_arg)}
        return StudySettings(name, space, self.tuner, self.tuner_arg, seed, optimize_mode, config)


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """A study whose trials evaluate or train a model.

    Attributes:
        training: of a trial from scratch; of its parts, trials that inherit need the setup alone.
        study: its name.
        checkpoint: whose weights a trial inherits; None trains from scratch.
        recalibrate: as for ``EvaluateSettings``.
        goals: what trials are asked for.
    """

    training: TrainingSettings
    study: str
    goals: GoalSettings = GoalSettings()
    algorithms: AlgorithmSettings = AlgorithmSettings()
    checkpoint: str | None = None
    recalibrate: int = RECALIBRATE

    @property
    def seed(self) -> int:
        """The seed of all randomness."""
        return self.training.seed

    def config(self, weights: str | None) -> dict[str, object]:
        """Options that a resumed study must have again besides space, tuner and seed; where it runs does not matter.

        Args:
            weights: digest of what a trial inherits: a checkpoint may be overwritten, and have several paths.
        """
        kept = ["model", "model_arg", "task", "batch_size", "drop_last"]
        if self.checkpoint is not None:
            kept.append("recalibrate")
        else:
            kept += ["epochs", "valid_fraction", "clip_grad", *option_names(OptimizerSettings)]
        options = to_options(self)
        config = {name: options[name] for name in kept}
        return config if weights is None else {**config, "weights": weights}


@dataclass(frozen=True, kw_only=True)
class CommandSettings:
    """A study whose trials are processes of a command.

    Attributes:
        study: its name.
        space: of all architectures that trials may have.
        trial_command: a command line; its words are split as a shell does, and no shell runs it.
        optimize_mode: which reported values are better: ``"maximize"`` or ``"minimize"``.
        seed: of the tuner.
        goals: what trials are asked for.
    """

    study: str
    space: SearchSpace
    trial_command: str
    goals: GoalSettings = GoalSettings()
    optimize_mode: str = "maximize"
    algorithms: AlgorithmSettings = AlgorithmSettings()
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AssessSettings:
    """A comparison of what was found with random architectures.

    Attributes:
        random: how many are measured; None: 100, or 20 where each is trained.
        train, seeds: so many of them are trained alone, in pairs with the found one, with so many seeds each.
        train_epochs: of each training; None: as many as the run had.
        budget: what tells how many architectures the search could have trained: ``"epochs"`` or ``"seconds"``.
        fail_under: the percentile that a gate asks for, 0 to 100.
        checkpoint, model, latency_table: files, where the run or the study does not say, or they are elsewhere now.
        study: the name of the study that has the random ones; None: ``assess-NAME``.
        device, seed: as for a training; the seed draws the random ones too.
    """

    random: int | None = None
    train: int = 5
    seeds: int = 3
    train_epochs: int | None = None
    budget: str = "epochs"
    fail_under: float | None = None
    checkpoint: str | None = None
    model: str | None = None
    latency_table: str | None = None
    study: str | None = None
    device: str = SetupSettings.device
    seed: int = 0
