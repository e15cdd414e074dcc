"""Typed parts and the flat form that configuration files, workers and the command line have of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nnas_core import schema
from nnas_core.errors import InputError
from nnas_core.space.search_space import SearchSpace
from nnas_core.training.settings import (
    AccelerationSettings,
    DataSettings,
    ModelReference,
    OptimizerSettings,
    SetupSettings,
    TrainingSettings,
    from_options,
    option_names,
    to_options,
)
from nnas_core.workflows.settings import (
    AlgorithmSettings,
    CheckpointedSettings,
    RetrainSettings,
    SearchSettings,
    TuneSettings,
)

SEARCH = SearchSettings(
    training=CheckpointedSettings(
        model=ModelReference("model.py:Net", {"width": 4}, "task.py"),
        data=DataSettings(batch_size=8, valid_fraction=0.3, seed=5),
        optimizer=OptimizerSettings(momentum=0.5, schedule="none"),
        device="cpu",
        epochs=3,
        checkpoint_every="5m",
    ),
    mutator="darts",
    mutator_arg={"order": 2},
    acceleration=AccelerationSettings(recompute=True),
    derive=4,
)
RETRAIN = RetrainSettings(training=SEARCH.training, architecture={"op": [True, False]}, checkpoint="c.pt")
TUNE = TuneSettings(
    training=TrainingSettings(model=ModelReference("m.py"), epochs=2),
    study="s",
    algorithms=AlgorithmSettings("random", {"x": 1}, "asha", {"min_resource": 2}),
)


@pytest.mark.parametrize("settings", [SEARCH, RETRAIN, TUNE])
def test_settings_come_back_from_their_options_after_json(settings: SearchSettings | RetrainSettings) -> None:
    assert from_options(type(settings), json.loads(json.dumps(to_options(settings)))) == settings


def test_the_options_of_all_parts_stand_side_by_side() -> None:
    options = to_options(SEARCH)
    assert (options["model"], options["batch_size"], options["momentum"]) == ("model.py:Net", 8, 0.5)
    assert (options["seed"], options["recompute"], options["mutator_arg"]) == (5, True, {"order": 2})
    assert list(options) == option_names(SearchSettings)


@pytest.mark.parametrize(("command", "settings"), [("search", SEARCH), ("retrain", RETRAIN)])
def test_a_configuration_has_the_options_of_its_schema(
    command: str, settings: SearchSettings | RetrainSettings
) -> None:
    assert schema.problems("config", {command: to_options(settings)}) == []
    assert set(to_options(settings)) == set(schema.load("config")["properties"][command]["properties"])


def test_absent_options_are_defaults_and_others_are_left_alone() -> None:
    found = from_options(SetupSettings, {"model": "m.py", "workers": 2, "unheard": "of"})
    assert found == SetupSettings(model=ModelReference("m.py"), data=DataSettings(workers=2))


def test_an_option_that_must_be_there_is_named() -> None:
    with pytest.raises(InputError, match=r"^run/config.json: the option 'model' is missing$"):
        from_options(SetupSettings, {"workers": 2}, "run/config.json")


def test_the_seed_of_a_split_is_no_option() -> None:
    data = replace(DataSettings(seed=1), split_seed=7)
    assert "split_seed" not in to_options(data)
    assert from_options(DataSettings, {"seed": 1, "split_seed": 7}) == DataSettings(seed=1)


def test_the_seed_of_a_command_is_that_of_its_data() -> None:
    assert SEARCH.training.seed == 5
    assert TUNE.seed == 0


def test_what_a_resumed_study_must_have_again_depends_on_what_trials_do() -> None:
    scratch = TUNE.config(None)
    assert (scratch["epochs"], scratch["learning_rate"]) == (2, 0.025)
    assert not {"recalibrate", "weights", "seed", "device", "workers"} & set(scratch)
    space = SearchSpace.from_json({"a": {"_type": "layer_choice", "_value": ["x", "y"]}})
    study = TUNE.algorithms.study("s", space, 3, "minimize", scratch)
    assert (study.tuner, study.assessor, study.assessor_args) == (TUNE.algorithms.tuner, "asha", {"min_resource": 2})
    assert study.config == {**scratch, "assessor": "asha", "assessor_arg": {"min_resource": 2}}
    assert AlgorithmSettings().study("s", space, 3, "minimize", scratch).assessor is None
    inherited = replace(TUNE, checkpoint="c.pt").config("sha256:0")
    assert inherited == {
        "model": "m.py",
        "model_arg": {},
        "task": None,
        "batch_size": 64,
        "drop_last": False,
        "recalibrate": 10,
        "weights": "sha256:0",
    }
