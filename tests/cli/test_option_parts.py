"""Options and the fields that they become: none is without the other, and both have one default."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import click
import pytest

from nnas_cli.commands import evaluate, retrain, search, tune
from nnas_cli.run_folders import RunPlace
from nnas_cli.trial_options import Running, TrialKind
from nnas_core.training.settings import (
    AccelerationSettings,
    DataSettings,
    ModelReference,
    OptimizerSettings,
    SetupSettings,
    TrainingSettings,
    option_names,
)
from nnas_core.workflows.settings import (
    AlgorithmSettings,
    CheckpointedSettings,
    EvaluateSettings,
    RetrainSettings,
    SearchSettings,
)

TRAINING_ONLY = {"valid_fraction", "drop_last", *option_names(OptimizerSettings)}


def parameters(command: click.Command) -> dict[str, click.Parameter]:
    return {one.name or "": one for one in command.params}


@pytest.mark.parametrize(
    ("command", "kinds", "lacks"),
    [
        (search.command, [SearchSettings, RunPlace], set()),
        (retrain.command, [RetrainSettings, RunPlace], set()),
        (evaluate.command, [EvaluateSettings], TRAINING_ONLY),
        (tune.command, [TrainingSettings, TrialKind, AlgorithmSettings, Running], set()),
    ],
    ids=["search", "retrain", "evaluate", "tune"],
)
def test_every_field_of_a_part_is_an_option(command: click.Command, kinds: list[type[Any]], lacks: set[str]) -> None:
    names = {name for kind in kinds for name in option_names(kind)}
    assert names - set(parameters(command)) == lacks


MODEL_PARTS = [SetupSettings, ModelReference, DataSettings]


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        (search.command, [*MODEL_PARTS, CheckpointedSettings, OptimizerSettings, SearchSettings, AccelerationSettings]),
        (retrain.command, [*MODEL_PARTS, CheckpointedSettings, OptimizerSettings, RetrainSettings]),
        (evaluate.command, [*MODEL_PARTS, EvaluateSettings]),
        (tune.command, [*MODEL_PARTS, OptimizerSettings, TrialKind, AlgorithmSettings, Running]),
    ],
    ids=["search", "retrain", "evaluate", "tune"],
)
def test_the_default_of_an_option_is_that_of_its_field(command: click.Command, kinds: list[type[Any]]) -> None:
    found = command.make_context("nnas", [], resilient_parsing=True).params
    options = {one.name: one.default for kind in kinds for one in fields(kind) if one.name in found}
    plain = {name: default for name, default in options.items() if default is not MISSING}
    assert {name: found[name] for name in plain} == plain
