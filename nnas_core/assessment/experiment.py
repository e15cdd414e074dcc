"""What is stored of an experiment, and how it answers the checklist; nothing is claimed that is not stored.

An item is answered only if everything that it asks for is stored. Whether code was published, nobody stores: there the
facts say what is to be published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnas_core.assessment.checklist import Checklist, Command, Fact, Item

__all__ = ["Experiment", "Rival", "checklist_of"]

_SEEDS = 2
"""Runs that differ in nothing but their seed, from which something is known of chance."""


@dataclass(frozen=True)
class Rival:
    """A stored study of random architectures in the same space.

    Attributes:
        facts: about it.
        is_alike: it measures the found architecture, or any, in the same way.
        differences: of its machine; None: the machines are not stored.
    """

    facts: Sequence[Fact]
    is_alike: bool
    differences: Sequence[str] | None


@dataclass(frozen=True)
class Experiment:
    """A run or a study, as far as it is stored; each list of facts is empty where nothing is.

    Attributes:
        kind, name: as for ``Checklist``.
        code: files of the user's with their digests.
        version: of nnas; empty in what an older one wrote.
        space: choices, size, and where all of it is.
        method: the algorithm with its arguments; of a retraining nothing.
        own_method: the file of the user's with the algorithm; None: it is one of nnas.
        options: every hyper-parameter with its value.
        final: trainings of the found architecture alone: options, seeds, data, result.
        data: sizes, and how they are divided.
        machines: hardware, versions, threads.
        time: of the search and of the final training.
        untimed: parts of the whole whose time is not stored.
        curve: how the result grew with time.
        rivals: of random architectures.
        seeds: facts of the runs that differ in nothing but the seed, this one among them.
        variants: facts of runs or studies of the same model with other options.
        repeat: the command that would do it again; None: nnas did not do it.
        another_seed: the same with another seed.
        retrain: the command that trains what was found alone.
        assess: the command that compares with random architectures.
        watch: the command that shows the curve.
        reads_table: None: trials are trainings; else the program of the user's that may look them up.
    """

    kind: str
    name: str
    code: Sequence[Fact]
    version: Sequence[Fact]
    space: Sequence[Fact]
    method: Sequence[Fact]
    own_method: str | None
    options: Sequence[Fact]
    final: Sequence[Fact]
    data: Sequence[Fact]
    machines: Sequence[Fact]
    time: Sequence[Fact]
    untimed: Sequence[str]
    curve: Sequence[Fact]
    rivals: Sequence[Rival]
    seeds: Sequence[Fact]
    variants: Sequence[Fact]
    repeat: Command | None
    another_seed: Command | None
    retrain: Command
    assess: Command
    watch: Command
    reads_table: str | None = None


def checklist_of(one: Experiment) -> Checklist:
    """Returns the checklist, filled."""
    return Checklist(one.kind, one.name, [*_releasing(one), *_comparing(one), *_reporting(one)])


def _item(
    number: str, asked: str, facts: Sequence[Fact], left: str | None = None, command: Command | None = None
) -> Item:
    """An item that is open if anything is left."""
    return Item(number, asked, "answered" if left is None else "open", facts, left, command)


def _releasing(one: Experiment) -> list[Item]:
    publish = "publish these files" if one.code else "the files are not stored: name and publish them"
    of_method = [*one.method, *one.version] if one.method else []
    code = "Is the code of the search method public?"
    if one.kind == "retrain":
        method = Item("1.4", code, "not applicable", (), "a training of one architecture searches nothing")
        numbers = Item("1.5", _NUMBERS, "not applicable", (), "as 1.4")
    else:
        unsaid = "the version of nnas is not stored: say it" if not one.version else None
        publish_own = f"publish {one.own_method}, in which the algorithm is" if one.own_method else unsaid
        method = _item("1.4", code, of_method, publish_own)
        numbers = _item("1.5", _NUMBERS, [*one.method, *one.options], None if one.options else "say them", one.repeat)
    untrained = "no training of the found architecture is stored beside it: train it, with several seeds"
    return [
        _item("1.1", "Is the code that trains the final networks public?", [*one.code, *one.version], publish),
        _item("1.2", "Is the code of the search space public?", [*one.space, *one.code], publish),
        _item(
            "1.3",
            "Are hyper-parameters and seeds of the final training known?",
            one.final,
            None if one.final else untrained,
            None if one.final else one.retrain,
        ),
        method,
        numbers,
    ]


_NUMBERS = "Are hyper-parameters and seeds of the search method known?"


def _comparing(one: Experiment) -> list[Item]:
    alike = [rival for rival in one.rivals if rival.is_alike]
    facts = [fact for rival in one.rivals for fact in rival.facts]
    of_alike = [fact for rival in alike for fact in rival.facts]
    none_yet = "no comparison is stored: compare with random architectures, measured in the same way"
    ask = None if alike else one.assess
    lone = "one seed is stored: repeat it with others" if one.kind != "study" else "one study is stored: repeat it"
    return [
        _item(
            "2.1",
            "Do all compared methods have the same data, split, space, and training code and hyper-parameters?",
            [*of_alike, *one.data],
            None if alike else none_yet,
            ask,
        ),
        _confounded(one, alike),
        _item(
            "2.3",
            "Which part of the method makes how much of the difference (ablations)?",
            one.variants,
            "say which of these leave out a part, and what that showed" if one.variants else "leave out a part each",
            one.repeat,
        ),
        _item("2.4", "Are all methods evaluated by the same protocol?", of_alike, None if alike else none_yet, ask),
        _item(
            "2.5",
            "How does the result grow with the time of the search?",
            one.curve,
            None if one.curve else "nothing is stored on the way",
            one.watch,
        ),
        _item(
            "2.6",
            "Was it compared with random search?",
            facts,
            None if one.rivals else none_yet,
            None if one.rivals else one.assess,
        ),
        _item(
            "2.7",
            "Were there several runs, with which seeds?",
            one.seeds,
            None if len(one.seeds) >= _SEEDS else lone,
            None if len(one.seeds) >= _SEEDS else one.another_seed,
        ),
        _tabular(one),
    ]


def _confounded(one: Experiment, alike: Sequence[Rival]) -> Item:
    asked = "Are hardware, versions of libraries and running times the same for all methods?"
    facts = [
        *one.machines,
        *(
            Fact("beside it", ", ".join(each.differences) or "the same", each.facts[0].where)
            for each in alike
            if each.differences is not None
        ),
    ]
    if not alike:
        return _item("2.2", asked, facts, "no comparison is stored", one.assess)
    unknown = any(each.differences is None for each in alike) or not one.machines
    differs = any(each.differences for each in alike)
    left = "the machines are not stored: say them" if unknown else "say why this does not matter" if differs else None
    return _item("2.2", asked, facts, left)


def _tabular(one: Experiment) -> Item:
    asked = "Was the method measured in depth on a tabular or surrogate benchmark?"
    if one.reads_table is not None:
        left = f"say if {one.reads_table} looks results up in a table"
        return _item("2.8", asked, [], left)
    if one.own_method is not None:
        return _item("2.8", asked, [], f"the algorithm in {one.own_method} is your own: measure it on one")
    why = "the algorithm is one of nnas, and no new one" if one.kind != "retrain" else "nothing is searched"
    return Item("2.8", asked, "not applicable", (), why)


def _reporting(one: Experiment) -> list[Item]:
    missing = [
        name
        for name, facts in (
            ("machine and versions", one.machines),
            ("sizes and split of the data", one.data),
            ("files of the model", one.code),
            ("options", one.options),
        )
        if not facts
    ]
    if one.reads_table is not None:  # what such a program reads, it alone knows
        missing = [f"{name} of the program" if name == "sizes and split of the data" else name for name in missing]
    untimed = f"not stored: {', '.join(one.untimed)}" if one.untimed else None
    return [
        _item(
            "3.1",
            "How were hyper-parameters chosen, and what did that take?",
            one.variants,
            "say how, and what it took; nothing stored tells a try from a result",
        ),
        _item(
            "3.2",
            "How long did everything take, from the beginning of the search to the trained network?",
            one.time,
            untimed,
            one.retrain if one.untimed and not one.final else None,
        ),
        _item(
            "3.3",
            "Are all details of the experimental setup said?",
            [*one.data, *one.space, *one.machines, *one.code, *one.method, *one.options],
            f"not stored, so say: {', '.join(missing)}" if missing else None,
            one.repeat,
        ),
    ]
