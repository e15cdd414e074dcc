"""What is trained and measured where a task says nothing: classification, by cross entropy and accuracy.

Targets are labels (whole numbers), class probabilities ("soft labels", as mixup gives them) or one-hot rows. What is
none of them, a regression say, would give numbers all the same, so it is refused.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnas_core.errors import UserCodeError
from nnas_core.training.returned import described

__all__ = ["AUXILIARY_WEIGHT", "Classification", "taken_as_auxiliary"]

AUXILIARY_WEIGHT = 0.4
"""Weight of an auxiliary head's loss, as in Szegedy et al. 2014 (0.3) and DARTS (0.4)."""

_IGNORED = -100
"""The label that torch's cross entropy leaves out."""

_SUM_TOLERANCE = 1e-2
"""Of class probabilities, which may come in half precision."""

_REGRESSION = (
    "for a regression define `def loss(output, target): return F.mse_loss(output, target)` beside the model, metrics"
    ' as in `def metrics(output, target): return {"mae": (output - target).abs().mean()}`, and metric_mode = "min"'
)
_BINARY = (
    "define loss(output, target) beside the model, say of F.binary_cross_entropy_with_logits or F.mse_loss, and"
    " metrics(output, target)"
)
_OWN_METRICS = (
    "define metrics(output, target) beside the model; it returns a dictionary of numbers, and where less is better the"
    ' module says metric_mode = "min"'
)


class Classification:
    """The default loss and metric.

    Args:
        where: the user's file, for errors.
        auxiliary_weight: of the loss of auxiliary logits.
        label_smoothing: the share of a target that is spread over all classes alike (Szegedy et al. 2016,
            "Rethinking the Inception Architecture", section 7).
    """

    def __init__(
        self, where: str | None = None, auxiliary_weight: float = AUXILIARY_WEIGHT, label_smoothing: float = 0.0
    ) -> None:
        self._where = where
        self._auxiliary_weight = auxiliary_weight
        self._label_smoothing = label_smoothing

    def loss(self, output: Any, target: Any) -> Tensor:
        """Cross entropy; for ``(logits, auxiliary_logits)`` the weighted sum of both.

        Raises:
            UserCodeError: output and target cannot be compared so.
        """
        logits, auxiliary = _split(output)
        classes = target if _are_labels(logits, target) else self._targets(logits, target, "cross entropy", _BINARY)
        loss = self._cross_entropy(logits, classes)
        return loss if auxiliary is None else loss + self._auxiliary_weight * self._cross_entropy(auxiliary, classes)

    def metrics(self, output: Any, target: Any) -> dict[str, float]:
        """``accuracy``: the fraction of rows whose largest logit is that of the label, or of its likeliest class.

        Raises:
            UserCodeError: output and target cannot be compared so.
        """
        logits, _ = _split(output)
        classes = target if _are_labels(logits, target) else self._targets(logits, target, "accuracy", _OWN_METRICS)
        labels = classes.argmax(dim=1) if classes.is_floating_point() else classes
        guesses = logits.argmax(dim=1)
        if guesses.shape != labels.shape:
            raise self._incomparable("accuracy", logits, target, None, _OWN_METRICS)
        return {"accuracy": (guesses == labels).mean(dtype=torch.float32).item()}

    def _targets(self, logits: Any, target: Any, what: str, hint: str) -> Tensor:
        """The target as labels (int64) or as class probabilities."""
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor):
            raise self._incomparable(what, logits, target, None, hint)
        if logits.dim() < 2:
            raise self._incomparable(what, logits, target, "it needs one number a class, [samples, classes]", hint)
        if logits.shape[1] == 1:
            one = "one class is always right"
            raise self._incomparable(what, logits, target, one, _REGRESSION if target.is_floating_point() else hint)
        if target.shape == logits.shape:
            return self._probabilities(logits, target, what, hint)
        if target.is_floating_point():
            reason = "targets of floating point are class probabilities, and need the shape of the output"
            if bool((target == target.round()).all()):
                raise self._incomparable(
                    what, logits, target, reason, f"make labels whole numbers: target.long(); {_REGRESSION}"
                )
            raise self._incomparable(what, logits, target, reason, _REGRESSION)
        return target if target.dtype is torch.int64 else target.long()

    def _probabilities(self, logits: Tensor, target: Tensor, what: str, hint: str) -> Tensor:
        rows = target if target.is_floating_point() else target.to(logits.dtype)  # one-hot rows of whole numbers
        sums = rows.sum(dim=1)
        if bool((rows < 0).any()) or bool(((sums - 1).abs() > _SUM_TOLERANCE).any()):
            several = bool(((rows == 0) | (rows == 1)).all())
            raise self._incomparable(
                what,
                logits,
                target,
                "targets of the output's shape are class probabilities, whose rows sum to 1, and these do not",
                hint if several or hint is _OWN_METRICS else _REGRESSION,
            )
        return rows

    def _cross_entropy(self, logits: Any, target: Tensor) -> Tensor:
        if not target.is_cpu and not target.is_floating_point() and target.numel():
            # a device does not say which label it was, and cannot go on
            low, high = torch.stack(torch.aminmax(target)).tolist()
            if high >= logits.shape[1] or (low < 0 and low != _IGNORED):
                self._require_labels(logits, target)
        try:
            return F.cross_entropy(logits, target, label_smoothing=self._label_smoothing)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if isinstance(logits, Tensor) and logits.dim() > 1 and not target.is_floating_point():
                self._require_labels(logits, target)
            reason = str(error).splitlines()[0]
            hint = "define loss(output, target) and metrics(output, target) beside the model"
            raise self._incomparable("cross entropy", logits, target, reason, hint) from error

    def _require_labels(self, logits: Tensor, target: Tensor) -> None:
        classes = logits.shape[1]
        wrong = target[((target < 0) | (target >= classes)) & (target != _IGNORED)]
        if wrong.numel():
            low, high = int(wrong.min()), int(wrong.max())
            which = f"the label {high} is" if low == high else f"labels from {low} to {high} are"
            raise UserCodeError(
                f"{which} out of range: the output {list(logits.shape)} has {classes} classes, 0 to {classes - 1}",
                where=self._where,
                hint=f"count labels from 0, or let the model give {high + 1} classes" if low >= 0 else "count from 0",
            )

    def _incomparable(self, what: str, logits: Any, target: Any, reason: str | None, hint: str) -> UserCodeError:
        shown = [
            f"{name} {list(value.shape)}" if isinstance(value, Tensor) else f"{name}, {described(value)},"
            for name, value in (("output", logits), (_kind(target), target))
        ]
        head = f"{what} cannot compare {shown[0]} and {shown[1].removesuffix(',')}"
        return UserCodeError(f"{head}: {reason}" if reason else head, where=self._where, hint=hint)


def _kind(target: Any) -> str:
    return "float target" if isinstance(target, Tensor) and target.is_floating_point() else "target"


def _are_labels(logits: Any, target: Any) -> bool:
    """Return true for what nearly every batch is, so that it is not looked at more closely."""
    if not isinstance(logits, Tensor) or not isinstance(target, Tensor) or target.dtype is not torch.int64:
        return False
    return logits.dim() == target.dim() + 1 and logits.size(1) > 1


def taken_as_auxiliary(output: Any) -> str | None:
    """What to tell the author of a model that returns a pair, which may mean something else by it."""
    _, auxiliary = _split(output)
    if auxiliary is None:
        return None
    return (
        f"the model returns a pair: its second part, {described(auxiliary)}, counts as auxiliary logits, with weight"
        f" {AUXILIARY_WEIGHT} in the loss; define loss(output, target) if it is something else"
    )


def _split(output: Any) -> tuple[Any, Any | None]:
    if isinstance(output, (tuple, list)) and len(output) == 2:
        return output[0], output[1]
    return output, None
