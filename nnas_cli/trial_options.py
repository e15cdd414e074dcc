"""What a trial of ``nnas tune`` is and how trials run: the options, and which of them go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nnas_cli import options
from nnas_core.errors import UsageError

if TYPE_CHECKING:
    from nnas_core.execution.commands import LocalSettings
    from nnas_core.execution.ray.engine import RaySettings
    from nnas_core.space.search_space import SearchSpace
    from nnas_core.study.limits import TrialRules

__all__ = ["Running", "check_kind", "how_trials_run", "measured", "space_of", "what_a_trial_is"]

F = TypeVar("F", bound=Callable[..., Any])

# They decide how a trial is trained, and on what; with inherited weights, the search has decided that.
_FOR_TRAINING = (
    "clip_grad",
    "learning_rate",
    "momentum",
    "weight_decay",
    "schedule",
    "min_learning_rate",
    "valid_fraction",
)
# A program brings its own.
_FOR_MODELS = (*_FOR_TRAINING, "recalibrate", "batch_size", "workers", "drop_last", "task", "device")


class _Gpus(click.ParamType[tuple[str, ...]]):
    """Numbers or UUIDs, between commas; also a list, as a configuration may have it."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        parts = list(value) if isinstance(value, (list, tuple)) else str(value).split(",")
        found = tuple(str(part).strip() for part in parts)
        if not found or not all(re.fullmatch(r"\w[\w/:.-]*", part) for part in found):
            self.fail(f"{value!r} is no list of GPUs; give their numbers: 0,1", param, ctx)
        return found


def what_a_trial_is(function: F) -> F:
    """Options of which exactly one kind is given, and those that only one kind takes."""
    decorators = (
        click.option("--checkpoint", metavar="FILE", help="Trials inherit the weights of this supernet."),
        click.option(
            "--train-epochs", "epochs", type=click.IntRange(1), help="Train each trial from scratch for so long."
        ),
        click.option(
            "--trial-command",
            metavar="CMD",
            help="Each trial is a process of this program (no shell); parameters and result are files.",
        ),
        options.recalibrate,
        click.option(
            "--optimize-mode",
            type=click.Choice(["maximize", "minimize"]),
            default="maximize",
            show_default=True,
            help="With --trial-command: which results are better.",
        ),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def how_trials_run(function: F) -> F:
    """Options of trials of any kind; ``Running.taken_from`` reads them."""
    decorators = (
        click.option(
            "--concurrency", type=click.IntRange(1), metavar="N", help="Trials at once.  [default: 1, or one a GPU]"
        ),
        click.option(
            "--gpus", type=_Gpus(), metavar="LIST", help="As 0,1: each trial gets one; one named twice takes two."
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where trials run: on this machine, or as Ray has room for them.",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            help="A Ray cluster that runs: HOST:PORT of its head, or auto. There, --gpus any: each trial gets one.",
        ),
        click.option(
            "--trial-threads",
            type=click.IntRange(1),
            metavar="N",
            help="Cores of each trial.  [default: an even share; 1 on a cluster that runs]",
        ),
        click.option("--trial-timeout", type=options.DURATION, metavar="TIME", help="A trial fails after 90s, 30m."),
        click.option(
            "--attempts",
            type=click.IntRange(1),
            metavar="N",
            help="How often to begin a trial whose process is killed or crashes.  [default: 3]",
        ),
        click.option(
            "--max-failures", type=click.IntRange(1), metavar="N", help="End after so many failed trials of this run."
        ),
        click.option("--assessor", metavar="NAME", help="Ends trials early by what they report, or file.py:Class."),
        options.arguments_of("assessor"),
        click.option("--trial-dir", metavar="DIR", help="Logs and files of trials.  [default: runs/STUDY/trials]"),
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def check_kind(model: str, values: Mapping[str, Any]) -> None:
    """Refuse what is no kind of trial, and options that would do nothing for the kind.

    Args:
        model: a model, or the file of a search space.
        values: the options of ``what_a_trial_is`` and ``how_trials_run``.

    Raises:
        UsageError: naming the first that does not fit.
    """
    is_space = model.endswith(".json")
    if is_space and values["trial_command"] is None:
        raise UsageError(
            "a search space alone cannot be evaluated",
            where=model,
            hint="give the Python file of the model, or --trial-command",
        )
    if sum(values[name] is not None for name in ("checkpoint", "epochs", "trial_command")) != 1:
        raise UsageError(
            "give one of --checkpoint (inherited weights), --train-epochs (training from scratch) "
            "and --trial-command (a program)",
            hint="a checkpoint comes from `nnas search`",
        )
    if values["trial_command"] is not None:
        options.refuse_idle(_FOR_MODELS, "--trial-command")
        if is_space:
            options.refuse_idle(("model_arg",), "a search space")
    elif values["checkpoint"] is not None:
        options.refuse_idle((*_FOR_TRAINING, "optimize_mode", "assessor", "assessor_arg"), "--checkpoint")
    else:
        options.refuse_idle(("recalibrate", "optimize_mode"), "--train-epochs")
    if values["assessor"] is None and values["assessor_arg"]:
        raise UsageError("--assessor-arg does nothing without --assessor", hint="give both, or leave it out")
    if values["gpus"] and values["trial_command"] is None and values["device"] not in ("auto", "cuda"):
        raise UsageError(f"--gpus does nothing with --device {values['device']}", hint="leave one of them out")


def measured(values: Mapping[str, Any]) -> tuple[str, str]:
    """On what trials are measured: data, and how; the data is empty where only the program knows."""
    if values["trial_command"] is not None:
        return "", "reported by the trial command"
    if values["checkpoint"] is not None:
        return "validation", "inherited weights (an estimate)"
    return "validation", f"{values['epochs']} {'epoch' if values['epochs'] == 1 else 'epochs'} from scratch"


def space_of(model: str, arguments: Mapping[str, Any], seed: int) -> SearchSpace:
    """The search space of a model, or in a file; that needs no torch.

    Raises:
        InputError: there is no such file, or it holds something else.
        UserCodeError: the model cannot be built.
    """
    if model.endswith(".json"):
        from nnas_core.files import read_json
        from nnas_core.space.search_space import SearchSpace

        return SearchSpace.from_json(read_json(model), model)
    from nnas_cli.commands.ss_gen import space_of_model

    return space_of_model(model, arguments, seed)[0]


@dataclass(frozen=True)
class Running:
    """How trials run, see ``how_trials_run``; what was not given is None."""

    concurrency: int
    gpus: tuple[str, ...]
    engine: str
    ray_address: str | None
    trial_threads: int | None
    trial_timeout: float | None
    attempts: int | None
    max_failures: int | None
    trial_dir: str | None

    @classmethod
    def taken_from(cls, values: dict[str, Any]) -> Running:
        """Take the options out of ``values``.

        Raises:
            UsageError: more trials at once than GPUs, or options of a cluster that do not go together.
        """
        taken = {name: values.pop(name) for name in cls.__annotations__}
        gpus = taken["gpus"] = taken["gpus"] or ()
        _check_engine(taken["engine"], taken["ray_address"], gpus)
        if gpus and not taken["ray_address"] and (taken["concurrency"] or 0) > len(gpus):
            raise UsageError(
                f"--concurrency {taken['concurrency']} is more than the {len(gpus)} of --gpus",
                hint="lower it, or name a GPU twice to give it two trials",
            )
        taken["concurrency"] = taken["concurrency"] or len(gpus) or 1
        return cls(**taken)

    @property
    def rules(self) -> TrialRules:
        """What holds for each trial."""
        from nnas_core.study.limits import TrialRules

        given: dict[str, Any] = {} if self.attempts is None else {"attempts": self.attempts}
        return TrialRules(timeout_s=self.trial_timeout, max_failures=self.max_failures, **given)

    def needs_workers(self, assessor: str | None) -> bool:
        """Whether trials of a model must be in other processes; without a need, they stay in this one.

        A trial gives the same value in both, see ``nnas_core.workflows.tune.tune``. Only another process can be one
        of several at once, be ended early, have a GPU of its own, or die without an end of the command.
        """
        given = (self.gpus, self.trial_threads, self.trial_timeout, self.attempts, self.trial_dir, assessor)
        return self.concurrency > 1 or self.engine != "local" or any(given)

    def local(self, study: str) -> LocalSettings:
        """Where the processes of a study's trials run, and with what; cores are shared evenly."""
        from nnas_core.execution.commands import LocalSettings

        folder = Path(self.trial_dir or f"runs/{study}/trials")
        return LocalSettings(folder, threads=self._threads, gpus=self.gpus)

    @property
    def _threads(self) -> int:
        from nnas_core.execution.commands import threads_for

        return self.trial_threads or (1 if self.ray_address else threads_for(self.concurrency))

    @property
    def cluster(self) -> RaySettings | None:
        """The cluster, if one is asked for; one of its own has room for all trials at once, as this machine has."""
        if self.engine == "local":
            return None
        from nnas_core.execution.ray.engine import RaySettings

        return RaySettings(
            self.ray_address,
            gpus=() if self.ray_address else self.gpus,
            gpu_each=bool(self.gpus),
            cpus=self._threads * self.concurrency,
        )


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
