"""The loop: a task gives data, loss and metrics, a trainer updates weights, callbacks watch.

    Task (the user's functions)  -->  Batches (build_batches, DataSettings)
                |                        |
             Trainer  <-----------------+      BilevelTrainer: an architecture on held-out data beside the weights
                |  -->  Callback, EpochRecord
    Acceleration (precision, compilation, recomputation, memory format)

Begin with ``Trainer``: one update of the weights is its ``weight_step``. ``measure`` evaluates an architecture, with
the weights of a supernet or its own; ``unrolling`` has the virtual step of the algorithms that look ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.training.acceleration import Acceleration as Acceleration
    from nnas_core.training.bilevel import BilevelTrainer as BilevelTrainer
    from nnas_core.training.data import Batches as Batches
    from nnas_core.training.data import architecture_batches as architecture_batches
    from nnas_core.training.data import build_batches as build_batches
    from nnas_core.training.data import held_out_batches as held_out_batches
    from nnas_core.training.evaluation import measure as measure
    from nnas_core.training.metrics import EpochRecord as EpochRecord
    from nnas_core.training.model import build_model as build_model
    from nnas_core.training.recipe import RecipeTrainer as RecipeTrainer
    from nnas_core.training.settings import DataSettings as DataSettings
    from nnas_core.training.settings import OptimizerSettings as OptimizerSettings
    from nnas_core.training.settings import RecipeSettings as RecipeSettings
    from nnas_core.training.settings import TrainingSettings as TrainingSettings
    from nnas_core.training.task import Task as Task
    from nnas_core.training.trainer import Callback as Callback
    from nnas_core.training.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Acceleration": "acceleration",
            "Batches": "data",
            "BilevelTrainer": "bilevel",
            "Callback": "trainer",
            "DataSettings": "settings",
            "EpochRecord": "metrics",
            "OptimizerSettings": "settings",
            "RecipeSettings": "settings",
            "RecipeTrainer": "recipe",
            "Task": "task",
            "Trainer": "trainer",
            "TrainingSettings": "settings",
            "architecture_batches": "data",
            "build_batches": "data",
            "build_model": "model",
            "held_out_batches": "data",
            "measure": "evaluation",
        },
    )
