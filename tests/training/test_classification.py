"""The default loss and metric: which targets they take, and what is said of those they do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnas_core.errors import UserCodeError
from tests.training.sample_trainings import task_of

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [3.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2, 1])
SOFT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]])


def by_hand(probabilities):
    """Cross entropy from its definition."""
    likelihoods = LOGITS.exp() / LOGITS.exp().sum(dim=1, keepdim=True)
    return -(probabilities * likelihoods.log()).sum(dim=1).mean().item()


class TestTargets:
    def test_soft_labels_are_class_probabilities(self):
        task = task_of()
        assert task.loss(LOGITS, SOFT).item() == pytest.approx(by_hand(SOFT))
        assert task.metrics(LOGITS, SOFT) == {"accuracy": pytest.approx(2 / 3)}  # the second row's guess is class 1

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
    def test_one_hot_rows_are_labels(self, dtype):
        one_hot = F.one_hot(LABELS, 3).to(dtype)
        assert task_of().loss(LOGITS, one_hot).item() == pytest.approx(by_hand(F.one_hot(LABELS, 3)))
        assert task_of().metrics(LOGITS, one_hot) == task_of().metrics(LOGITS, LABELS)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
    def test_labels_may_be_whole_numbers_of_any_kind(self, dtype):
        assert task_of().loss(LOGITS, LABELS.to(dtype)).item() == task_of().loss(LOGITS, LABELS).item()

    def test_labels_of_pixels(self):
        logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        labels = logits.argmax(dim=1)
        labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 3
        assert task_of().metrics(logits, labels) == {"accuracy": pytest.approx(31 / 32)}

    def test_a_label_that_torch_ignores_is_in_range(self):
        assert task_of().loss(LOGITS, torch.tensor([0, -100, 1])).isfinite()


REGRESSION = "F.mse_loss"


class TestRefusals:
    @pytest.mark.parametrize(
        ("output", "target", "message", "hint"),
        [
            (LOGITS[:, :1], torch.randn(3, 1), r"output \[3, 1\] and float target \[3, 1\]: one class", REGRESSION),
            (LOGITS[:, :1], torch.tensor([0, 0, 0]), "one class is always right", "binary_cross_entropy_with_logits"),
            (LOGITS, LOGITS, "whose rows sum to 1, and these do not", REGRESSION),
            (LOGITS, -SOFT, "whose rows sum to 1", REGRESSION),
            (LOGITS, torch.tensor([[1.0, 1, 0]] * 3), "rows sum to 1", "binary_cross_entropy_with_logits"),
            (LOGITS, torch.tensor([[1, 1, 0]] * 3), "rows sum to 1", "binary_cross_entropy_with_logits"),
            (LOGITS, torch.randn(3), r"float target \[3\]: targets of floating point", REGRESSION),
            (LOGITS, LABELS.float(), r"float target \[3\]", r"target.long\(\)"),
            (LOGITS[:, 0], LABELS.float(), r"output \[3\] and float target \[3\]", "binary_cross_entropy_with_logits"),
            (LOGITS[:, 0], LABELS, "it needs one number a class", "binary_cross_entropy_with_logits"),
            ({"logits": LOGITS}, LABELS, r"output, a dict with 'logits', and target \[3\]", "define loss"),
            (LOGITS, None, r"output \[3, 3\] and target, None", "define loss"),
            (LOGITS, LABELS[:, None], r"target \[3, 1\]: 0D or 1D target tensor expected", "define loss"),
        ],
    )
    def test_the_loss_says_what_to_write(self, output, target, message, hint):
        with pytest.raises(UserCodeError, match=rf"task\.py: cross entropy cannot compare .*{message}") as caught:
            task_of().loss(output, target)
        assert caught.value.hint is not None
        assert hint.replace("\\", "") in caught.value.hint

    @pytest.mark.parametrize(
        ("labels", "message", "hint"),
        [
            ([0, 3, 1], r"the label 3 is out of range: the output \[3, 3\] has 3 classes, 0 to 2", "give 4 classes"),
            ([9, 3, 1], "labels from 3 to 9 are out of range", "give 10 classes"),
            ([-1, 0, 1], "the label -1 is out of range", "count from 0"),
        ],
    )
    def test_labels_out_of_range_name_the_classes(self, labels, message, hint):
        with pytest.raises(UserCodeError, match=message) as caught:
            task_of().loss(LOGITS, torch.tensor(labels))
        assert hint in (caught.value.hint or "")

    @pytest.mark.parametrize(
        ("output", "target"),
        [
            (LOGITS[:, :1], torch.randn(3, 1)),  # compared as they are, they would make a square of nine
            (LOGITS[:, 0], torch.zeros(3)),
            (LOGITS, LABELS[:, None]),
            (LOGITS, LABELS[:2]),
        ],
    )
    def test_a_loss_of_ones_own_needs_metrics_of_ones_own_where_accuracy_means_nothing(self, output, target):
        task = task_of(loss=lambda output, target: output.sum())
        with pytest.raises(UserCodeError, match=r"task\.py: accuracy cannot compare output") as caught:
            task.metrics(output, target)
        assert "define metrics(output, target)" in (caught.value.hint or "") or REGRESSION in (caught.value.hint or "")
