"""Facts for the checklist that runs and studies have in common, in words, each with the place where it is stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nnas_core.assessment.checklist import Fact
from nnas_core.assessment.experiment import Rival
from nnas_core.errors import NnasError
from nnas_core.machine import Machine
from nnas_core.plugins import registry
from nnas_core.plugins.loading import split_reference
from nnas_core.runs.summary import RunSummary, read_architecture, runs_in
from nnas_core.space.architecture import Architecture
from nnas_core.space.search_space import SearchSpace
from nnas_core.space.sizes import size_in_words
from nnas_core.study.storage.records import ENDED_STATES, StudyRecord
from nnas_core.study.storage.rows import Damage
from nnas_core.study.storage.store import StudyStore

__all__ = [
    "arguments_in_words",
    "code_facts",
    "data_facts",
    "final_trainings",
    "machine_fact",
    "options_in_words",
    "own_file",
    "retrainings",
    "rivals",
    "space_facts",
    "span_in_words",
    "training_facts",
]


def options_in_words(options: Mapping[str, object]) -> str:
    """``batch_size=64, epochs=5``: those that are set, by name."""
    return ", ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)}"
        for name, value in sorted(options.items())
        if value is not None and value not in ({}, [])
    )


def arguments_in_words(group: str, name: str, given: Mapping[str, object], version: str, now: str) -> str:
    """The arguments of an algorithm with their values; the defaults are known if nnas has the same version now."""
    listed = registry.entries(group).get(name)
    options = (listed.options() if listed is not None and version == now else None) or ()
    known = {one.name: json.loads(one.default) for one in options if one.default is not None and _is_json(one.default)}
    return options_in_words({**known, **given}) or "no arguments"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def own_file(group: str, name: str | None) -> str | None:
    """The file or package of an algorithm that is none of nnas; None if it is one."""
    if name is None:
        return None
    listed = registry.entries(group).get(name)
    if listed is not None:
        return None if listed.target.startswith("nnas_core.") else listed.target
    return split_reference(name)[0]


def code_facts(model: object, code: Mapping[str, str], where: str, changed: Sequence[str] = ()) -> list[Fact]:
    """The files of the user's, each with its digest."""
    facts = [Fact(name, digest, where) for name, digest in sorted(code.items())]
    if changed:
        facts.append(Fact("changed on the way", ", ".join(changed), where))
    return [Fact("model", model, where), *facts] if facts and isinstance(model, str) else facts


def space_facts(space: SearchSpace | None, where: str) -> list[Fact]:
    """How large the space is."""
    if space is None:
        return []
    words = f"{len(space)} choices, {size_in_words(space.size, ',')} architectures, {space.fingerprint}"
    return [Fact("search space", words, where)]


def data_facts(samples: Mapping[str, int], split: Mapping[str, float], where: str) -> list[Fact]:
    """How many samples there are, and how they are divided."""
    facts = []
    if samples:
        facts.append(Fact("samples", ", ".join(f"{size:,} {name}" for name, size in samples.items()), where))
    if split.keys() >= {"seed", "valid_fraction"}:
        words = f"{split['valid_fraction']:g} of the training data held out by seed {split['seed']:.0f}"
        facts.append(Fact("split", f"{words}, unless the task has data for validation", where))
    return facts


def machine_fact(machine: Machine, where: str) -> Fact:
    """Hardware and versions."""
    packages = "".join(f", {name} {version}" for name, version in sorted(machine.packages.items()))
    memory = "" if machine.memory_mib is None else f", {machine.memory_mib:,} MiB"
    cores = f"{machine.cpus} {'core' if machine.cpus == 1 else 'cores'}{memory}"
    threads = "" if machine.threads is None else f", {machine.threads} thread{'s' * (machine.threads != 1)}"
    device = "".join(f", {name}" for name in (machine.device, machine.accelerator) if name is not None)
    words = f"{machine.processor}, {cores}; {machine.system}; Python {machine.python}, nnas {machine.nnas}{packages}"
    return Fact("machine", f"{words}{threads}{device}", where)


def span_in_words(seconds: float) -> str:
    """``12.3 s``, and of what takes longer hours too."""
    exact = f"{seconds:,.1f}" if seconds >= 1 else f"{seconds:.2g}"
    return f"{exact} s" + (f" ({seconds / 3600:.1f} h)" if seconds >= 3600 else "")


# ---- trainings of one architecture


def final_trainings(folder: str, architecture: Architecture | None) -> list[RunSummary]:
    """The finished retrainings in a folder that are of an architecture.

    Args:
        folder: of run folders.
        architecture: which; None: there is none yet.
    """
    found = []
    for run in runs_in(folder) if architecture is not None else ():
        if run.command != "retrain" or run.state != "finished":
            continue
        try:
            its = read_architecture(run.path)
        except NnasError:  # damaged, or of another space
            continue
        if architecture is not None and its is not None and its.canonical == architecture.canonical:
            found.append(run)
    return found


def retrainings(run: RunSummary) -> list[RunSummary]:
    """The trainings of a retraining, one a seed."""
    inner = [one for one in runs_in(run.path) if one.command == "retrain"] if run.command == "retrain" else []
    return [run, *(one for one in inner if one.options.get("seed") != run.options.get("seed"))]


def training_facts(run: RunSummary) -> Iterator[Fact]:
    """Options, seeds, data and results of a retraining."""
    each = [one for one in retrainings(run) if one.state == "finished"]
    where = f"{run.path}/config.json"
    yield Fact("options", options_in_words({k: v for k, v in run.options.items() if k != "architecture"}), where)
    yield Fact("seeds", ", ".join(str(one.options.get("seed")) for one in each), where)
    for one in each:
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in one.metrics.items())
        name = f"result with seed {one.options.get('seed')}"
        yield Fact(name, f"{one.measured_on} {metrics}", f"{one.path}/events.jsonl")


# ---- random ones


def rivals(
    store: StudyStore | None,
    space: SearchSpace | None,
    architecture: Architecture | None,
    machines: Sequence[Machine],
    itself: StudyRecord | None = None,
) -> list[Rival]:
    """The stored studies of random architectures in a space.

    Args:
        store: where to look; None: nowhere.
        space: which.
        architecture: what was found: a study that tries it too measures both alike.
        machines: that it was found on.
        itself: the study that is asked about; one of the same settings measures alike.
    """
    found: list[Rival] = []
    if store is None or space is None:
        return found
    for study in store.studies(Damage(store.where)):
        made = study.settings
        if made.tuner != "random" or made.space.fingerprint != space.fingerprint or study == itself:
            continue
        trials = [one for one in store.trials(study, damage=Damage(store.where)) if one.state in ENDED_STATES]
        canonical = None if architecture is None else architecture.canonical
        its_own = [one for one in trials if one.architecture.canonical == canonical]
        if len(trials) == len(its_own):
            continue
        alike = bool(its_own) or (itself is not None and made.config == itself.settings.config)
        where = f"study {study.name}"
        count = f"{len(trials) - len(its_own)} random architectures, {_protocol(made.config)}"
        facts = [Fact(study.name, count, where)]
        if its_own:
            facts.append(Fact("found one", "measured among them", where))
        facts.append(Fact("options", options_in_words({**made.config, "seed": made.seed}), where))
        machine = made.origin.machine
        found.append(Rival(facts, alike, None if machine is None else _differences(machine, machines)))
    return found


def _protocol(config: Mapping[str, object]) -> str:
    if "weights" in config:
        return "with inherited weights"
    if "trial_command" in config:
        return "by a trial command"
    return f"each trained for {config['epochs']} epochs" if "epochs" in config else "measured"


def _differences(one: Machine, others: Iterable[Machine]) -> list[str]:
    """What is otherwise on a machine than on others."""
    names = ("processor", "system", "python", "nnas", "packages", "accelerator")
    pairs = ((name, getattr(one, name), getattr(other, name)) for other in others for name in names)
    return sorted({f"{name} {mine} and {theirs}" for name, mine, theirs in pairs if mine != theirs and mine and theirs})
