"""The checklist of a run folder: of a search, or of a training of one architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nnas_core
from nnas_core.assessment.checklist import Checklist, Command, Fact
from nnas_core.assessment.experiment import Experiment, checklist_of
from nnas_core.files import read_json
from nnas_core.runs.circumstances import Circumstances, read_circumstances
from nnas_core.runs.summary import RunSummary, read_architecture, read_run, runs_in
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.storage.store import StudyStore
from nnas_core.workflows import stored_facts as facts

__all__ = ["run_checklist"]

_INDIFFERENT = frozenset({"seed", "device", "workers", "checkpoint_every"})
"""Options in which two runs may differ that are one experiment with two seeds."""


def run_checklist(folder: str, store: StudyStore | None = None) -> Checklist:
    """Returns the checklist of a run, filled with what its folder, those beside it, and a storage say.

    Args:
        folder: of the run.
        store: of studies, where comparisons with random architectures may be; None: there is none.

    Raises:
        InputError: it holds no run, or its files are damaged.
        EnvironmentFailure: they may not be read.
    """
    return checklist_of(_Run(read_run(folder), store).experiment())


@dataclass(frozen=True)
class _Run:
    """A run with what is around it.

    Args:
        run: what its folder says.
        store: as for ``run_checklist``.
    """

    run: RunSummary
    store: StudyStore | None

    @property
    def _config(self) -> str:
        return f"{self.run.path}/config.json"

    @property
    def _events(self) -> str:
        return f"{self.run.path}/events.jsonl"

    @cached_property
    def _around(self) -> Circumstances:
        return read_circumstances(self.run.path)

    @cached_property
    def _space(self) -> SearchSpace | None:
        file = Path(self.run.path) / "search_space.json"
        return SearchSpace.from_json(read_json(file), str(file)) if file.is_file() else None

    @cached_property
    def _architecture(self) -> Architecture | None:
        return read_architecture(self.run.path)

    @cached_property
    def _beside(self) -> list[RunSummary]:
        """The other runs in the same folder."""
        return [one for one in runs_in(Path(self.run.path).parent) if not Path(one.path).samefile(self.run.path)]

    @cached_property
    def _final(self) -> list[RunSummary]:
        """The trainings of the found architecture alone."""
        if self.run.command == "retrain":
            return [self.run]
        return facts.final_trainings(str(Path(self.run.path).parent), self._architecture)

    def experiment(self) -> Experiment:
        """Everything that is stored."""
        run, around, method = self.run, self._around, self.run.mutator
        options = {name: value for name, value in run.options.items() if name not in ("architecture", "mutator_arg")}
        versions = sorted({machine.nnas for machine in around.machines})
        time, untimed = self._time()
        return Experiment(
            kind=run.command or "search",
            name=run.path,
            code=facts.code_facts(run.model, around.code, self._events, around.changed),
            version=[Fact("nnas", ", ".join(versions), self._events)] if versions else [],
            space=facts.space_facts(self._space, f"{run.path}/search_space.json"),
            method=[] if method is None else [Fact("mutator", f"{method}: {self._arguments(versions)}", self._config)],
            own_method=facts.own_file("mutators", method),
            options=[Fact("options", facts.options_in_words(options), self._config)],
            final=[fact for one in self._final for fact in facts.training_facts(one)],
            data=facts.data_facts(around.samples, around.split, self._events),
            machines=[facts.machine_fact(machine, self._events) for machine in around.machines],
            time=time,
            untimed=untimed,
            curve=self._curve(),
            rivals=facts.rivals(self.store, self._space, self._architecture, around.machines),
            seeds=self._seeds(),
            variants=self._variants(),
            repeat=self._again(run.options.get("seed"), "again"),
            another_seed=self._another(),
            retrain=self._retrain(),
            assess=Command("assess", [run.path]),
            watch=Command("view", [run.path]),
        )

    def _arguments(self, versions: Sequence[str]) -> str:
        given = self.run.options.get("mutator_arg")
        version = versions[0] if len(versions) == 1 else ""
        known: Mapping[str, object] = given if isinstance(given, Mapping) else {}
        return facts.arguments_in_words("mutators", self.run.mutator or "", known, version, nnas_core.__version__)

    # ---- time

    def _time(self) -> tuple[list[Fact], list[str]]:
        """What is known of the time, and what is not."""
        found: list[Fact] = []
        untimed: list[str] = []
        if self.run.command == "search":
            found, untimed = _timed("search", self.run, self._around, self._events)
            if not self._final:
                untimed.append("the training of what was found")
        for one in (each for run in self._final for each in facts.retrainings(run)):
            name = f"training with seed {one.options.get('seed')}"
            more, unknown = _timed(name, one, read_circumstances(one.path), f"{one.path}/events.jsonl")
            found, untimed = [*found, *more], [*untimed, *unknown]
        if self.run.command == "retrain":
            untimed.append("the search")
        return found, untimed

    def _curve(self) -> list[Fact]:
        run = self.run
        if not run.epochs:
            return []
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in run.metrics.items())
        words = f"metrics and time after each of {_epochs(run.epochs)}; in the end {run.measured_on} {metrics}"
        return [Fact("curve", words, self._events)]

    # ---- other runs

    def _seeds(self) -> list[Fact]:
        runs = [self.run, *(one for one in self._beside if self._is_alike(one) and one.state == "finished")]
        each = [one for run in runs for one in facts.retrainings(run)]
        seeds = {str(one.options.get("seed")): one for one in reversed(each)}
        return [Fact(f"seed {seed}", _result(one), one.path) for seed, one in sorted(seeds.items(), key=_by_number)]

    def _is_alike(self, other: RunSummary) -> bool:
        """True for a run that differs in nothing but the seed, as far as that is stored."""
        kept = [
            {name: value for name, value in one.options.items() if name not in _INDIFFERENT}
            for one in (self.run, other)
        ]
        same_code = self._around.code == read_circumstances(other.path).code
        return other.command == self.run.command and kept[0] == kept[1] and same_code

    def _variants(self) -> list[Fact]:
        found = []
        for one in self._beside:
            if one.command != self.run.command or one.model != self.run.model:
                continue
            names = sorted(
                name
                for name in self.run.options.keys() | one.options.keys()
                if name not in _INDIFFERENT and self.run.options.get(name) != one.options.get(name)
            )
            if names and "architecture" not in names:
                words = facts.options_in_words({name: one.options.get(name) for name in names}) or ", ".join(names)
                found.append(Fact(one.path, f"{words}; {_result(one)}", f"{one.path}/config.json"))
        return found

    # ---- commands

    def _again(self, seed: object, ending: str) -> Command:
        output = f"{self.run.path.rstrip('/')}-{ending}"
        given = [("config", self._config), ("seed", str(seed)), ("output", output)]
        return Command(self.run.command or "search", (), [*given])

    def _another(self) -> Command:
        seed = self.run.options.get("seed")
        following = seed + 1 if isinstance(seed, int) else 1
        return self._again(following, f"seed-{following}")

    def _retrain(self) -> Command:
        options = [("architecture", f"{self.run.path}/architecture.json"), ("seeds", "3")]
        return Command("retrain", [self.run.model or "MODEL"], [*options])


def _timed(name: str, run: RunSummary, around: Circumstances, where: str) -> tuple[list[Fact], list[str]]:
    found, untimed = [], []
    if around.training_s is not None:
        words = f"{facts.span_in_words(around.training_s)} of training in {_epochs(run.epochs)}"
        derived = f"; {around.derived} architectures measured after it" if around.derived else ""
        found.append(Fact(name, words + derived, where))
    if around.seconds is not None:
        processes = f"{around.processes} process{'es' * (around.processes != 1)}"
        found.append(Fact(f"{name}, in all", f"{facts.span_in_words(around.seconds)} of {processes}", where))
    else:
        untimed.append(f"{name}: a process that was killed, or that still runs")
    if run.state != "finished":
        untimed.append(f"{name}: the rest of it")
    return found, untimed


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _result(run: RunSummary) -> str:
    metrics = ", ".join(f"{name} {value:.6g}" for name, value in run.metrics.items())
    return f"{run.state}, {run.measured_on} {metrics}" if metrics else run.state


def _by_number(pair: tuple[str, RunSummary]) -> tuple[int, str]:
    seed = pair[0]
    return (int(seed) if seed.isdecimal() and len(seed) < 20 else 0, seed)
