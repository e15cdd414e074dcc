"""Options that say what a trial of ``nnas tune`` is and how trials run, and which of them go together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from nnas_cli import options
from nnas_cli.default_places import study_folder
from nnas_cli.parameter_types import COMMAND_LINE, DURATION, GPUS, MOST_PROCESSES, Count, OrNone
from nnas_core.errors import UsageError
from nnas_core.training.settings import RECALIBRATE, ModelReference, OptimizerSettings, option_names
from nnas_core.workflows.settings import AlgorithmSettings, CommandSettings

if TYPE_CHECKING:
    from nnas_core.execution.commands import LocalSettings
    from nnas_core.execution.ray.engine import RaySettings
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.study.limits import TrialRules

__all__ = ["Running", "TrialKind", "how_trials_run", "space_of", "what_a_trial_is", "where_trials_run"]

F = TypeVar("F", bound=Callable[..., object])

# They decide how a trial is trained, and on what; with inherited weights, the search has decided that.
_FOR_TRAINING = ("clip_grad", *option_names(OptimizerSettings), "valid_fraction")
# What a program alone may do.
_FOR_PROGRAMS = ("optimize_mode", "linger")
# A program brings its own.
_FOR_MODELS = (*_FOR_TRAINING, "recalibrate", "batch_size", "workers", "drop_last", "task", "device")


def what_a_trial_is(function: F) -> F:
    """Options of which exactly one kind is given, and those that only one kind takes: a ``TrialKind``."""
    return options.decorated(
        function,
        click.option("--checkpoint", metavar="FILE", help="Let trials inherit the weights of this supernet."),
        click.option(
            "--train-epochs",
            "epochs",
            type=Count(1),
            envvar="NNAS_TUNE_TRAIN_EPOCHS",
            allow_from_autoenv=False,
            help="Train each trial from scratch for so long.",
        ),
        click.option(
            "--trial-command",
            type=COMMAND_LINE,
            metavar="CMD",
            help="Run this program for each trial (no shell); parameters and result are files.",
        ),
        options.recalibrate,
        options.of_field(
            "--optimize-mode",
            CommandSettings,
            click.Choice(["maximize", "minimize"]),
            "Say which results of --trial-command are better.",
        ),
    )


@dataclass(frozen=True)
class Running:
    """Holds the options of ``how_trials_run``; those that were not given are None."""

    concurrency: int | None = None
    gpus: tuple[str, ...] | None = None
    engine: str = "local"
    ray_address: str | None = None
    trial_threads: int | None = None
    trial_timeout: float | None = None
    linger: float | None = None
    attempts: int | None = None
    max_failures: int | str | None = None
    trial_log_dir: str | None = None

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: more trials at once than GPUs, or options of a cluster.
        """
        gpus = self.gpus or ()
        _check_engine(self.engine, self.ray_address, gpus)
        if gpus and not self.ray_address and (self.concurrency or 0) > len(gpus):
            raise UsageError(
                f"--concurrency {self.concurrency} is more than the {len(gpus)} of --gpus",
                hint="lower it, or name a GPU twice to give it two trials",
            )

    @property
    def at_once(self) -> int:
        """The number of trials that run at once."""
        return self.concurrency or len(self.gpus or ()) or 1

    @property
    def rules(self) -> TrialRules:
        """The rules of each trial."""
        from nnas_core.study.limits import TrialRules

        attempts = TrialRules.attempts if self.attempts is None else self.attempts
        rules = TrialRules(attempts, self.trial_timeout)
        if self.max_failures is None:
            return rules
        most = None if isinstance(self.max_failures, str) else self.max_failures
        return replace(rules, max_failures=most, max_alike=None)

    def needs_workers(self, assessor: str | None) -> bool:
        """Returns true if trials of a model must be in other processes; without a need, they stay in this one.

        A trial gives the same value in both, see ``nnas_core.workflows.tune.tune``. Only another process can be one
        of several at once, be ended early, have a GPU of its own, or die without an end of the command.
        """
        given = (self.gpus, self.trial_threads, self.trial_timeout, self.attempts, self.trial_log_dir, assessor)
        return self.at_once > 1 or self.engine != "local" or any(given)

    def local(self, study: str) -> LocalSettings:
        """The settings of the processes of a study's trials; cores are shared evenly."""
        from nnas_core.execution.commands import LINGER_S, LocalSettings

        folder = Path(self.trial_log_dir) if self.trial_log_dir else study_folder(study) / "trials"
        linger_s = LINGER_S if self.linger is None else self.linger
        return LocalSettings(folder, threads=self._threads, gpus=self._devices, linger_s=linger_s)

    @property
    def _devices(self) -> tuple[str, ...]:
        """The GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; those of a cluster that runs are its own."""
        from nnas_core.execution.gpus import visible_gpus

        return visible_gpus(self.gpus) if self.gpus and not self.ray_address else ()

    @property
    def _threads(self) -> int:
        from nnas_core.execution.commands import threads_for

        return self.trial_threads or (1 if self.ray_address else threads_for(self.at_once))

    @property
    def cluster(self) -> RaySettings | None:
        """The cluster, if one is asked for; one of its own has room for all trials at once, as this machine has."""
        if self.engine == "local":
            return None
        from nnas_core.execution.ray.engine import RaySettings

        return RaySettings(
            self.ray_address,
            gpus=self._devices,
            gpu_each=bool(self.gpus),
            cpus=self._threads * self.at_once,
        )


def how_trials_run(function: F) -> F:
    """Options of trials of any kind: a ``Running``, and the assessor."""
    return options.decorated(
        function,
        where_trials_run,
        click.option(
            "--assessor",
            metavar="NAME",
            help="End trials early by this: see `nnas list assessors`.",
        ),
        options.arguments_of("assessor"),
    )


def where_trials_run(function: F) -> F:
    """Options of trials of any kind: a ``Running``."""
    return options.decorated(
        function,
        click.option(
            "--concurrency",
            type=Count(1, MOST_PROCESSES),
            metavar="N",
            help="Run N trials at once.  [default: 1, or one a GPU]",
        ),
        click.option(
            "--gpus",
            type=GPUS,
            metavar="LIST",
            help="Give each trial one of these, as 0,1; one named twice takes two.",
        ),
        options.of_field(
            "--engine",
            Running,
            click.Choice(["local", "ray"]),
            "Run trials on this machine, or as Ray has room for them.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="Use the Ray cluster at HOST:PORT of its head, or auto; there, --gpus any gives each trial one.",
        ),
        click.option(
            "--trial-threads",
            type=Count(1, MOST_PROCESSES),
            metavar="N",
            help="Give each trial N cores.  [default: an even share; 1 on a cluster that runs]",
        ),
        click.option("--trial-timeout", type=DURATION, metavar="TIME", help="Let a trial fail after 90s, 30m."),
        click.option(
            "--linger",
            type=DURATION,
            metavar="TIME",
            help="Let the program of --trial-command go on for so long after its result.  [default: 60s]",
        ),
        click.option(
            "--attempts",
            type=Count(1),
            metavar="N",
            help="Begin a trial up to N times if its process is killed or crashes.  [default: 3]",
        ),
        click.option(
            "--max-failures",
            type=OrNone(Count(1)),
            metavar="N",
            help="End after so many failed trials of this run; none is no limit.  [default: 3 that fail alike before"
            " the first success]",
        ),
        click.option(
            "--trial-log-dir",
            metavar="DIR",
            help="Keep files of trials here.  [default: runs/studies/STUDY/trials]",
        ),
    )


@dataclass(frozen=True)
class TrialKind:
    """Holds the options of ``what_a_trial_is``: one of the first three is given."""

    checkpoint: str | None = None
    epochs: int | None = None
    trial_command: str | None = None
    recalibrate: int = RECALIBRATE
    optimize_mode: str = CommandSettings.optimize_mode

    def check(self, model: ModelReference, algorithms: AlgorithmSettings, running: Running, device: str) -> None:
        """Refuse what is no kind of trial, and options that would do nothing for the kind.

        Raises:
            UsageError: naming the first that does not fit.
        """
        is_space = model.model.endswith(".json")
        if is_space and self.trial_command is None:
            raise UsageError(
                "a search space alone cannot be evaluated",
                where=model.model,
                hint="give the Python file of the model, or --trial-command",
            )
        if sum(given is not None for given in (self.checkpoint, self.epochs, self.trial_command)) != 1:
            raise UsageError(
                "give one of --checkpoint (inherited weights), --train-epochs (training from scratch) "
                "and --trial-command (a program)",
                hint="a checkpoint comes from `nnas search`",
            )
        self._refuse_idle(is_space)
        if algorithms.assessor is None and algorithms.assessor_arg:
            raise UsageError("--assessor-arg does nothing without --assessor", hint="give both, or leave it out")
        if running.gpus and self.trial_command is None and device not in ("auto", "cuda"):
            raise UsageError(f"--gpus does nothing with --device {device}", hint="leave one of them out")

    def _refuse_idle(self, is_space: bool) -> None:
        if self.trial_command is not None:
            options.refuse_idle(_FOR_MODELS, "--trial-command")
            if is_space:
                options.refuse_idle(("model_arg",), "a search space")
        elif self.checkpoint is not None:
            options.refuse_idle((*_FOR_TRAINING, *_FOR_PROGRAMS, "assessor", "assessor_arg"), "--checkpoint")
        else:
            options.refuse_idle(("recalibrate", *_FOR_PROGRAMS), "--train-epochs")

    @property
    def measured(self) -> tuple[str, str]:
        """The data that trials are measured on, and how; the data is empty where only the program knows."""
        if self.trial_command is not None:
            return "", "reported by the trial command"
        if self.checkpoint is not None:
            return "validation", "inherited weights (an estimate)"
        return "validation", f"{self.epochs} {'epoch' if self.epochs == 1 else 'epochs'} from scratch"

    @property
    def measured_on(self) -> str:
        """The same in one phrase."""
        data, how = self.measured
        return f"{data} data, {how}" if data else how


def space_of(model: ModelReference, seed: int) -> SearchSpace:
    """The search space of a model, or in a file; that needs no torch.

    Raises:
        InputError: there is no such file, or it holds something else.
        UserCodeError: the model cannot be built.
    """
    if model.model.endswith(".json"):
        from nnas_core.files import read_json
        from nnas_core.space.search_space import SearchSpace

        return SearchSpace.from_json(read_json(model.model), model.model)
    from nnas_cli.commands.ss_gen import space_of_model

    return space_of_model(model.model, model.model_arg, seed)[0]


def _check_engine(engine: str, address: str | None, gpus: tuple[str, ...]) -> None:
    shown = ",".join(gpus)
    if address is not None and engine != "ray":
        raise UsageError("--ray-address does nothing without --engine ray", hint="give both, or leave it out")
    if address is not None and gpus not in ((), ("any",)):
        raise UsageError(
            f"--gpus {shown} names GPUs of this machine, and a cluster assigns its own", hint="give --gpus any"
        )
    if address is None and "any" in gpus:
        raise UsageError("--gpus any needs --ray-address", hint="name the GPUs of this machine: 0,1")
    if engine == "ray" and len(set(gpus)) < len(gpus):
        raise UsageError(
            f"--gpus {shown}: with --engine ray, no two trials share a GPU",
            hint="name each once, or use --engine local",
        )
