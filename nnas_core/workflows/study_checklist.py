"""The checklist of a study of ``nnas tune``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nnas_core
from nnas_core.assessment.checklist import Checklist, Command, Fact
from nnas_core.assessment.experiment import Experiment, checklist_of
from nnas_core.runs.circumstances import read_circumstances
from nnas_core.runs.summary import RunSummary
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord, TrialRecord
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore
from nnas_core.workflows import stored_facts as facts

__all__ = ["study_checklist"]


def study_checklist(store: StudyStore, study: StudyRecord) -> Checklist:
    """Returns the checklist of a study, filled with what its database says, and the run folders where it was begun.

    Args:
        store: where it is; other studies there may be comparisons.
        study: which.

    Raises:
        InputError: rows of the study are damaged.
    """
    return checklist_of(_Study(store, study).experiment())


@dataclass(frozen=True)
class _Study:
    store: StudyStore
    study: StudyRecord

    @property
    def _where(self) -> str:
        return f"study {self.study.name}"

    @cached_property
    def _ended(self) -> list[TrialRecord]:
        return [trial for trial in self.store.trials(self.study) if trial.state in ENDED_STATES]

    @cached_property
    def _best(self) -> TrialRecord | None:
        return self.store.best(self.study)

    @cached_property
    def _final(self) -> list[RunSummary]:
        """The trainings of the best architecture alone, where the study was begun."""
        folder = Path(self.study.settings.origin.folder or ".") / "runs"
        return facts.final_trainings(str(folder), None if self._best is None else self._best.architecture)

    @cached_property
    def _others(self) -> list[StudyRecord]:
        """The other studies of the space there."""
        made = self.study.settings
        return [
            one
            for one in self.store.studies(Damage(self.store.where))
            if one.id != self.study.id and one.settings.space.fingerprint == made.space.fingerprint
        ]

    def experiment(self) -> Experiment:
        """Everything that is stored."""
        made = self.study.settings
        origin = made.origin
        machines = [] if origin.machine is None else [origin.machine]
        program = made.config.get("trial_command")
        time, untimed = self._time()
        words = facts.arguments_in_words(
            "tuners", made.tuner, made.tuner_args, self.study.version, nnas_core.__version__
        )
        options = {**made.config, "seed": made.seed, "optimize_mode": made.optimize_mode, **self._limits()}
        return Experiment(
            kind="study",
            name=self.study.name,
            code=facts.code_facts(made.config.get("model") or program, origin.files, self._where),
            version=[Fact("nnas", self.study.version, self._where)],
            space=facts.space_facts(made.space, self._where),
            method=[Fact("tuner", f"{made.tuner}: {words}", self._where)],
            own_method=facts.own_file("tuners", made.tuner) or facts.own_file("assessors", made.assessor),
            options=[Fact("options", facts.options_in_words(options), self._where)],
            final=[fact for one in self._final for fact in facts.training_facts(one)],
            data=facts.data_facts(origin.samples, origin.split, self._where),
            machines=[facts.machine_fact(machine, self._where) for machine in machines],
            time=time,
            untimed=untimed,
            curve=self._curve(),
            rivals=facts.rivals(
                self.store, made.space, None if self._best is None else self._best.architecture, machines, self.study
            ),
            seeds=self._seeds(),
            variants=self._variants(),
            repeat=self._again(made.seed, "again"),
            another_seed=self._again(made.seed + 1, f"seed-{made.seed + 1}"),
            retrain=self._retrain(),
            assess=Command("assess", [self.study.name]),
            watch=Command("view", (), [("study", self.study.name)]),
            reads_table=program if isinstance(program, str) else None,
        )

    def _limits(self) -> dict[str, object]:
        trials = self.store.status(self.study).limits["trials"]
        return {} if trials is None else {"trials": trials}

    # ---- time

    def _time(self) -> tuple[list[Fact], list[str]]:
        """What is known of the time, and what is not."""
        found, untimed = [], []
        seconds = [trial.seconds for trial in self._ended if trial.seconds is not None]
        if seconds:
            words = f"{facts.span_in_words(sum(seconds))} of {len(seconds)} trials"
            found.append(Fact("trials", words, self._where))
        if len(seconds) < len(self._ended):
            untimed.append(f"{len(self._ended) - len(seconds)} trials that were not run here")
        if self.study.state != "finished":
            untimed.append("the rest of the study")
        if "weights" in self.study.settings.config:
            untimed.append("the training of the weights that trials inherit")
        if not self._final:
            untimed.append("the training of what was found")
        for one in (each for run in self._final for each in facts.retrainings(run)):
            took = read_circumstances(one.path).seconds
            name = f"training with seed {one.options.get('seed')}"
            if took is None:
                untimed.append(name)
            else:
                found.append(Fact(name, facts.span_in_words(took), f"{one.path}/events.jsonl"))
        return found, untimed

    def _curve(self) -> list[Fact]:
        good = [trial for trial in self._ended if trial.value is not None and trial.finished is not None]
        if not good or self._best is None:
            return []
        best = f"the best {self._best.value:.6g}, trial {self._best.number}"
        return [Fact("curve", f"value and time of each of {len(good)} trials; {best}", self._where)]

    # ---- other studies

    def _seeds(self) -> list[Fact]:
        made = self.study.settings
        alike = [
            one
            for one in self._others
            if one.state == "finished"
            and (one.settings.tuner, one.settings.tuner_args, one.settings.config, one.settings.optimize_mode)
            == (made.tuner, made.tuner_args, made.config, made.optimize_mode)
            and one.settings.origin.files == made.origin.files
        ]
        seeds = {one.settings.seed: one for one in [*alike, self.study]}
        return [Fact(f"seed {seed}", self._result(one), f"study {one.name}") for seed, one in sorted(seeds.items())]

    def _variants(self) -> list[Fact]:
        before = self._options(self.study)
        found = []
        for one in self._others:
            options = self._options(one)
            names = [name for name in sorted(before.keys() | options.keys()) if before.get(name) != options.get(name)]
            if names and one.settings.tuner != "random":
                words = facts.options_in_words({name: options.get(name) for name in names}) or ", ".join(names)
                found.append(Fact(one.name, f"{words}; {self._result(one)}", f"study {one.name}"))
        return found

    def _options(self, study: StudyRecord) -> dict[str, object]:
        made = study.settings
        arguments = {f"tuner_arg.{name}": value for name, value in made.tuner_args.items()}
        return {**made.config, **arguments, "tuner": made.tuner, "optimize_mode": made.optimize_mode}

    def _result(self, study: StudyRecord) -> str:
        top = self.store.top(study, 1, Damage(self.store.where))
        return f"{study.state}, best value {top[0].value:.6g}" if top else study.state

    # ---- commands

    def _again(self, seed: int, ending: str) -> Command | None:
        """The command of the study under another name; None: ``nnas tune`` has not made it."""
        made = self.study.settings
        subject = made.config.get("model") or ("SPACE.json" if "trial_command" in made.config else None)
        if not isinstance(subject, str):
            return None
        options = list(self._options_of_tune(seed))
        return Command("tune", [subject], [*options, ("study", f"{self.study.name}-{ending}")])

    def _options_of_tune(self, seed: int) -> Iterator[tuple[str, str | None]]:
        made = self.study.settings
        paths = made.origin.paths
        yield "tuner", made.tuner
        yield from _written("tuner_arg", made.tuner_args)
        for name, value in made.config.items():
            if name == "weights":
                yield "checkpoint", paths.get("checkpoint", "CHECKPOINT")
            elif name == "latency_table":
                yield name, paths.get(name, "TABLE")
            elif name == "epochs":
                yield from _written("train_epochs", value)
            elif name != "model":
                yield from _written(name, value)
        if "trial_command" in made.config:
            yield "optimize_mode", made.optimize_mode
        yield "seed", str(seed)
        yield from _written("trials", self._limits().get("trials"))

    def _retrain(self) -> Command:
        model = self.study.settings.config.get("model")
        options = [*_written("model_arg", self.study.settings.config.get("model_arg"))]
        named = model if isinstance(model, str) else "MODEL"
        return Command("retrain", [named], [*options, ("architecture", "BEST.json"), ("seeds", "3")])


def _written(name: str, value: object) -> Iterator[tuple[str, str | None]]:
    """An option as a command line has it: once for each entry of a list or mapping, a switch where it is true."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield name, f"{key}={json.dumps(one, ensure_ascii=False)}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield name, str(one)
    elif value is True:
        yield name, None
    elif value is not None and value is not False:
        yield name, str(value)
