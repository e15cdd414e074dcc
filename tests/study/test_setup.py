"""A study is created once, resumed with the settings it has, and gets the tuner it names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nnas_core import schema
from nnas_core.errors import InputError, UsageError
from nnas_core.space.search_space import SearchSpace
from nnas_core.study.opening import create_study, create_tuner, resume_study
from nnas_core.study.storage.records import StudySettings
from nnas_core.study.storage.store import StudyStore
from nnas_core.tuners.base import Tuner
from nnas_core.tuners.evolution import EvolutionTuner
from tests.study import study_programs


def test_a_study_comes_back_as_it_was_created(store: StudyStore) -> None:
    created = create_study(store, study_programs.settings(seed=2**70, config={"recalibrate": (1, 2), "é": None}))
    assert store.study("study") == created
    assert store.studies() == [created]
    assert resume_study(store, created.settings) == created
    assert schema.problems("study", created.to_json()) == []


def test_a_name_is_used_once(store: StudyStore) -> None:
    create_study(store, study_programs.settings())
    with pytest.raises(UsageError, match="a study named 'study' exists already") as caught:
        create_study(store, study_programs.settings("random"))
    assert "`resume`" in (caught.value.hint or "")


def test_a_study_that_is_not_there_cannot_be_resumed(store: StudyStore) -> None:
    with pytest.raises(InputError, match="no study is named 'study'") as caught:
        resume_study(store, study_programs.settings())
    assert caught.value.hint == "there are none yet"
    create_study(store, StudySettings("other", study_programs.space_of_all_kinds(), "random"))
    with pytest.raises(InputError, match="no study is named 'study'") as caught:
        resume_study(store, study_programs.settings())
    assert caught.value.hint == "there are other"


def test_every_difference_of_a_resumed_study_is_listed(store: StudyStore) -> None:
    create_study(store, study_programs.settings(config={"epochs": 1, "recalibrate": 0}))
    space = study_programs.space_of_all_kinds().to_json()
    del space["only"]
    space["layer"]["_value"].append("sep")
    now = StudySettings(
        "study",
        SearchSpace.from_json(space),
        "random",
        seed=1,
        optimize_mode="minimize",
        config={"epochs": 2, "batch_size": 32},
    )
    with pytest.raises(InputError, match="study 'study' was made with other settings") as caught:
        resume_study(store, now)
    assert caught.value.problems == (
        'tuner: "evolution" before, "random" now',
        "tuner argument population: 10 before, not set now",
        "tuner argument sample: 3 before, not set now",
        "seed: 0 before, 1 now",
        'optimize_mode: "maximize" before, "minimize" now',
        "batch_size: not set before, 32 now",
        "epochs: 1 before, 2 now",
        "recalibrate: 0 before, not set now",
        (
            "search space: layer: layer_choice of [conv, pool, skip] in the study, "
            "layer_choice of [conv, pool, skip, sep] in the model now"
        ),
        "search space: only: only in the study",
    )


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".hidden", "-o", "a b", "a\n", "$(id)", "x" * 101, "名" * 81, "\u0301a", "a\u2028"]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="bad study name"):
        replace(study_programs.settings(), name=name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^the name of the study is empty$") as caught:
        replace(study_programs.settings(), name="")
    assert caught.value.hint == "give one, or leave out `study`"


@pytest.mark.parametrize(
    "name", ["a", "2024-01-01_run.3", "x" * 100, "é", "поиск-2", "搜索_1", "بحث", "खोज.3", "ค้นหา", "名" * 80]
)
def test_a_good_name_is_accepted(store: StudyStore, name: str) -> None:
    settings = replace(study_programs.settings(), name=name)
    study = create_study(store, settings)
    assert store.study(name) == store.find(name) == study
    assert schema.problems("study", study.to_json()) == []


def test_a_name_is_one_however_its_accents_are_typed(store: StudyStore) -> None:
    create_study(store, replace(study_programs.settings(), name="e\u0301tude"))
    assert store.study("\u00e9tude").name == "\u00e9tude"
    assert store.find("e\u0301t").name == "\u00e9tude"
    with pytest.raises(UsageError, match="exists already"):
        create_study(store, replace(study_programs.settings(), name="\u00e9tude"))


def test_a_bad_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="optimize_mode must be maximize or minimize, not 'max'"):
        study_programs.settings(optimize_mode="max")


class Bare(Tuner):
    """Takes neither seed nor mode, as tuners for NNI do."""

    def __init__(self, depth: int, width: int = 2) -> None:
        self.made_of = depth, width

    def update_search_space(self, search_space: dict[str, Any]) -> None: ...

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> dict[str, Any]:
        return {}

    def receive_trial_result(
        self, parameter_id: int, parameters: dict[str, Any], value: float, **kwargs: Any
    ) -> None: ...


def make(kind: type[Tuner], args: dict[str, Any]) -> Tuner:
    return create_tuner(kind, args, name="mine", seed=5, optimize_mode="minimize")


def test_seed_and_mode_go_to_a_tuner_that_names_them() -> None:
    tuner = make(EvolutionTuner, {"population": 3})
    assert (tuner.seed, tuner.optimize_mode) == (5, "minimize")
    bare = make(Bare, {"depth": 1})
    assert isinstance(bare, Bare)
    assert bare.made_of == (1, 2)


@pytest.mark.parametrize(
    ("kind", "args", "message", "hint"),
    [
        (
            EvolutionTuner,
            {"populaton": 3, "x": 1},
            "the tuner 'mine' takes no argument 'populaton'",
            "did you mean 'population'? it takes population, sample, repeats",
        ),
        (Bare, {"depth": 1, "x": 1}, "the tuner 'mine' takes no argument 'x'", "it takes depth, width"),
        (Bare, {}, "the tuner 'mine' needs the argument 'depth'", "give `tuner_arg` depth=..."),
        (EvolutionTuner, {"seed": 3}, "tuner 'mine': seed is not an argument, it comes from `seed`", None),
    ],
)
def test_arguments_that_a_tuner_does_not_take_are_refused(
    kind: type[Tuner], args: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(kind, args)
    assert caught.value.hint == hint
