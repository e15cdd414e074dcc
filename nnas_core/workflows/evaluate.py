"""``nnas evaluate``: measure one architecture with the weights that it inherits from a supernet."""

from __future__ import annotations

from dataclasses import dataclass

from nnas_core.files import finite_only
from nnas_core.space.architecture import Architecture
from nnas_core.training.evaluation import Evaluation, require_finite
from nnas_core.workflows.model_costs import ModelCosts
from nnas_core.workflows.settings import EvaluateSettings
from nnas_core.workflows.setup import Setup

__all__ = ["EvaluateReport", "evaluate"]


@dataclass(frozen=True)
class EvaluateReport:
    """An architecture and its estimate.

    Attributes:
        measured_on: the data: ``"validation"`` or ``"test"``.
        costs: parameters; multiply-adds of one sample, where one can be taken; and what ``costs(model)`` says.
    """

    architecture: Architecture
    evaluation: Evaluation
    measured_on: str
    costs: dict[str, float]


def evaluate(settings: EvaluateSettings, document: object, where: str | None = None) -> EvaluateReport:
    """Measure one architecture with inherited weights.

    Args:
        settings: of what, on what.
        document: the architecture, in any form.
        where: the file that it is from, for errors.

    Raises:
        InputError: checkpoint and model do not belong together.
        ArchitectureError: the architecture does not fit the model.
        NoResultError: a measured number is not finite.
    """
    setup = Setup(settings.setup)
    setup.inherit(settings.checkpoint)
    setup.to_device(setup.model)
    batches, data = setup.valid_batches, "validation"
    architecture = setup.space.parse(document, where)
    setup.space.validate(architecture)
    costs = finite_only(ModelCosts(setup).of(architecture)) if architecture.is_hard else {}
    if settings.on == "test":
        batches, data = setup.held_out
    evaluation = setup.inherited_weights(settings.recalibrate, batches).evaluate(architecture)
    require_finite(evaluation.metrics, data)
    return EvaluateReport(architecture, evaluation, data, costs)
