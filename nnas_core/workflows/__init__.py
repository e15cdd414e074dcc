"""Workflows: each is what one command does, for programs too, without a word about the command line.

    SearchSettings   --> search.search           a supernet is trained        --> SearchReport, a run folder
    RetrainSettings  --> retrain.retrain         an architecture, alone       --> RetrainReport, a run folder
    ExportSettings   --> export.export           its network, for others      --> ExportReport, files
    EvaluateSettings --> evaluate.evaluate       an architecture, inherited   --> EvaluateReport
    TuneSettings     --> tune.tune               many architectures           --> a study
    CommandSettings  --> tune_command.tune_command   trials of any program    --> a study
    AssessSettings   --> assess.assess           a result, random ones        --> Assessment, studies

Begin with ``settings``: a workflow is called with one typed object. ``setup`` makes of it the model with its task, data
and device, for all of them. ``validate`` checks files; ``nni_dry_run`` asks an NNI program for its search space.

Names are loaded when they are first used: settings, ``validate`` and ``tune_command`` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.workflows.derive import Derivation as Derivation
    from nnas_core.workflows.evaluate import EvaluateReport as EvaluateReport
    from nnas_core.workflows.export import ExportReport as ExportReport
    from nnas_core.workflows.nni_dry_run import dry_run as dry_run
    from nnas_core.workflows.retrain import RetrainReport as RetrainReport
    from nnas_core.workflows.search import SearchReport as SearchReport
    from nnas_core.workflows.search import build_mutator as build_mutator
    from nnas_core.workflows.search import find_trainer as find_trainer
    from nnas_core.workflows.settings import AlgorithmSettings as AlgorithmSettings
    from nnas_core.workflows.settings import AssessSettings as AssessSettings
    from nnas_core.workflows.settings import CheckpointedSettings as CheckpointedSettings
    from nnas_core.workflows.settings import CommandSettings as CommandSettings
    from nnas_core.workflows.settings import EvaluateSettings as EvaluateSettings
    from nnas_core.workflows.settings import ExportSettings as ExportSettings
    from nnas_core.workflows.settings import RetrainSettings as RetrainSettings
    from nnas_core.workflows.settings import SearchSettings as SearchSettings
    from nnas_core.workflows.settings import TuneSettings as TuneSettings
    from nnas_core.workflows.setup import Setup as Setup
    from nnas_core.workflows.validate import FileCheck as FileCheck
    from nnas_core.workflows.validate import validate_file as validate_file
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "AlgorithmSettings": "settings",
            "AssessSettings": "settings",
            "CheckpointedSettings": "settings",
            "CommandSettings": "settings",
            "Derivation": "derive",
            "EvaluateReport": "evaluate",
            "EvaluateSettings": "settings",
            "ExportReport": "export",
            "ExportSettings": "settings",
            "FileCheck": "validate",
            "RetrainReport": "retrain",
            "RetrainSettings": "settings",
            "SearchReport": "search",
            "SearchSettings": "settings",
            "Setup": "setup",
            "TuneSettings": "settings",
            "build_mutator": "search",
            "dry_run": "nni_dry_run",
            "find_trainer": "search",
            "validate_file": "validate",
        },
    )
