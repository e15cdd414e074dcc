"""What a training that is to be published does besides: augmentation, regularisation, averaged weights.

    cutout           DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"
                     (arXiv:1708.04552), section 3.2
    mixup            Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv:1710.09412), section 1
    label smoothing  Szegedy et al. 2016, "Rethinking the Inception Architecture" (arXiv:1512.00567), section 7
    drop-path        Larsson et al. 2017, "FractalNet" (arXiv:1605.07648), section 3, with the linear schedule of Zoph
                     et al. 2018, "Learning Transferable Architectures" (arXiv:1707.07012), section 3.2 and appendix
    moving average   Polyak & Juditsky 1992, with the warm-up of the decay that TensorFlow's
                     ``ExponentialMovingAverage`` documents, min(decay, (1 + t) / (10 + t))

All random numbers come from one private generator, whose state a checkpoint has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nnas_core.errors import UsageError
from nnas_core.training.classification import AUXILIARY_WEIGHT, Classification
from nnas_core.training.optimizers import State
from nnas_core.training.settings import RecipeSettings
from nnas_core.training.task import Batch, Output, Target, Task
from nnas_core.training.trainer import Trainer

__all__ = ["GENERATOR", "Average", "RecipeTrainer", "cut_out", "mixed", "refuse_idle", "without_path"]

GENERATOR = "recipe"
"""The name of the private generator of a ``RecipeTrainer``."""


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image to zero; its centre is anywhere on the image, so a part of it may lie outside.

    Args:
        images: ``[N, C, H, W]``.
        side: of the square, in pixels.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    rows, columns = torch.arange(height), torch.arange(width)
    tops = torch.randint(height, (count, 1), generator=generator) - side // 2
    lefts = torch.randint(width, (count, 1), generator=generator) - side // 2
    in_rows = (rows >= tops) & (rows < tops + side)
    in_columns = (columns >= lefts) & (columns < lefts + side)
    kept = ~(in_rows[:, None, :, None] & in_columns[:, None, None, :])
    return images * kept.to(images.device, images.dtype)


def mixed(inputs: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Mix each sample of a batch with another one: ``x = share * x_i + (1 - share) * x_j``.

    Args:
        inputs: ``[N, ...]``, floating.
        alpha: both parameters of the Beta distribution of ``share``.
        generator: on the CPU.

    Returns:
        The mixed inputs, which ``j`` belongs to each ``i``, and ``share``.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    rng = np.random.default_rng(seed)
    share = float(rng.beta(alpha, alpha))
    others = torch.randperm(len(inputs), generator=generator).to(inputs.device)
    return share * inputs + (1 - share) * inputs[others], others, share


def without_path(output: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Set a path to zero for some samples, and scale it for the others, so that its mean stays.

    Args:
        output: of the path, ``[N, ...]``.
        probability: of each sample, below 1.
        generator: on the CPU.
    """
    keeps = torch.rand(len(output), generator=generator) >= probability
    scale = keeps.to(output.device, output.dtype) / (1 - probability)
    return output * scale.reshape(-1, *[1] * (output.dim() - 1))


class Average:
    """The moving average of everything in a ``state_dict`` that is a floating number; the rest is the newest.

    Args:
        model: whose state is averaged; the average begins with it.
        decay: of the average, below 1; less in the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._count = 0
        self._mean = self._copied()

    def _copied(self) -> dict[str, Any]:
        state = self._model.state_dict()
        return {name: one.detach().clone() if isinstance(one, Tensor) else one for name, one in state.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the state of now into the average."""
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        for name, value in self._model.state_dict().items():
            if isinstance(value, Tensor) and value.is_floating_point():
                mean = torch.lerp(self._mean[name], value, 1 - decay)
                self._mean[name] = torch.where(value.isfinite(), mean, value)  # a mask of minus infinity stays one
            else:
                self._mean[name] = value.clone() if isinstance(value, Tensor) else value

    @contextmanager
    def swapped(self) -> Iterator[dict[str, Any]]:
        """Inside, the model has the average; yields its own state, which it has afterwards again."""
        own = self._copied()
        self._model.load_state_dict(self._mean)
        try:
            yield own
        finally:
            self._model.load_state_dict(own)

    def keep(self) -> None:
        """Let the model have the average for good."""
        self._model.load_state_dict(self._mean)

    def state_dict(self) -> State:
        """Tensors and plain data to go on from."""
        return {"count": self._count, "mean": dict(self._mean)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._count = state["count"]
        self._mean = {
            name: one.to(self._mean[name].device).clone() if isinstance(one, Tensor) else one
            for name, one in state["mean"].items()
        }


@dataclass
class RecipeTrainer(Trainer):
    """Trains a plain model with a recipe; its ``generators`` have one of the name ``GENERATOR``.

    Args:
        recipe: what is done.
        paths: modules that drop-path may leave out.
    """

    recipe: RecipeSettings = field(default_factory=RecipeSettings)
    paths: Sequence[nn.Module] = ()

    def __post_init__(self) -> None:
        recipe = self.recipe
        weight = AUXILIARY_WEIGHT if recipe.auxiliary_weight is None else recipe.auxiliary_weight
        self._classification = Classification(self.task.user.reference, weight, recipe.label_smoothing)
        self._average = Average(self.model, recipe.ema) if recipe.ema else None
        self._own: dict[str, Any] | None = None  # the weights, while the model has their average
        self._drops = False
        super().__post_init__()
        for path in self.paths:
            path.register_forward_hook(self._without)

    def _without(self, module: nn.Module, args: object, output: object) -> Tensor | None:
        """A hook of a path."""
        if not self._drops or not isinstance(output, Tensor):
            return None
        done = self.step / self.total_steps if self.total_steps else self.epoch / self.epochs
        probability = self.recipe.drop_path * min(1.0, done)
        return without_path(output, probability, self.generators[GENERATOR]) if probability else None

    def loss_of(self, batch: Batch) -> tuple[Tensor, Output, Target]:
        """The loss of an augmented batch; the output, and the target of the batch."""
        recipe, generator = self.recipe, self.generators[GENERATOR]
        self._batch = batch
        others, share = None, 1.0
        if recipe.cutout or recipe.mixup:
            inputs, target = batch
            if recipe.cutout:
                inputs = cut_out(inputs, recipe.cutout, generator)
            if recipe.mixup:
                inputs, others, share = mixed(inputs, recipe.mixup, generator)
            batch = inputs, target
        self._drops = bool(recipe.drop_path)
        try:
            with self.autocast():
                output, target = self.task.forward_batch(self.network, batch)  # type: ignore[arg-type]
                loss = self._loss(output, target)
                if others is not None:
                    loss = share * loss + (1 - share) * self._loss(output, target[others])
                return loss, output, target
        finally:
            self._drops = False

    def _loss(self, output: Output, target: Target) -> Tensor:
        return self.task.loss(output, target) if self.task.has("loss") else self._classification.loss(output, target)

    def update_weights(self) -> None:
        """Update the weights, and their average."""
        super().update_weights()
        if self._average is not None:
            self._average.update()

    def validate_one_epoch(self, epoch: int) -> dict[str, float]:
        """As without a recipe; with the average of the weights, where there is one."""
        if self._average is None:
            return super().validate_one_epoch(epoch)
        with self._average.swapped() as self._own:
            try:
                return super().validate_one_epoch(epoch)
            finally:
                self._own = None

    def keep_average(self) -> None:
        """After the training: let the model have the average of its weights, where there is one."""
        if self._average is not None:
            self._average.keep()

    def state_dict(self) -> State:
        state = super().state_dict()
        if self._own is not None:
            state["model"] = dict(self._own)
        return state if self._average is None else {**state, "average": self._average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self._average is not None:
            self._average.load_state_dict(state["average"])


# ---- what can be done with a task


def refuse_idle(recipe: RecipeSettings, task: Task, batch: Batch, output: Output) -> None:
    """Refuse a recipe that means nothing for a task.

    Args:
        recipe: what is asked for.
        task: loss and data.
        batch: of the training data.
        output: of the model for it, in training.

    Raises:
        UsageError: naming the parameter.
    """
    inputs, target = batch if isinstance(batch, (tuple, list)) and len(batch) == 2 else (None, None)
    floats = isinstance(inputs, Tensor) and inputs.is_floating_point()
    for name in ("mixup", "label_smoothing", "auxiliary_weight"):
        if getattr(recipe, name) and task.has("loss"):
            raise UsageError(
                f"`{name}` changes the default loss, and {task.user.reference} has a loss() of its own",
                hint="leave it out, and let loss() do it",
            )
    if recipe.cutout and not (floats and isinstance(inputs, Tensor) and inputs.dim() == 4):
        raise UsageError(
            f"`cutout` is for images, [samples, channels, height, width], and the input is {_described(inputs)}",
            hint="leave it out",
        )
    if recipe.cutout and isinstance(inputs, Tensor) and (recipe.cutout + 1) // 2 >= max(inputs.shape[2:]):
        raise UsageError(
            f"`cutout` {recipe.cutout} leaves nothing of images of {'x'.join(map(str, inputs.shape[2:]))}",
            hint="give a smaller one",
        )
    if recipe.mixup and not (floats and isinstance(target, Tensor) and target.dim()):
        raise UsageError(
            f"`mixup` mixes inputs of floating numbers, and the input is {_described(inputs)}", hint="leave it out"
        )
    if recipe.auxiliary_weight is not None and not (isinstance(output, (tuple, list)) and len(output) == 2):
        raise UsageError(
            "`auxiliary_weight` does nothing, the model returns no pair of logits and auxiliary logits",
            hint="leave it out",
        )


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "no tensor of its own" if value is None else f"a {type(value).__name__}"
